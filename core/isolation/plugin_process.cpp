#include "core/isolation/plugin_process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <future>

#include "core/base/log.hpp"

namespace sluice::isolation {
namespace {

constexpr int kFirstFd = 3, kFds = 3;  // ring, own wake, the server's wake: as child_main.cpp expects them
constexpr std::chrono::milliseconds kLook{500};
constexpr std::chrono::seconds kHeartStops{10};
constexpr rlim_t kMaxFiles = 1024;

/// What runs in the child between fork and exec: only calls that are safe there.
[[noreturn]] void become(const char *program, const int (&fds)[kFds], pid_t parent) {
  int high[kFds];
  for (int i = 0; i < kFds; ++i) high[i] = ::fcntl(fds[i], F_DUPFD, 100);
  for (int i = 0; i < kFds; ++i)
    if (high[i] < 0 || ::dup2(high[i], kFirstFd + i) < 0) ::_exit(126);
  const int null = ::open("/dev/null", O_RDWR);
  if (null < 0 || ::dup2(null, 0) < 0 || ::dup2(null, 1) < 0) ::_exit(126);
  ::syscall(SYS_close_range, kFirstFd + kFds, ~0U, 0);
  ::setpgid(0, 0);  // a Ctrl-C is for the server, which then closes us in order
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) ::_exit(126);
  if (::getppid() != parent) ::_exit(126);  // it died before we asked to be told
  const rlimit no_core{0, 0};
  rlimit files{};
  ::setrlimit(RLIMIT_CORE, &no_core);
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max > kMaxFiles) {
    files = {kMaxFiles, kMaxFiles};
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  char path[] = "PATH=/usr/bin:/bin", lang[] = "LANG=C.UTF-8";
  char *const environment[] = {path, lang, nullptr};
  char *const arguments[] = {const_cast<char *>(program), nullptr};
  ::execve(program, arguments, environment);
  ::_exit(127);
}

/// Forks from a thread that lives as long as the process: the death signal of a child comes when the thread that forked
/// it ends, not the process.
class Forker {
 public:
  static Forker &get() {
    static auto *forker = new Forker;
    return *forker;
  }
  pid_t fork(const std::string &program, const int (&fds)[kFds]) {
    std::promise<pid_t> made;
    auto result = made.get_future();
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back([&] {
        const pid_t parent = ::getpid();
        const pid_t pid = ::fork();
        if (pid == 0) become(program.c_str(), fds, parent);
        made.set_value(pid);
      });
    }
    arrived_.notify_one();
    return result.get();
  }

 private:
  Forker() {
    std::thread([this] {
      pthread_setname_np(pthread_self(), "sluice-fork");
      std::unique_lock lock(mutex_);
      for (;;) {
        arrived_.wait(lock, [this] { return !jobs_.empty(); });
        const auto job = std::move(jobs_.front());
        jobs_.pop_front();
        job();
      }
    }).detach();
  }
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::function<void()>> jobs_;
};

std::string describe(const siginfo_t &info) {
  if (info.si_code == CLD_EXITED) return fmt::format("exited with code {}", info.si_status);
  return fmt::format("was ended by signal {} ({})", info.si_status, ::strsignal(info.si_status));
}

}  // namespace

Result<std::unique_ptr<PluginProcess>> PluginProcess::start(const std::string &program, const std::string &who) {
  if (::access(program.c_str(), X_OK) != 0)
    return Error{Code::kNotFound, fmt::format("{}: isolation = \"process\" needs {}, which cannot be run: {}", who,
                                              program, std::strerror(errno)), {}};
  auto memory = SharedMemory::create();
  if (!memory) return memory.error();
  const int host_wake = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), child_wake = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const int fds[kFds] = {(*memory)->fd(), child_wake, host_wake};
  const pid_t pid = host_wake < 0 || child_wake < 0 ? -1 : Forker::get().fork(program, fds);
  const int pidfd = pid < 0 ? -1 : static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) {
    const Error error{Code::kResourceExhausted, fmt::format("{}: no process for it: {}", who, std::strerror(errno)), {}};
    ::close(host_wake), ::close(child_wake);
    if (pid > 0) ::kill(pid, SIGKILL), ::waitpid(pid, nullptr, 0);
    return error;
  }
  ::fcntl(pidfd, F_SETFD, FD_CLOEXEC);
  auto link = std::make_unique<Link>(Link::End::kHost, std::move(*memory), host_wake, child_wake, pidfd);
  return std::unique_ptr<PluginProcess>(new PluginProcess(pid, pidfd, who, std::move(link)));
}

PluginProcess::PluginProcess(pid_t pid, int pidfd, std::string who, std::unique_ptr<Link> link)
    : pid_(pid), pidfd_(pidfd), who_(std::move(who)), link_(std::move(link)) {
  watch_ = std::thread([this] { watch(); });
  pthread_setname_np(watch_.native_handle(), "sluice-child");
}

PluginProcess::~PluginProcess() {
  kill();
  watch_.join();
  link_.reset();
  ::close(pidfd_);
}

void PluginProcess::kill() {
  // Its process group, in case it has children of its own; not yet reaped, so it cannot be somebody else's.
  const std::lock_guard lock(mutex_);
  if (ended_) return;
  ::kill(-pid_, SIGKILL);
  ::kill(pid_, SIGKILL);
}

std::string PluginProcess::ending() const {
  const std::lock_guard lock(mutex_);
  return ending_;
}

void PluginProcess::watch() {
  uint64_t last_beat = 0;
  auto beat_at = std::chrono::steady_clock::now();
  for (;;) {
    pollfd fds[] = {{pidfd_, POLLIN, 0}};
    ::poll(fds, 1, static_cast<int>(kLook.count()));
    if (fds[0].revents != 0) break;
    const auto now = std::chrono::steady_clock::now();
    const uint64_t beat = link_->head().heartbeat.load(std::memory_order_relaxed);
    if (beat != last_beat || !heart_expected_.load(std::memory_order_relaxed)) {
      last_beat = beat, beat_at = now;
    } else if (now - beat_at > kHeartStops) {
      log::error(who_, "its process {} has no heartbeat for {} s and is killed", pid_, kHeartStops.count());
      beat_at = now;
      kill();
    }
  }
  siginfo_t info{};
  const std::lock_guard lock(mutex_);  // kill() must not signal the group of a process that has been reaped
  ::kill(-pid_, SIGKILL);              // whom it leaves behind
  ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED);
  ended_ = true;
  ending_ = describe(info);
  if (info.si_code != CLD_EXITED || info.si_status != 0) log::warn(who_, "its process {} {}", pid_, ending_);
}

std::string plugin_host_program() {
  std::error_code none;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", none);
  return (self.parent_path() / "sluice-plugin-host").string();
}

}  // namespace sluice::isolation

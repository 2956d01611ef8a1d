#include "tests/support/child_process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>
#include <thread>

extern char **environ;

namespace sluice::support {
namespace {

std::vector<std::string> environment_of(const ChildOptions &options) {
  std::vector<std::string> out;
  for (char **e = environ; *e != nullptr; ++e)
    if (std::strncmp(*e, "SLUICE_", 7) != 0) out.emplace_back(*e);
  for (const auto &[name, value] : options.environment) out.push_back(name + "=" + value);
  return out;
}

std::vector<char *> pointers(std::vector<std::string> &strings) {
  std::vector<char *> out;
  for (std::string &s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

int open_or_throw(const std::string &path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
  if (fd < 0) throw std::runtime_error("cannot open " + path);
  return fd;
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string> &argv, const ChildOptions &options) {
  std::vector<std::string> arguments = argv, environment = environment_of(options);
  const std::vector<char *> argument_pointers = pointers(arguments), environment_pointers = pointers(environment);
  const int in = open_or_throw(files_.write("stdin", options.stdin_text), O_RDONLY);
  const int out = open_or_throw(files_.file("stdout"), O_WRONLY | O_CREAT | O_APPEND);
  const int err = open_or_throw(files_.file("stderr"), O_WRONLY | O_CREAT | O_APPEND);
  pid_ = ::fork();
  if (pid_ == 0) {  // only calls that are safe after fork from here to exec
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::dup2(in, 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(err, 2) < 0) ::_exit(126);
    if (!options.working_dir.empty() && ::chdir(options.working_dir.c_str()) != 0) ::_exit(126);
    ::execve(argument_pointers[0], argument_pointers.data(), environment_pointers.data());
    ::_exit(127);
  }
  ::close(in), ::close(out), ::close(err);
  if (pid_ < 0) throw std::runtime_error("fork failed");
}

ChildProcess::~ChildProcess() {
  if (poll()) return;
  ::kill(pid_, SIGKILL);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
}

void ChildProcess::send(int signal) const {
  if (!exit_) ::kill(pid_, signal);
}

bool ChildProcess::poll() {
  if (exit_) return true;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) != pid_) return false;
  exit_ = WIFEXITED(status) ? Exit{WEXITSTATUS(status), 0} : Exit{-1, WTERMSIG(status)};
  return true;
}

std::optional<Exit> ChildProcess::wait(std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (!poll()) {
    if (std::chrono::steady_clock::now() >= until) return std::nullopt;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return exit_;
}

Finished run(const std::vector<std::string> &argv, const ChildOptions &options, std::chrono::milliseconds patience) {
  ChildProcess child(argv, options);
  auto exit = child.wait(patience);
  if (!exit) {
    child.send(SIGKILL);
    exit = child.wait(std::chrono::seconds(5));
  }
  return {exit.value_or(Exit{-1, SIGKILL}), child.out(), child.err()};
}

}  // namespace sluice::support

#include "core/conformance/child.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <exception>

#include "core/base/log.hpp"

namespace sluice::conformance {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kField = '\x1f', kRecord = '\x1e';  // cannot be part of the texts, which are cleaned
constexpr size_t kMaxOutputBytes = 1 << 20;
constexpr std::chrono::seconds kEndPatience{1};  // between its last word and its end

std::string clean(std::string text) {
  for (char &c : text)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return text;
}

void send(int fd, const std::string &record) {
  for (size_t at = 0; at < record.size();) {
    const ssize_t n = ::write(fd, record.data() + at, record.size() - at);
    if (n < 0 && errno != EINTR) return;
    if (n > 0) at += static_cast<size_t>(n);
  }
}

void limit(int what, rlim_t value) {
  const rlimit wanted{value, value};
  ::setrlimit(static_cast<__rlimit_resource>(what), &wanted);
}

[[noreturn]] void child(int fd, std::chrono::seconds timeout, const std::function<void(Findings &)> &check) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::dup2(2, 1);  // what a plugin prints must not end up in the report
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, static_cast<rlim_t>(timeout.count()) * 4);
  limit(RLIMIT_NOFILE, 1024);
  for (const int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) ::signal(s, SIG_DFL);
  log::configure(log::Level::kError, log::Format::kText);
  Findings findings(fd);
  try {
    check(findings);
  } catch (const std::exception &e) {
    findings.fail("R3 no exceptions across the boundary", std::string("an exception came out of the plugin: ") + e.what(),
                  "catch everything in every function of the table; the SDK's adapters do");
  } catch (...) {
    findings.fail("R3 no exceptions across the boundary", "something was thrown out of the plugin",
                  "catch everything in every function of the table; the SDK's adapters do");
  }
  send(fd, std::string("E") + kRecord);
  ::_exit(0);
}

enum class Heard { kEnd, kTimeUp, kTooMuch };

/// Everything that the child wrote, until it says that it is done, or its end of the pipe is closed.
Heard collect(int fd, Clock::time_point until, std::string &out) {
  char buffer[4096];
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return Heard::kTimeUp;
    pollfd wait{fd, POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(left));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return Heard::kTimeUp;
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Heard::kEnd;
    if (out.size() > kMaxOutputBytes) return Heard::kTooMuch;
    out.append(buffer, static_cast<size_t>(n));
    if (out.size() >= 2 && out.compare(out.size() - 2, 2, std::string("E") + kRecord) == 0) return Heard::kEnd;
  }
}

/// Waits for the end of a child that has nothing more to say. False: it does not end and is killed.
bool reap(pid_t pid, bool kill_at_once, int &status) {
  const auto until = Clock::now() + kEndPatience;
  while (!kill_at_once && Clock::now() < until) {
    if (::waitpid(pid, &status, WNOHANG) != 0) return true;
    ::usleep(2'000);
  }
  ::kill(pid, SIGKILL);
  ::waitpid(pid, &status, 0);
  return false;
}

std::vector<std::string> split(const std::string &text, char by) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(by, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

}  // namespace

void Findings::write(Severity severity, const std::string &rule, const std::string &message, const std::string &fix) {
  const char tag = severity == Severity::kFailure ? 'F' : severity == Severity::kWarning ? 'W' : 'N';
  send(fd_, std::string(1, tag) + kField + clean(rule) + kField + clean(message) + kField + clean(fix) + kRecord);
}
void Findings::skip(const std::string &why) {
  note(why);
  send(fd_, std::string("S") + kRecord);
}
void Findings::doing(const std::string &what) { send(fd_, std::string("D") + kField + clean(what) + kRecord); }

CaseResult run_in_child(char stage, const std::string &name, std::chrono::seconds timeout,
                        const std::function<void(Findings &)> &check) {
  CaseResult result;
  result.stage = stage, result.name = name;
  const auto started = Clock::now();
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) {
    result.findings.push_back({Severity::kFailure, "the checker", std::string("no pipe: ") + std::strerror(errno), ""});
    return result;
  }
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::close(pipe[0]);
    child(pipe[1], timeout, check);
  }
  ::close(pipe[1]);
  std::string out;
  const Heard heard = pid > 0 ? collect(pipe[0], started + timeout, out) : Heard::kEnd;
  int status = 0;
  const bool ended = pid <= 0 || reap(pid, heard != Heard::kEnd, status);
  ::close(pipe[0]);
  result.seconds = std::chrono::duration<double>(Clock::now() - started).count();

  bool complete = false;
  std::string doing = name;
  for (const std::string &record : split(out, kRecord)) {
    const auto parts = split(record, kField);
    if (parts[0] == "E") complete = true;
    if (parts[0] == "S") result.skipped = true;
    if (parts[0] == "D" && parts.size() == 2) doing = parts[1];
    const bool is_finding = parts.size() == 4 && (parts[0] == "F" || parts[0] == "W" || parts[0] == "N");
    if (is_finding)
      result.findings.push_back({parts[0] == "F"   ? Severity::kFailure
                                 : parts[0] == "W" ? Severity::kWarning
                                                   : Severity::kNote,
                                 parts[1], parts[2], parts[3]});
  }
  const auto died = [&](const std::string &rule, const std::string &how, const std::string &fix) {
    result.findings.push_back({Severity::kFailure, rule, how + " during: " + doing, fix});
  };
  if (pid < 0) {
    died("the checker", "fork failed", "");
  } else if (heard == Heard::kTooMuch) {
    died("the process stays alive", fmt::format("more than {} bytes came for the report", kMaxOutputBytes),
         "a plugin writes to no descriptor that it has not opened");
  } else if (!ended && heard == Heard::kEnd) {
    died("the process stays alive", "the descriptors of the process were closed, and it did not end",
         "a plugin closes no descriptor that it has not opened");
  } else if (!ended) {
    died("R7 calls return", fmt::format("no end after {} s", timeout.count()),
         "no call may block for ever; long work belongs to [init], and [engine] calls take no lock that is held long");
  } else if (WIFSIGNALED(status) && !complete) {
    died("the process stays alive", fmt::format("killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status))),
         "run the check under a debugger: such a plugin takes the whole server down");
  } else if (!complete) {
    died("the process stays alive", fmt::format("the plugin ended the process with code {}", WEXITSTATUS(status)),
         "return an error code; exit() and abort() are not a plugin's to call");
  }
  return result;
}

}  // namespace sluice::conformance

#pragma once
#include <chrono>
#include <functional>
#include <string>

#include "core/conformance/report.hpp"

namespace sluice::conformance {

/// Where a check writes what it finds. In the child every finding goes out at once, so that a crash loses none.
class Findings {
 public:
  explicit Findings(int fd) : fd_(fd) {}
  void fail(const std::string &rule, const std::string &message, const std::string &fix) {
    write(Severity::kFailure, rule, message, fix);
    ++failures_;
  }
  void warn(const std::string &rule, const std::string &message, const std::string &fix) {
    write(Severity::kWarning, rule, message, fix);
  }
  void note(const std::string &message) { write(Severity::kNote, "note", message, ""); }
  /// The check does not apply, or lacks something.
  void skip(const std::string &why);
  /// What is being done, to be told when it never comes back.
  void doing(const std::string &what);
  int failures() const { return failures_; }

 private:
  void write(Severity severity, const std::string &rule, const std::string &message, const std::string &fix);
  const int fd_;
  int failures_ = 0;
};

/// Runs a check in a forked child with limits on time, CPU and files, without core dumps. A crash, an exception, an
/// exit or running on past the time-out becomes a failure that names what was being done.
/// thread  the only one of the process
CaseResult run_in_child(char stage, const std::string &name, std::chrono::seconds timeout,
                        const std::function<void(Findings &)> &check);

}  // namespace sluice::conformance

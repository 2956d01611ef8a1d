#pragma once
#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/temp_dir.hpp"

namespace sluice::support {

/// How a process ended.
struct Exit {
  int code = -1;   ///< exit code; -1 when a signal ended it
  int signal = 0;  ///< 0 when it exited by itself
};

struct ChildOptions {
  std::vector<std::pair<std::string, std::string>> environment;  ///< added; SLUICE_* of the caller is taken out
  std::string stdin_text;
  std::string working_dir;  ///< "" = the caller's
};

/// One process that the test started and ends. Its output goes to files, so it never waits for a reader. It is killed
/// when the object goes, and by the kernel when the test itself dies.
class ChildProcess {
 public:
  /// throws std::runtime_error when the program cannot be started.
  explicit ChildProcess(const std::vector<std::string> &argv, const ChildOptions &options = {});
  ~ChildProcess();
  ChildProcess(const ChildProcess &) = delete;
  ChildProcess &operator=(const ChildProcess &) = delete;

  pid_t pid() const { return pid_; }
  void send(int signal) const;
  bool running() { return !poll(); }
  /// The end, or nothing when it still runs after `patience`.
  std::optional<Exit> wait(std::chrono::milliseconds patience);

  std::string out() const { return read_file(files_.file("stdout")); }
  std::string err() const { return read_file(files_.file("stderr")); }

 private:
  bool poll();
  TempDir files_;
  pid_t pid_ = -1;
  std::optional<Exit> exit_;
};

struct Finished {
  Exit exit;
  std::string out, err;
};

/// Runs to the end. A program that outlives `patience` is killed and reported with signal SIGKILL.
Finished run(const std::vector<std::string> &argv, const ChildOptions &options = {},
             std::chrono::milliseconds patience = std::chrono::seconds(60));

}  // namespace sluice::support

#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::app {

/// Tells a person at a terminal, or a log, what a long start is doing: one line per phase with its size and time, and
/// in between a bar on a terminal or a line per tenth elsewhere. Writes to stderr.
/// thread  [init]
class Progress {
 public:
  Progress();

  /// Ends the phase before it, if any, and starts one. total_bytes 0 = of no known size.
  void phase(std::string name, uint64_t total_bytes = 0);
  void advance(uint64_t done_bytes);
  /// Ends the phase with words of its own ("1,024 blocks of 16 tokens, 512 MiB").
  void done(std::string_view detail = {});

 private:
  void clear_bar() const;

  const bool terminal_;
  std::string name_;
  uint64_t total_bytes_ = 0;
  int shown_tenths_ = -1;
  std::chrono::steady_clock::time_point began_;
  std::chrono::steady_clock::time_point drawn_;
};

/// "512 B", "1.5 KiB", "2.0 GiB".
std::string format_bytes(uint64_t bytes);

}  // namespace sluice::app

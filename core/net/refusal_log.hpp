#pragma once
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace sluice::net {

/// An answer of 400 or above, as the log shows it: no header, no body.
struct Refusal {
  std::string_view request_id, method, route;
  int status = 0;
  std::string_view peer;  ///< address
};

/// One JSON line for each refusal, but at most kLinesPerS a second, so that a flood of bad requests does not fill the
/// disk; the first line of a later second says how many are missing. [any]
class RefusalLog {
 public:
  static constexpr uint32_t kLinesPerS = 50;

  /// The line to write, empty when there have been enough.  now_s  seconds of a steady clock
  std::string line(const Refusal &refusal, int64_t now_s);

  void write(const Refusal &refusal);

 private:
  std::mutex mutex_;
  int64_t second_ = 0;
  uint32_t written_ = 0, dropped_ = 0;
};

}  // namespace sluice::net

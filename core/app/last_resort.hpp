#pragma once
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace sluice::app {

/// Ends the process when something that calls plugins does not come to its end: a thread inside of one cannot be stopped
/// from outside, and nothing may be taken down under it. [any]
class LastResort {
 public:
  LastResort() = default;
  ~LastResort();
  LastResort(const LastResort &) = delete;
  LastResort &operator=(const LastResort &) = delete;

  /// From now on `what` may take so long; takes the place of what was armed before. Its thread begins with the first
  /// one, so that it blocks the signals that its maker does.
  void arm(const std::string &what, std::chrono::milliseconds patience);
  void disarm();

 private:
  void watch();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string what_;  ///< empty = not armed
  std::chrono::milliseconds patience_{};
  std::chrono::steady_clock::time_point until_{};
  bool quit_ = false;
  std::thread thread_;
};

}  // namespace sluice::app

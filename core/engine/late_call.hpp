#pragma once
#include <chrono>
#include <optional>
#include <string>

#include "core/plugin/call_watch.hpp"

namespace sluice::engine {

/// Finds the call into a plugin that does not return. Looks are taken by one thread, calls are made by another.
class LateCall {
 public:
  struct Late {
    std::string what, who;  ///< "scheduler fcfs: plan", "scheduler fcfs"
    std::chrono::milliseconds so_far{};
  };
  explicit LateCall(std::chrono::milliseconds deadline) : deadline_(deadline) {}

  /// For CallWatch::use() of the thread that makes the calls.
  plugin::CallWatch &watch() { return watch_; }
  std::chrono::milliseconds deadline() const { return deadline_; }
  /// How often to look, so that a late call is seen soon.
  std::chrono::milliseconds period() const;
  /// The call under way, when it has lasted longer than the deadline.
  std::optional<Late> look();

 private:
  const std::chrono::milliseconds deadline_;
  plugin::CallWatch watch_;
  plugin::CallWatch::Seen seen_;  ///< by the last look, and since when
  std::chrono::steady_clock::time_point since_{};
};

}  // namespace sluice::engine

#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/engine/engine_core.hpp"
#include "core/engine/late_call.hpp"

namespace sluice::engine {

/// One model's engine thread around an EngineCore, and a second one that watches it.
///
/// Requests and cancels arrive through an inbox that the thread empties between steps; a request is refused here, on the
/// caller's thread, when the queue is full or it can never fit.
///
/// A call into a plugin, or a step, that is not done by limits.call_deadline makes the engine unhealthy until it is. By
/// twice that time what runs is ended with an error. A step that has not ended by then is abandoned, and the engine is
/// damaged; a call cannot be, so its thread stays where it is.
class Engine final : public request::Generator {
 public:
  /// [init] The parts outlive the engine; stop() before they go.
  static Result<std::unique_ptr<Engine>> create(EngineParts parts, EngineLimits limits, uint32_t max_top_logprobs);
  ~Engine() override;

  request::GeneratorLimits limits() const override;
  Result<> submit(std::shared_ptr<const request::Request> request) override;
  void cancel(uint64_t request_id, request::CancelCause cause) override;
  request::GeneratorStats stats() const override;
  void stop() override;
  bool stuck() const override;

  /// [any] EngineCore::change_scheduler on the engine's thread; waits for the step under way.
  /// errors  the plugin's, then nothing has changed; Unavailable (stopping); Timeout (not done by limits.call_deadline:
  ///         nothing has changed, unless a late call into the plugin ends well after all, which the log says)
  Result<> change_scheduler(SchedulerChange to);

 private:
  struct Change {
    SchedulerChange to;
    std::promise<Result<>> done;
    bool given_up = false;  ///< nobody waits for it any more
  };
  struct Message {
    std::shared_ptr<const request::Request> request;  ///< null: a change or a cancel
    std::shared_ptr<Change> change;                   ///< null: a cancel
    uint64_t cancel_id = 0;
    request::CancelCause cause{};
  };

  Engine(std::unique_ptr<EngineCore> core, EngineParts parts, EngineLimits limits, uint32_t max_top_logprobs);
  void loop();
  void take_inbox();
  void change_now(Change &change);
  void sleep(uint64_t wake_at_ns);
  void publish();
  void finish_work();

  // The watch.
  void watch();
  void look();
  void end_open(const Error &error);

  const EngineParts parts_;
  const EngineLimits limits_;
  const uint32_t max_top_logprobs_;
  std::unique_ptr<EngineCore> core_;  ///< [engine]

  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Message> inbox_;
  request::GeneratorStats stats_;  ///< as of the last step
  uint32_t inbox_answers_ = 0;     ///< answers in inbox_
  uint32_t core_live_ = 0;         ///< sequences the core had after the last step
  bool stopping_ = false;

  bool finished_ = false;          ///< the engine thread is out of the plugins and will not return there
  std::condition_variable finished_changed_;
  std::unordered_map<uint64_t, std::weak_ptr<const request::Request>> open_;  ///< by id; what has ended is swept out

  std::atomic<bool> inbox_has_mail_{false};
  std::vector<Message> taken_;  ///< [engine]

  std::atomic<uint64_t> step_since_ns_{0};     ///< the step under way, on the steady clock; 0 = none
  std::condition_variable watch_wakes_;
  LateCall calls_;
  std::string overrun_, overrun_by_;           ///< what is late, and of which plugin; empty = nothing
  uint64_t n_overruns_ = 0;
  bool gave_up_ = false;                       ///< [watch] what runs has been ended
  std::atomic<bool> abandon_{false};           ///< to the engine thread: give up the step
  std::thread thread_, watch_;
};

}  // namespace sluice::engine

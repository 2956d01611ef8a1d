#pragma once
#include <atomic>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/engine/engine_core.hpp"

namespace sluice::engine {

/// One model's engine thread around an EngineCore.
///
/// Requests and cancels arrive through an inbox that the thread empties between steps; a request is refused here, on the
/// caller's thread, when the queue is full or it can never fit.
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

  /// [any] EngineCore::change_scheduler on the engine's thread; waits for the step under way.
  /// errors  the plugin's, then nothing has changed; Unavailable (stopping)
  Result<> change_scheduler(SchedulerChange to);

 private:
  struct Change {
    SchedulerChange to;
    std::promise<Result<>> done;
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
  void sleep(uint64_t wake_at_ns);
  void publish();

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

  std::atomic<bool> inbox_has_mail_{false};
  std::vector<Message> taken_;  ///< [engine]
  std::thread thread_;
};

}  // namespace sluice::engine

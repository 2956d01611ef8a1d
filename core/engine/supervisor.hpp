#pragma once
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>

#include "core/request/generator.hpp"

namespace sluice::engine {

/// How a damaged model is opened anew: after first_delay, then after twice as long, and so on up to longest_delay, each
/// up to a fifth shorter or longer. Always: max_attempts > 0.
struct ReopenPolicy {
  std::chrono::milliseconds first_delay{1'000}, longest_delay{60'000};
  uint32_t max_attempts = 5;  ///< in a row; then the model stays down until the server is started again
  std::chrono::milliseconds forgiven_after{600'000};  ///< healthy for so long, a model begins to count anew
};

/// Stands in front of a model's generator and replaces it when a plugin has damaged itself.
///
/// While it is down every request is refused with Unavailable and stats() is unhealthy, with the time of the next
/// attempt; after the last one without. Counters go on across replacements. Other models have supervisors of their own.
class Supervisor final : public request::Generator {
 public:
  /// Makes the generator anew. The old one has been stopped and its last stats are given; called on the supervisor's own
  /// thread, and may take as long as loading a model does. `cancelled` turns true when the server stops meanwhile.
  using Reopen = std::function<Result<std::shared_ptr<request::Generator>>(const request::GeneratorStats &last,
                                                                           const std::function<bool()> &cancelled)>;
  /// Asked now and then on the supervisor's own thread, to notice a death while nothing runs; DeviceLost counts as damage.
  /// Returns soon. May be empty.
  using Health = std::function<Result<>()>;
  Supervisor(std::string model, std::shared_ptr<request::Generator> first, Reopen reopen, ReopenPolicy policy,
             Health health = {});
  ~Supervisor() override;

  request::GeneratorLimits limits() const override;
  Result<> submit(std::shared_ptr<const request::Request> request) override;
  void cancel(uint64_t request_id, request::CancelCause cause) override;
  request::GeneratorStats stats() const override;
  void stop() override;
  bool stuck() const override;

 private:
  std::shared_ptr<request::Generator> current() const;
  void watch();
  void replace(std::unique_lock<std::mutex> &lock, const Error *dead);
  void give_up(const std::string &why);
  std::chrono::milliseconds delay(uint32_t attempt);

  const std::string model_;
  const Reopen reopen_;
  const ReopenPolicy policy_;
  const Health health_;
  std::minstd_rand jitter_;

  mutable std::mutex mutex_;  ///< never held while a generator is stopped or made
  std::condition_variable changed_;
  std::shared_ptr<request::Generator> current_;  ///< null while down
  request::GeneratorLimits limits_;              ///< of the last one that was there
  request::GeneratorStats past_;                 ///< counters of those before; while down, what is said of the model
  std::chrono::steady_clock::time_point opened_at_{}, next_attempt_at_{};
  uint32_t attempts_ = 0;  ///< since the model was last healthy for long
  bool stopping_ = false, gave_up_ = false, stuck_ = false;
  std::thread thread_;
};

}  // namespace sluice::engine

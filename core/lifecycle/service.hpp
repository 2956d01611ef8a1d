#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/clock.hpp"
#include "core/lifecycle/failure.hpp"
#include "core/lifecycle/served_model.hpp"
#include "core/lifecycle/worker_pool.hpp"

namespace sluice::lifecycle {

class Generation;

struct ServiceOptions {
  uint32_t max_inflight = 256;      ///< answers in the server at once, waiting ones included; above: 429
  uint32_t max_answers = 8;         ///< `n` of one request
  uint32_t max_prompts = 16;        ///< prompts of one completions request
  uint32_t max_stop_strings = 16;
  uint32_t max_stop_bytes = 256;    ///< of one stop string
  uint32_t max_logprobs = 20;
  uint32_t worker_threads = 2;
  size_t inline_prompt_bytes = 4096;  ///< longer prompts are tokenised by the workers
  size_t channel_events = 512;        ///< events an answer may be ahead of its client before the engine pauses it
  std::chrono::milliseconds request_timeout{0};  ///< 0 = none
  bool any_model_name = false;        ///< an unknown `model` means the first one, for clients with a fixed name
};

/// The models, what is in flight, and the end of both. [any]
class Service {
 public:
  Service(ServiceOptions options, std::shared_ptr<const Clock> clock);
  ~Service();

  const ServiceOptions &options() const { return options_; }
  const Clock &clock() const { return *clock_; }
  WorkerPool &workers() { return workers_; }

  /// [init] The first one is the default model. errors: InvalidArgument (a name or alias is taken)
  Result<> add(std::shared_ptr<ServedModel> model);
  const std::vector<std::shared_ptr<ServedModel>> &models() const { return models_; }

  /// A model that can take work now; an empty name is the default model.
  boost::system::result<std::shared_ptr<ServedModel>, Failure> find_ready(std::string_view name) const;
  std::shared_ptr<ServedModel> find(std::string_view name) const;  ///< null: unknown

  /// Takes room for the answers of one request; give it back with release().
  std::optional<Failure> reserve(uint32_t n_answers);
  void release(uint32_t n_answers);
  uint32_t inflight() const { return inflight_.load(std::memory_order_relaxed); }

  uint64_t next_request_id() { return next_id_.fetch_add(1, std::memory_order_relaxed); }

  void enter(const std::shared_ptr<Generation> &generation);
  void leave(Generation &generation);

  /// From now on: not ready, new work refused with kShuttingDown. Idempotent.
  void begin_drain() { draining_.store(true, std::memory_order_release); }
  bool draining() const { return draining_.load(std::memory_order_acquire); }

  /// begin_drain(), waits for what is in flight at most `patience`, then cancels the rest and waits a moment for it.
  /// Blocks; not on an I/O thread. Idempotent. True: nothing had to be cancelled.
  bool drain(std::chrono::milliseconds patience);
  /// Ends a drain() that waits: what is in flight is cancelled at once. (A second SIGTERM.)
  void hurry();

 private:
  bool wait_until_empty(std::chrono::milliseconds patience);

  const ServiceOptions options_;
  const std::shared_ptr<const Clock> clock_;
  std::vector<std::shared_ptr<ServedModel>> models_;
  std::atomic<uint32_t> inflight_{0};
  std::atomic<uint64_t> next_id_{1};
  std::atomic<bool> draining_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::weak_ptr<Generation>, std::owner_less<>> generations_;
  size_t n_generations_ = 0;
  bool hurried_ = false;
  WorkerPool workers_;  ///< last: its threads use the rest
};

}  // namespace sluice::lifecycle

#include "core/engine/engine.hpp"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>

namespace sluice::engine {

using request::CancelCause;

namespace {

// How long a step is waited for before the inbox is looked at; cancels take effect at the next commit anyway.
constexpr uint64_t kWaitNs = 100'000'000;

void push_end(const request::Request &request, request::FinishReason reason, const Error &error) {
  for (uint32_t answer = 0; answer < request.n_answers; ++answer) {
    request::Event event;
    event.answer = answer;
    event.finish = reason;
    if (reason == request::FinishReason::kError) event.error = std::make_shared<const Error>(error);
    request.events->push(std::move(event));
  }
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::create(EngineParts parts, EngineLimits limits, uint32_t max_top_logprobs) {
  auto core = EngineCore::create(parts, limits);
  if (!core) return core.error();
  limits = (*core)->limits();
  return std::unique_ptr<Engine>(new Engine(std::move(*core), std::move(parts), limits, max_top_logprobs));
}

Engine::Engine(std::unique_ptr<EngineCore> core, EngineParts parts, EngineLimits limits, uint32_t max_top_logprobs)
    : parts_(std::move(parts)), limits_(limits), max_top_logprobs_(max_top_logprobs), core_(std::move(core)) {
  stats_ = core_->stats();
  thread_ = std::thread([this] { loop(); });
  pthread_setname_np(thread_.native_handle(), "sluice-engine");
}

Engine::~Engine() { stop(); }

request::GeneratorLimits Engine::limits() const {
  request::GeneratorLimits out;
  out.max_context = limits_.max_context;
  out.max_kv_tokens = uint64_t{limits_.kv_blocks} * limits_.block_size;
  out.vocab_size = limits_.vocab_size;
  out.max_top_logprobs = max_top_logprobs_;
  out.max_branches = limits_.max_branches;
  return out;
}

Result<> Engine::submit(std::shared_ptr<const request::Request> request) {
  if (auto r = EngineCore::check(*request, limits_); !r) return r;
  if (request->n_top_logprobs > max_top_logprobs_)
    return invalid_argument(fmt::format("top_logprobs is {}; it must be 0..{}", request->n_top_logprobs,
                                        max_top_logprobs_), "top_logprobs");
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return Error{Code::kUnavailable, "the model is stopping", {}};
    if (!stats_.healthy) return Error{Code::kUnavailable, "the model is down: " + stats_.trouble, {}};
    if (core_live_ + inbox_answers_ + request->n_answers > limits_.max_live)
      return Error{Code::kResourceExhausted,
                   fmt::format("{} sequences are running or waiting, at most {} are taken", core_live_ + inbox_answers_,
                               limits_.max_live), {}};
    inbox_answers_ += request->n_answers;
    inbox_.push_back({std::move(request), nullptr, 0, {}});
    inbox_has_mail_.store(true, std::memory_order_release);
  }
  arrived_.notify_one();
  return {};
}

void Engine::cancel(uint64_t request_id, CancelCause cause) {
  {
    const std::lock_guard lock(mutex_);
    inbox_.push_back({nullptr, nullptr, request_id, cause});
    inbox_has_mail_.store(true, std::memory_order_release);
  }
  arrived_.notify_one();
}

Result<> Engine::change_scheduler(SchedulerChange to) {
  const auto change = std::make_shared<Change>();
  change->to = std::move(to);
  auto done = change->done.get_future();
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return Error{Code::kUnavailable, "the model is stopping", {}};
    inbox_.push_back({nullptr, change, 0, {}});
    inbox_has_mail_.store(true, std::memory_order_release);
  }
  arrived_.notify_one();
  return done.get();
}

request::GeneratorStats Engine::stats() const {
  const std::lock_guard lock(mutex_);
  auto out = stats_;
  out.waiting += inbox_answers_;
  return out;
}

void Engine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    inbox_has_mail_.store(true, std::memory_order_release);
  }
  arrived_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Engine::take_inbox() {
  if (!inbox_has_mail_.load(std::memory_order_acquire)) return;
  {
    const std::lock_guard lock(mutex_);
    taken_.swap(inbox_);
    core_live_ += inbox_answers_;  // theirs until publish() knows better
    inbox_answers_ = 0;
    inbox_has_mail_.store(stopping_, std::memory_order_relaxed);
  }
  for (auto &message : taken_) {
    if (message.change) {
      message.change->done.set_value(core_->change_scheduler(message.change->to));
    } else if (!message.request) {
      core_->cancel(message.cancel_id, message.cause);
    } else if (auto r = core_->submit(message.request); !r) {
      push_end(*message.request, request::FinishReason::kError, r.error());
    }
  }
  taken_.clear();
}

void Engine::publish() {
  const auto now = core_->stats();
  const std::lock_guard lock(mutex_);
  stats_ = now;
  core_live_ = static_cast<uint32_t>(core_->live());
}

void Engine::sleep(uint64_t wake_at_ns) {
  std::unique_lock lock(mutex_);
  const auto woken = [this] { return stopping_ || !inbox_.empty(); };
  if (wake_at_ns == 0) {
    arrived_.wait(lock, woken);
    return;
  }
  const uint64_t now = parts_.clock->now_ns();
  if (wake_at_ns > now) arrived_.wait_for(lock, std::chrono::nanoseconds(wake_at_ns - now), woken);
}

void Engine::loop() {
  for (;;) {
    take_inbox();
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    const auto outcome = core_->step(kWaitNs);
    publish();
    if (outcome == StepOutcome::kIdle) sleep(core_->wake_at_ns());
  }
  // The step under way is let finish, so that the backend writes into nothing that is gone.
  core_->cancel_all(CancelCause::kDrain);
  const uint64_t give_up = parts_.clock->now_ns() + 5'000'000'000;
  while (core_->live() > 0 && parts_.clock->now_ns() < give_up) core_->step(kWaitNs);
  if (core_->live() > 0) core_->abandon({Code::kTimeout, "the backend did not finish its step", {}});
  publish();
  const std::lock_guard lock(mutex_);
  for (const auto &message : inbox_) {
    if (message.change) message.change->done.set_value(Error{Code::kUnavailable, "the model is stopping", {}});
    if (message.request) push_end(*message.request, request::FinishReason::kCancelled, {});
  }
  inbox_.clear();
}

}  // namespace sluice::engine

#include "core/engine/engine.hpp"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>

#include "core/base/log.hpp"

namespace sluice::engine {

using request::CancelCause;

namespace {

// How long a step is waited for before the inbox is looked at; cancels take effect at the next commit anyway.
constexpr uint64_t kWaitNs = 100'000'000;
constexpr std::chrono::milliseconds kStopPatience{8'000};

/// Overruns are measured by it, whatever clock the core was given.
uint64_t steady_ns() { return SteadyClock().now_ns(); }

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
    : parts_(std::move(parts)), limits_(limits), max_top_logprobs_(max_top_logprobs), core_(std::move(core)), calls_(limits.call_deadline) {
  stats_ = core_->stats();
  thread_ = std::thread([this] { loop(); });
  pthread_setname_np(thread_.native_handle(), "sluice-engine");
  watch_ = std::thread([this] { watch(); });
  pthread_setname_np(watch_.native_handle(), "sluice-watch");
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
    if (!overrun_.empty()) return Error{Code::kUnavailable, "the model does not answer: " + overrun_, {}};
    if (core_live_ + inbox_answers_ + request->n_answers > limits_.max_live)
      return Error{Code::kResourceExhausted,
                   fmt::format("{} sequences are running or waiting, at most {} are taken", core_live_ + inbox_answers_,
                               limits_.max_live), {}};
    inbox_answers_ += request->n_answers;
    if (open_.size() > 2 * size_t{limits_.max_live})
      std::erase_if(open_, [](const auto &entry) { return entry.second.expired(); });
    open_[request->id] = request;
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
    if (stopping_ || finished_) return Error{Code::kUnavailable, "the model is stopping", {}};
    if (!stats_.healthy || !overrun_.empty()) return Error{Code::kUnavailable, "the model is down", {}};
    inbox_.push_back({nullptr, change, 0, {}});
    inbox_has_mail_.store(true, std::memory_order_release);
  }
  arrived_.notify_one();
  if (done.wait_for(limits_.call_deadline) == std::future_status::ready) return done.get();
  const std::lock_guard lock(mutex_);
  if (done.wait_for(std::chrono::seconds(0)) == std::future_status::ready) return done.get();
  change->given_up = true;
  return Error{Code::kTimeout, fmt::format("scheduler {} was not in place after {} ms", change->to.name,
                                           limits_.call_deadline.count()), {}};
}

request::GeneratorStats Engine::stats() const {
  const std::lock_guard lock(mutex_);
  auto out = stats_;
  out.waiting += inbox_answers_;
  out.plugin_overruns = n_overruns_;
  if (out.healthy && !overrun_.empty()) {
    out.healthy = false;
    out.trouble = overrun_;
    out.culprit = overrun_by_;
    out.retry_after_s = std::max<uint32_t>(1, static_cast<uint32_t>(limits_.call_deadline.count() / 1000));
  }
  return out;
}

bool Engine::stuck() const {
  const std::lock_guard lock(mutex_);
  return stopping_ && !finished_;
}

void Engine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    inbox_has_mail_.store(true, std::memory_order_release);
  }
  arrived_.notify_one();
  watch_wakes_.notify_one();
  if (watch_.joinable()) watch_.join();
  if (!thread_.joinable()) return;
  std::unique_lock lock(mutex_);
  if (finished_changed_.wait_for(lock, std::min(kStopPatience, 4 * limits_.call_deadline), [this] { return finished_; })) {
    lock.unlock();
    thread_.join();
    return core_.reset();  // now, and not when the last who holds the engine lets go: its plugins may be closed by then
  }
  // A native thread cannot be ended from outside. It is left where it is, with all that it may touch.
  const auto at = calls_.watch().look();
  log::error("engine", "{} has not returned; its thread and its model are left behind",
             at.serial == 0 ? std::string("the engine thread") : plugin::title_of(at.site));
  end_open({Code::kCancelled, "the model's engine is stopping", {}});
  thread_.detach();
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
      change_now(*message.change);
    } else if (!message.request) {
      core_->cancel(message.cancel_id, message.cause);
    } else if (auto r = core_->submit(message.request); !r) {
      push_end(*message.request, request::FinishReason::kError, r.error());
    }
  }
  taken_.clear();
}

void Engine::change_now(Change &change) {
  {
    const std::lock_guard lock(mutex_);
    if (change.given_up) return;
  }
  auto changed = core_->change_scheduler(change.to);
  const std::lock_guard lock(mutex_);
  if (change.given_up && changed)
    log::warn("engine", "scheduler {} is in place after all, though its change was given up", change.to.name);
  change.done.set_value(std::move(changed));
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
  plugin::CallWatch::use(&calls_.watch());
  for (;;) {
    take_inbox();
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    const auto outcome = core_->step(kWaitNs);
    if (outcome != StepOutcome::kInFlight) {
      step_since_ns_.store(0, std::memory_order_relaxed);
    } else if (step_since_ns_.load(std::memory_order_relaxed) == 0) {
      step_since_ns_.store(steady_ns(), std::memory_order_relaxed);
    }
    if (abandon_.exchange(false, std::memory_order_acquire) && outcome == StepOutcome::kInFlight) {
      core_->abandon({Code::kTimeout, "the backend did not finish its step in time", {}});
      step_since_ns_.store(0, std::memory_order_relaxed);
      publish();
      break;  // the backend may yet write into what it was given; whoever opens the model anew closes this core first
    }
    publish();
    if (outcome == StepOutcome::kIdle) sleep(core_->wake_at_ns());
  }
  finish_work();
  const std::lock_guard lock(mutex_);
  finished_ = true;
  finished_changed_.notify_all();
}

void Engine::finish_work() {
  // The step under way is let finish, so that the backend writes into nothing that is gone.
  if (core_->stats().healthy) core_->cancel_all(CancelCause::kDrain);  // else the next step ends them with the error
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

// ---- the watch --------------------------------------------------------------------------------------------------

void Engine::watch() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    watch_wakes_.wait_for(lock, calls_.period());
    if (!stopping_) look();
  }
}

void Engine::look() {
  const auto deadline = limits_.call_deadline;
  auto late = calls_.look();
  const bool in_call = late.has_value();
  // A step that hangs shows as many short waits, a call that hangs as one.
  if (const uint64_t since_ns = step_since_ns_.load(std::memory_order_relaxed); !late && since_ns != 0) {
    const auto so_far = std::chrono::milliseconds((steady_ns() - since_ns) / 1'000'000);
    const std::string who = "backend " + parts_.backend_name;
    if (so_far >= deadline) late = LateCall::Late{who + ": a step", who, so_far};
  }
  if (!late) {
    if (!overrun_.empty()) log::warn("engine", "{}: it has returned, and the model goes on", overrun_);
    overrun_.clear();
    gave_up_ = false;
    return;
  }
  if (overrun_.empty()) {
    overrun_ = fmt::format("{} takes longer than {} ms", late->what, deadline.count());
    overrun_by_ = late->who;
    ++n_overruns_;
    log::error("engine", "{} (so far {} ms); the model is not ready until it returns", overrun_, late->so_far.count());
  }
  if (gave_up_ || late->so_far < 2 * deadline) return;
  gave_up_ = true;
  log::error("engine", "{} has not returned after {} ms; what runs is ended", late->what, late->so_far.count());
  if (!in_call) return abandon_.store(true, std::memory_order_release);
  end_open({Code::kTimeout, "a plugin of the model does not answer", {}});
}

/// Ends all that is open without the engine thread, which may end it once more: a channel hears only the first. Nor do
/// changes wait for it any longer.
void Engine::end_open(const Error &error) {
  const auto reason = error.code == Code::kCancelled ? request::FinishReason::kCancelled : request::FinishReason::kError;
  for (const auto &[id, weak] : open_) {
    const auto request = weak.lock();
    if (request == nullptr) continue;
    push_end(*request, reason, error);
    request->events->seal();
    inbox_.push_back({nullptr, nullptr, id, CancelCause::kDeadline});
  }
  open_.clear();
  for (const auto &message : inbox_)
    if (message.change) message.change->done.set_value(error);
  std::erase_if(inbox_, [](const Message &message) { return message.change != nullptr; });
  inbox_has_mail_.store(true, std::memory_order_release);
}

}  // namespace sluice::engine

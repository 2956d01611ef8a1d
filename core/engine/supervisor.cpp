#include "core/engine/supervisor.hpp"

#include <pthread.h>

#include <algorithm>

#include "core/base/log.hpp"

namespace sluice::engine {

using request::GeneratorStats;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds kLookEvery{100};
constexpr int kLooksPerHealth = 5;

/// Sums the counters; what is said of the moment is `now`'s.
GeneratorStats sum(const GeneratorStats &past, GeneratorStats now) {
  now.steps += past.steps;
  now.steps_planned_ahead += past.steps_planned_ahead;
  now.prompt_tokens += past.prompt_tokens;
  now.cached_tokens += past.cached_tokens;
  now.output_tokens += past.output_tokens;
  now.preemptions += past.preemptions;
  now.draft_rounds += past.draft_rounds;
  now.draft_tokens += past.draft_tokens;
  now.draft_accepted_tokens += past.draft_accepted_tokens;
  now.draft_steps += past.draft_steps;
  now.plain_steps += past.plain_steps;
  now.plain_ns += past.plain_ns;
  now.draft_verify_ns += past.draft_verify_ns;
  now.draft_plain_ns += past.draft_plain_ns;
  now.drafting_ns += past.drafting_ns;
  now.drafts_off_for_acceptance += past.drafts_off_for_acceptance;
  now.drafts_off_for_cost += past.drafts_off_for_cost;
  now.drafts_off_for_sequence += past.drafts_off_for_sequence;
  now.swaps_out += past.swaps_out;
  now.swaps_in += past.swaps_in;
  now.swapped_out_bytes += past.swapped_out_bytes;
  now.swapped_in_bytes += past.swapped_in_bytes;
  now.looked_up_tokens += past.looked_up_tokens;
  now.computed_tokens += past.computed_tokens;
  now.recomputed_tokens += past.recomputed_tokens;
  now.plan_fallbacks += past.plan_fallbacks;
  now.plugin_errors += past.plugin_errors;
  now.plugin_overruns += past.plugin_overruns;
  now.reopens += past.reopens;
  return now;
}

}  // namespace

Supervisor::Supervisor(std::string model, std::shared_ptr<request::Generator> first, Reopen reopen, ReopenPolicy policy,
                       Health health)
    : model_(std::move(model)),
      reopen_(std::move(reopen)),
      policy_(policy),
      health_(std::move(health)),
      jitter_(std::random_device{}()),
      current_(std::move(first)),
      limits_(current_->limits()),
      opened_at_(steady_clock::now()) {
  thread_ = std::thread([this] { watch(); });
  pthread_setname_np(thread_.native_handle(), "sluice-superv");
}

Supervisor::~Supervisor() { stop(); }

std::shared_ptr<request::Generator> Supervisor::current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

request::GeneratorLimits Supervisor::limits() const {
  const std::lock_guard lock(mutex_);
  return limits_;
}

Result<> Supervisor::submit(std::shared_ptr<const request::Request> request) {
  if (const auto generator = current()) return generator->submit(std::move(request));
  return Error{Code::kUnavailable, "the model is down after a fault in one of its plugins", {}};
}

void Supervisor::cancel(uint64_t request_id, request::CancelCause cause) {
  if (const auto generator = current()) generator->cancel(request_id, cause);
}

GeneratorStats Supervisor::stats() const {
  std::shared_ptr<request::Generator> generator;
  {
    const std::lock_guard lock(mutex_);
    if (current_ == nullptr) {
      auto out = past_;
      if (gave_up_) return out;
      const auto left = std::chrono::duration_cast<std::chrono::seconds>(next_attempt_at_ - steady_clock::now());
      out.retry_after_s = static_cast<uint32_t>(std::max<int64_t>(1, left.count() + 1));
      return out;
    }
    generator = current_;
  }
  auto now = generator->stats();
  if (now.damaged && !now.retry_after_s) now.retry_after_s = 1;  // it is about to be replaced
  const std::lock_guard lock(mutex_);
  return sum(past_, std::move(now));
}

bool Supervisor::stuck() const {
  const std::lock_guard lock(mutex_);
  return stuck_;
}

void Supervisor::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  const auto generator = current();
  if (generator == nullptr) return;
  generator->stop();
  const std::lock_guard lock(mutex_);
  stuck_ = stuck_ || generator->stuck();
}

void Supervisor::watch() {
  std::unique_lock lock(mutex_);
  for (int look = 1; !stopping_ && !gave_up_; ++look) {
    changed_.wait_for(lock, kLookEvery);
    if (stopping_) return;
    const auto generator = current_;
    lock.unlock();
    const bool damaged = generator->stats().damaged;
    Result<> health;
    if (!damaged && health_ && look % kLooksPerHealth == 0) health = health_();
    const Error error = health ? Error{} : health.error();
    const bool dead = !health && error.code == Code::kDeviceLost;
    lock.lock();
    if ((damaged || dead) && !stopping_) replace(lock, dead ? &error : nullptr);
  }
}

void Supervisor::replace(std::unique_lock<std::mutex> &lock, const Error *dead) {
  auto generator = std::exchange(current_, nullptr);
  if (steady_clock::now() - opened_at_ > policy_.forgiven_after) attempts_ = 0;
  next_attempt_at_ = steady_clock::now() + policy_.first_delay;
  auto last = generator->stats();
  if (dead != nullptr) last.trouble = dead->message;
  past_ = sum(past_, last);
  log::error("model", "{} is down: {}", model_, last.trouble);
  lock.unlock();
  generator->stop();
  const bool stuck = generator->stuck();
  generator.reset();
  lock.lock();
  past_.running = past_.waiting = past_.swapped = 0;
  past_.kv_blocks_used = past_.host_blocks_used = 0;
  past_.healthy = false, past_.damaged = true;
  if (stuck) {
    stuck_ = true;
    return give_up("a thread of it is still inside of a plugin");
  }
  while (!stopping_) {
    if (attempts_ == policy_.max_attempts) return give_up("it has been opened anew as often as max_reopens allows");
    const auto pause = delay(attempts_++);
    next_attempt_at_ = steady_clock::now() + pause;
    log::warn("model", "{} is opened anew in {} ms (attempt {} of {})", model_, pause.count(), attempts_,
              policy_.max_attempts);
    if (changed_.wait_for(lock, pause, [this] { return stopping_; })) return;
    lock.unlock();
    auto made = reopen_(last, [this] {
      const std::lock_guard guard(mutex_);
      return stopping_;
    });
    lock.lock();
    if (made) {
      current_ = std::move(*made);
      limits_ = current_->limits();
      past_.healthy = true, past_.damaged = false;
      ++past_.reopens;
      opened_at_ = steady_clock::now();
      return log::warn("model", "{} is up again", model_);
    }
    past_.trouble = last.trouble = made.error().message;
    last.culprit.clear();
    log::error("model", "{} could not be opened: {}", model_, made.error().message);
  }
}

void Supervisor::give_up(const std::string &why) {
  gave_up_ = true;
  log::error("model", "{} stays down: {}; restart the server when the cause is gone", model_, why);
}

milliseconds Supervisor::delay(uint32_t attempt) {
  const auto plain = std::min(policy_.longest_delay, policy_.first_delay * (int64_t{1} << std::min(attempt, 30U)));
  const double factor = std::uniform_real_distribution<double>(0.8, 1.2)(jitter_);
  return milliseconds(static_cast<int64_t>(static_cast<double>(plain.count()) * factor));
}

}  // namespace sluice::engine

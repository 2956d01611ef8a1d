#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/base/error.hpp"

namespace sluice::request {

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kError };

/// Why a sequence of a model that drafts had no drafts when it last could have had some.
enum class DraftsOff : uint8_t {
  kNone,         ///< it had
  kNotMeasured,  ///< what a step costs without drafts is not known yet
  kAcceptance,   ///< switched off for batches of its size: hardly any are right
  kCost,         ///< likewise: they cost more than they bring
  kSequence,     ///< the others' pay, its own do not
  kDamaged,      ///< the decoder or its model is
};

struct TokenLogprob {
  int32_t token;
  float logprob;  ///< natural log
};

/// One output token of one answer, or its end.
/// Always: per answer any number of tokens, then exactly one event with finish != kNone, then nothing.
struct Event {
  uint32_t answer = 0;
  int32_t token = -1;                      ///< -1: none, the event only finishes
  FinishReason finish = FinishReason::kNone;  ///< may come with the last token
  float logprob = 0;                       ///< of `token`, when the request asked for it
  std::shared_ptr<const std::vector<TokenLogprob>> top;  ///< best first; null when not asked for
  std::shared_ptr<const std::string> text;  ///< only from an engine plugin that speaks text: new whole characters
  std::shared_ptr<const Error> error;       ///< with kError
  uint32_t cached_tokens = 0;               ///< with a finish: prompt tokens that came from the prefix cache
  uint64_t queued_ns = 0;                   ///< with a finish: from its arrival to its first step; 0 = it had none
  uint32_t draft_tokens = 0, draft_accepted_tokens = 0;  ///< with a finish: of its drafts, verified and right
  uint32_t draft_rounds = 0;                ///< with a finish: its steps that verified drafts ...
  uint64_t draft_verify_ns = 0;             ///< ... and the device time of those steps, whoever else was in them
  DraftsOff drafts_off = DraftsOff::kNone;  ///< with a finish
};

/// Carries one request's events from its engine thread to its own strand.
///
/// Bounded: at `capacity` events full() turns true and the engine leaves the sequence out of its steps until the
/// consumer has drained; a finish always fits, nothing is ever dropped. Cancellable: close() by the consumer is seen by
/// the engine before its next step.
class EventChannel {
 public:
  /// wake  called on the engine thread when the first event after a drain arrives; must only post. May be empty.
  explicit EventChannel(std::function<void()> wake, size_t capacity = 8192)
      : wake_(std::move(wake)), capacity_(capacity) {}
  EventChannel(const EventChannel &) = delete;
  EventChannel &operator=(const EventChannel &) = delete;

  /// [engine] Appends; ignored after close().
  void push(Event event) { push_many(&event, 1); }
  void push_many(Event *events, size_t n) {
    if (n == 0 || closed()) return;
    bool first = false;
    {
      const std::lock_guard lock(mutex_);
      if (sealed_) return;
      first = events_.empty();
      for (size_t i = 0; i < n; ++i) events_.push_back(std::move(events[i]));
      size_.store(events_.size(), std::memory_order_relaxed);
    }
    if (first && wake_) wake_();
  }

  /// [any] Takes nothing more: what somebody else has ended is not ended again by an engine thread that comes back late.
  void seal() {
    const std::lock_guard lock(mutex_);
    sealed_ = true;
  }

  /// [io] Moves everything that has arrived into `out`, which is cleared first.
  void drain(std::vector<Event> &out) {
    out.clear();
    const std::lock_guard lock(mutex_);
    out.swap(events_);
    size_.store(0, std::memory_order_relaxed);
  }

  /// [any] The consumer wants no more: the engine cancels what is left of the request.
  void close() { closed_.store(true, std::memory_order_release); }
  bool closed() const { return closed_.load(std::memory_order_acquire); }  ///< [any]
  bool full() const { return size_.load(std::memory_order_relaxed) >= capacity_; }  ///< [any]

 private:
  const std::function<void()> wake_;
  const size_t capacity_;
  std::atomic<bool> closed_{false};
  std::atomic<size_t> size_{0};
  std::mutex mutex_;
  std::vector<Event> events_;
  bool sealed_ = false;
};

}  // namespace sluice::request

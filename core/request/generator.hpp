#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/base/error.hpp"
#include "core/request/request.hpp"

namespace sluice::request {

/// Why a request ended before its time; a metric label.
enum class CancelCause : uint8_t { kDisconnect, kClient, kStopString, kSlowConsumer, kDeadline, kDrain };

struct GeneratorLimits {
  uint32_t max_context = 0;     ///< prompt + output tokens at most; 0 = unknown, the generator refuses by itself
  uint64_t max_kv_tokens = 0;   ///< tokens whose KV fits at all; 0 = unknown
  uint32_t vocab_size = 0;      ///< 0 = takes text
  uint32_t max_top_logprobs = 0;
  uint32_t max_branches = 1;    ///< of one request; above 1 where the decoder branches
};

/// A point-in-time reading, for /metrics and /health/ready. Counters never fall.
struct GeneratorStats {
  uint32_t running = 0, waiting = 0, swapped = 0;
  uint64_t kv_blocks_total = 0, kv_blocks_used = 0, host_blocks_total = 0, host_blocks_used = 0;
  uint64_t steps = 0, prompt_tokens = 0, output_tokens = 0, plan_fallbacks = 0, plugin_errors = 0;
  uint64_t draft_rounds = 0;  ///< times that a sequence had drafts verified
  uint64_t draft_tokens = 0, draft_accepted_tokens = 0;
  uint64_t steps_planned_ahead = 0;      ///< of the steps, planned while the one before ran
  uint64_t preemptions = 0;              ///< KV dropped, to be computed again
  uint64_t swaps_out = 0, swaps_in = 0;  ///< sequences
  uint64_t swapped_out_bytes = 0, swapped_in_bytes = 0;
  uint64_t looked_up_tokens = 0;   ///< tokens of sequences that were admitted, each time they were
  uint64_t cached_tokens = 0;      ///< of those, found in the prefix cache
  uint64_t computed_tokens = 0;    ///< tokens that steps fed, drafts included
  uint64_t recomputed_tokens = 0;  ///< of those, fed before and lost by a preemption
  uint64_t reopens = 0;
  uint64_t plugin_overruns = 0;  ///< calls and steps that missed their deadline
  uint64_t draft_steps = 0;     ///< steps that only decoded, some of it drafts. Of these:
  uint64_t plain_steps = 0, plain_ns = 0;  ///< of a model that drafts: steps that only decoded without, device time
  uint64_t draft_verify_ns = 0, draft_plain_ns = 0, drafting_ns = 0;  ///< device time, without drafts, to make drafts
  uint64_t drafts_off_for_acceptance = 0, drafts_off_for_cost = 0;    ///< times that drafting was switched off
  uint64_t drafts_off_for_sequence = 0;  ///< and for one sequence only
  bool drafts_off = false;      ///< because it does not pay, or because the decoder is damaged
  bool healthy = true;      ///< false: the model must not be ready; `trouble` says why
  bool damaged = false;     ///< unhealthy for good, until it is opened anew
  std::string trouble;      ///< for the log: it may name paths
  std::string culprit;      ///< the plugin that is to blame: "backend cpu"; empty = not known
  std::optional<uint32_t> retry_after_s;  ///< unhealthy: when to ask again; nothing = an operator must act
};

/// What turns tokens into tokens: an engine over step plugins, or a whole foreign engine.
class Generator {
 public:
  virtual ~Generator() = default;
  virtual GeneratorLimits limits() const = 0;  ///< [any] constant

  /// [any] Takes the request at once or refuses it; after success its channel gets every answer's finish.
  /// errors: ResourceExhausted (queue full: 429, or it can never fit: param "prompt"), Unavailable (stopping: 503),
  ///         InvalidArgument
  virtual Result<> submit(std::shared_ptr<const Request> request) = 0;

  /// [any] Idempotent; unknown ids are ignored. The channel still gets a kCancelled finish per open answer.
  virtual void cancel(uint64_t request_id, CancelCause cause) = 0;

  virtual GeneratorStats stats() const = 0;  ///< [any]

  /// [any] Cancels what is left and joins the threads. Idempotent.
  virtual void stop() = 0;

  /// [any] After stop(): a thread is still inside of a plugin that does not return. Nothing that the thread may touch
  /// must be freed, the generator included.
  virtual bool stuck() const { return false; }
};

}  // namespace sluice::request

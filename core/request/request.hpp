#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/request/event_channel.hpp"

namespace sluice::plugin {
class Options;
}

namespace sluice::request {

/// One validated request as a generator takes it: tokens in, events out. Immutable once submitted.
/// Always: !prompt.empty(), n_answers >= 1, max_new >= 1.
struct Request {
  uint64_t id = 0;                   ///< dense, assigned by the service, never reused
  std::vector<int32_t> prompt;       ///< ids in [0, vocab_size)
  uint32_t n_answers = 1;            ///< independent answers; answer i draws with seed + i
  uint32_t max_new = 1;              ///< output tokens per answer at most
  uint32_t n_branches = 0;           ///< above 0: the model's decoder ranks at most so many at once, n_answers of them
                                     ///< are the answers, and every event comes with the last
  uint64_t seed = 0;                 ///< always set; the service draws one for a request that has none
  std::vector<int32_t> stop_tokens;  ///< end-of-sequence ids; empty with ignore_eos
  bool want_logprobs = false;        ///< log-probability of each chosen token, of the model's raw logits
  uint32_t n_top_logprobs = 0;       ///< and of this many best ones
  /// Sampled drafts are judged by rejection sampling: the distribution of plain decoding, but not its tokens. For
  /// requests without a seed of their own.
  bool exact_rejection = false;
  uint64_t arrival_ns = 0;           ///< host clock
  uint64_t deadline_ns = 0;          ///< host clock; 0 = none. The engine cancels then.
  int32_t priority = 0;              ///< smaller goes first
  uint32_t client = 0;               ///< dense id of the API key

  /// This request's options, per plugin of the model, as validated on the request thread.
  /// samplers  one per sampler of the chain, in its order; an entry may be null = the plugin's defaults
  std::vector<std::shared_ptr<const plugin::Options>> sampler_options;
  std::shared_ptr<const plugin::Options> decoder_options;  ///< may be null

  std::shared_ptr<EventChannel> events;
};

}  // namespace sluice::request

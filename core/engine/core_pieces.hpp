#pragma once
#include <sluice/abi/kinds/backend.h>
#include <sluice/abi/kinds/decoder.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "core/request/event_channel.hpp"

// What the source files of EngineCore share.

namespace sluice::engine {

/// How soon something is looked at again that does not ring.
constexpr uint64_t kPollNs = 2'000'000;

/// How long before the expected end of a step the next one is planned: late, so that it knows who has come meanwhile.
constexpr uint64_t kPlanLeadNs = 500'000;

/// Look-ups in the prefix cache that a policy may ask for in one plan.
constexpr uint32_t kProbesPerStep = 64;

inline uint32_t blocks_for(uint64_t tokens, uint32_t block_size) {
  return static_cast<uint32_t>((tokens + block_size - 1) / block_size);
}

/// Whether a number may be a log-probability. Rounding lets that of a certain token come out a little above 0.
inline bool is_logprob(float value) { return value <= 1e-3F; }

/// Whether the row may be logits: minus infinity says "never this one", but NaN and plus infinity say nothing.
inline bool is_row(const float *logits, uint32_t n) {
  bool good = true;
  for (uint32_t v = 0; v < n; ++v) good &= logits[v] <= std::numeric_limits<float>::max();
  return good;
}

/// A plugin that fails at every step must not fill the disk; the metric counts them all.
inline bool worth_a_line(uint64_t nth) { return nth < 8 || nth % 1024 == 0; }

inline request::Event error_event(uint32_t answer, Error error) {
  request::Event event;
  event.answer = answer;
  event.finish = request::FinishReason::kError;
  event.error = std::make_shared<const Error>(std::move(error));
  return event;
}

/// What a decoder needs that this target lacks, named.
Result<> check_draft_needs(const std::string &decoder, const sluice_decoder_needs &needs, const sluice_model_info &info);

}  // namespace sluice::engine

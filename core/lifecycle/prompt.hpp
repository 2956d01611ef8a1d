#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "core/lifecycle/generation.hpp"

namespace sluice::lifecycle {

/// Rough size, to decide which thread does the work.
size_t prompt_bytes(const Prompt &prompt);

/// Template and tokenizer. [any] errors: kBadRequest, with "messages" or "prompt" as param
boost::system::result<std::vector<int32_t>, Failure> prompt_tokens(const ServedModel &model, const Prompt &prompt);

/// How many tokens an answer to a prompt of n_prompt tokens may have.
/// wanted     the request's own limit; exceeding the context is then an error, never a silent cut
/// otherwise  without one: at most this; 0 = all that is left
/// unbounded  taken when nothing else bounds the answer
/// errors     kContextLength, with both numbers
boost::system::result<uint32_t, Failure> allowed_new_tokens(const request::GeneratorLimits &limits, size_t n_prompt,
                                                            std::optional<uint32_t> wanted, uint32_t otherwise,
                                                            uint32_t unbounded);

}  // namespace sluice::lifecycle

#pragma once
#include <cstdint>
#include <vector>

#include "core/request/event_channel.hpp"

namespace sluice::engine {

/// What came of one row.
struct TokenChoice {
  int32_t token = -1;  ///< -1: no token was left to choose from
  float logprob = 0;   ///< of the model's raw logits, when asked for
  std::vector<request::TokenLogprob> top;

  void clear() {
    token = -1;
    logprob = 0;
    top.clear();
  }
};

}  // namespace sluice::engine

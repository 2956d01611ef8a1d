#pragma once
#include <algorithm>
#include <cstdint>

namespace sluice::engine {

/// What a step is likely to take, from the steps that were: max(base, per_token * tokens).
///
/// base       device time of a step that only decodes: the weights move once, whoever is in it
/// per_token  device time per token of steps that are mostly prefill
/// Both are exponential averages over about 16 steps.
class StepCost {
 public:
  void observe(uint32_t prefill_tokens, uint32_t decode_tokens, uint64_t device_ns) {
    const auto ns = static_cast<double>(device_ns);
    if (prefill_tokens == 0) {
      mix(base_ns_, ns);
    } else if (prefill_tokens >= 4 * decode_tokens) {
      mix(per_token_ns_, ns / (prefill_tokens + decode_tokens));
    }
  }
  uint64_t predict_ns(uint32_t prefill_tokens, uint32_t decode_tokens) const {
    return static_cast<uint64_t>(std::max(base_ns_, per_token_ns_ * (prefill_tokens + decode_tokens)));
  }

 private:
  static void mix(double &average, double value) { average = average == 0 ? value : average + (value - average) / 16; }
  double base_ns_ = 0, per_token_ns_ = 0;
};

}  // namespace sluice::engine

#pragma once
#include <algorithm>
#include <cstdint>

namespace sluice::engine {

/// What a step is likely to take, from the steps that were: max(base, per_token * tokens) + per_context * context.
///
/// base         device time of a step that only decodes, over an empty cache: the weights move once, whoever is in it
/// per_context  device time per cached token that the step's sequences look at
/// per_token    device time per token of steps that are mostly prefill
/// base and per_context are the line through the decoding steps, weighted towards the last 64 or so; per_token is an
/// average over about 16 steps.
class StepCost {
 public:
  void observe(uint32_t prefill_tokens, uint32_t decode_tokens, uint64_t context_tokens, uint64_t device_ns) {
    const auto ns = static_cast<double>(device_ns), context = static_cast<double>(context_tokens);
    if (prefill_tokens == 0) {
      fit_decode(context, ns);
    } else if (prefill_tokens >= 4 * decode_tokens) {
      const double seen = std::max(0.0, ns - per_context_ns_ * context) / (prefill_tokens + decode_tokens);
      per_token_ns_ = per_token_ns_ == 0 ? seen : per_token_ns_ + (seen - per_token_ns_) / 16;
    }
  }
  uint64_t predict_ns(uint32_t prefill_tokens, uint32_t decode_tokens, uint64_t context_tokens) const {
    const double tokens = static_cast<double>(prefill_tokens) + decode_tokens;
    return static_cast<uint64_t>(std::max(base_ns_, per_token_ns_ * tokens) +
                                 per_context_ns_ * static_cast<double>(context_tokens));
  }
  /// Of feeding tokens begin..end-1 of one sequence, `chunk` at a time, beside decodes that run anyway.
  uint64_t prefill_ns(uint32_t begin, uint32_t end, uint32_t chunk) const {
    if (begin >= end) return 0;
    if (per_token_ns_ == 0) return predict_ns(end - begin, 0, begin);
    const double n = end - begin, steps = std::max(1.0, n / std::max(1U, chunk));
    return static_cast<uint64_t>(per_token_ns_ * n + per_context_ns_ * steps * (begin + n / 2));
  }

 private:
  void fit_decode(double context, double ns) {
    constexpr double kNewest = 1.0 / 64;
    const double share = n_decode_++ < 64 ? 1.0 / static_cast<double>(n_decode_) : kNewest;
    const double dx = context - mean_context_, dt = ns - mean_ns_;
    mean_context_ += share * dx;
    mean_ns_ += share * dt;
    variance_ += share * ((1 - share) * dx * dx - variance_);
    covariance_ += share * ((1 - share) * dx * dt - covariance_);
    // Contexts that hardly differ say nothing about their price.
    if (variance_ > 1e-4 * mean_context_ * mean_context_ && variance_ > 1)
      per_context_ns_ = std::clamp(covariance_ / variance_, 0.0, mean_ns_ / std::max(1.0, mean_context_));
    base_ns_ = std::max(0.0, mean_ns_ - per_context_ns_ * mean_context_);
  }

  uint64_t n_decode_ = 0;
  double mean_context_ = 0, mean_ns_ = 0, variance_ = 0, covariance_ = 0;
  double base_ns_ = 0, per_token_ns_ = 0, per_context_ns_ = 0;
};

}  // namespace sluice::engine

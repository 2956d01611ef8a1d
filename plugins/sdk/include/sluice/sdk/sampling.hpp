// sluice/sdk/sampling.hpp - what a sluice_sample_spec means, executed on the host. Backends, samplers and the core all
// use this one; a device kernel is compared with it.
#pragma once
#include <sluice/abi/sampling.h>
#include <sluice/sdk/draw.hpp>
#include <sluice/sdk/error.hpp>
#include <sluice/sdk/row_math.hpp>
#include <sluice/sdk/token_history.hpp>

namespace sluice::sdk {
inline namespace v0 {

/// What a row needs beside its spec; null or 0 where a stage has nothing to do.
struct RowInputs {
  const uint32_t *mask = nullptr;  ///< [ceil(vocab / 32)], bit = allowed
  const int32_t *bias_token = nullptr;
  const float *bias_value = nullptr;
  uint32_t n_bias = 0;
  const TokenCount *counts = nullptr;  ///< distinct tokens, already cut to penalty_last_n (TokenHistory::counts)
  size_t n_counts = 0;
};

/// log(sum(exp)) of a list; -inf when it is empty.
inline float log_sum_exp(const std::vector<Ranked> &entries) {
  float max = kRemoved;
  for (const Ranked &e : entries) max = e.logit > max ? e.logit : max;
  double total = 0;
  for (const Ranked &e : entries) total += static_cast<double>(exp_nonpositive(e.logit - max));
  return max == kRemoved ? kRemoved : max + static_cast<float>(std::log(total));
}

/// Why a spec cannot be executed, or nullptr. What it says is within reach of a client, so it is not an assert.
inline const char *spec_problem(const sluice_sample_spec &s) {
  if (s.n_stages > SLUICE_MAX_STAGES) return "n_stages is above 16";
  for (uint32_t i = 0; i < s.n_stages; ++i) {
    switch (s.stage[i]) {
      case SLUICE_STAGE_REPETITION:
        if (!(s.repetition > 0) || std::isinf(s.repetition)) return "repetition must be above 0";
        break;
      case SLUICE_STAGE_FREQUENCY:
        if (!std::isfinite(s.frequency)) return "frequency is not a number";
        break;
      case SLUICE_STAGE_PRESENCE:
        if (!std::isfinite(s.presence)) return "presence is not a number";
        break;
      case SLUICE_STAGE_TEMPERATURE:
        if (!(s.temperature >= 0) || std::isinf(s.temperature)) return "temperature must be 0 or more";
        break;
      case SLUICE_STAGE_TOP_P:
        if (std::isnan(s.top_p)) return "top_p is not a number";
        break;
      case SLUICE_STAGE_MIN_P:
        if (!(s.min_p <= 1)) return "min_p must be at most 1";
        break;
      case SLUICE_STAGE_MASK:
      case SLUICE_STAGE_BIAS:
      case SLUICE_STAGE_TOP_K: break;
      default: return "a stage is not known here";
    }
  }
  return s.logprobs_kind <= SLUICE_LOGITS_PROCESSED ? nullptr : "logprobs_kind is not known here";
}

/// Works on one row at a time and keeps its memory from row to row, so nothing is allocated once it has seen the
/// largest row. One per thread.
///
///   sampler.run(row, vocab, spec, inputs);
///   int32_t token = sampler.draw(seed, position);
///   float logprob = sampler.value(token);
class RowSampler {
 public:
  /// Executes the stages. row [vocab] f32, finite or -inf; its values are edited in place and it must stay until the
  /// last call about it. Removed entries keep stale values until write_back().
  /// errors  throws INVALID_ARGUMENT with the words of spec_problem().
  void run(float *row, uint32_t vocab, const sluice_sample_spec &spec, const RowInputs &in = {});

  /// Executes the stages over candidates, in any order, ids below 0 ignored: everything that is left of a row. Where
  /// more than these are left, only stages that remove from the tail are right.
  /// row_lse  log(sum(exp)) of the whole row they come from, for RAW logprobs; NaN = there is nothing but these
  void run_candidates(const int32_t *ids, const float *logits, uint32_t n, float row_lse,
                      const sluice_sample_spec &spec, const RowInputs &in = {});

  /// THE DRAW among what is left; -1 when nothing is.
  int32_t draw(uint64_t seed, uint32_t position) const {
    if (!sparse_) return draw_row(row_, vocab_, seed, position);
    return kept_.size() == 1 ? kept_[0].id : draw_list(kept_.data(), kept_.size(), seed, position);
  }
  /// Best entry left, -1 when nothing is.
  int32_t argmax() const;
  /// log(sum(exp)) of what is left.
  float lse();
  /// A token's number in the spec's logprobs_kind; -inf where removed. RAW numbers exist only if the spec asked for
  /// logprobs (SPF_LOGPROB or n_logprobs).
  float value(int32_t token);
  /// The n best, best first, with numbers in the spec's logprobs_kind; -1 and -inf behind the last one.
  void top(uint32_t n, int32_t *ids, float *values);
  /// The n best of what is left with their processed logits; -1 and -inf behind the last one. Returns how many.
  uint32_t candidates(uint32_t n, int32_t *ids, float *logits);
  /// Writes -inf to the row wherever something was removed.
  void write_back();
  /// Entries left, in no order, when a stage removed some; empty with `dense()`.
  const std::vector<Ranked> &kept() const { return kept_; }
  bool dense() const { return !sparse_; }

 private:
  void stages(const sluice_sample_spec &spec, const RowInputs &in);
  template <class F> void edit(int32_t token, F &&f);
  void mask(const uint32_t *words);
  void temperature(float t);
  void top_k(int32_t k, bool ties);
  void top_p(float p);
  void min_p(float p);
  float max_logit() const;
  bool raw_kind() const { return kind_ == SLUICE_LOGPROBS_RAW || kind_ == SLUICE_LOGITS_RAW; }
  void best_of(uint32_t n, bool raw);
  float shift();  // what to take from a logit to get the number asked for

  float *row_ = nullptr;
  uint32_t vocab_ = 0;
  uint32_t kind_ = 0;
  bool sparse_ = false;           // kept_ holds what is left; else all of row_
  bool lse_known_ = false, raw_lse_known_ = false;
  float lse_ = 0, raw_lse_ = 0;
  std::vector<Ranked> kept_, best_, raw_kept_;
  std::vector<float> raw_;        // the model's logits, kept only where the spec wants numbers of them
};

}  // namespace v0
}  // namespace sluice::sdk

#include <sluice/sdk/detail/row_sampler.ipp>

#include "rows.hpp"

#include <algorithm>
#include <limits>

namespace sluice::mock {

void RowResults::give(sluice_step_result &out) const {
  out.n_rows = n_rows, out.n_top = n_top;
  out.token = token.data(), out.logprob = logprob.data();
  if (n_top > 0) out.top_ids = top_ids.data(), out.top_logprobs = top_logprobs.data();
  if (has_candidates)
    out.cand_ids = cand_ids.data(), out.cand_logits = cand_logits.data(), out.row_lse = row_lse.data();
  if (has_logits) out.logits_host = logits.data();
}

void RowDecider::update_history(const sluice_step &step) {
  for (uint32_t i = 0; i < step.n_history; ++i) {
    sdk::TokenHistory &history = histories_[step.history_slot[i]];
    const int32_t *tokens = step.history_token + step.history_indptr[i];
    const size_t n = step.history_indptr[i + 1] - step.history_indptr[i];
    switch (step.history_kind[i]) {
      case SLUICE_HISTORY_RESET:
        history.reset(), history.append_prompt(tokens, n);
        break;
      case SLUICE_HISTORY_PROMPT:
        history.append_prompt(tokens, n);
        break;
      case SLUICE_HISTORY_OUTPUT:
        history.append_output(tokens, n);
        break;
      default:
        history = sdk::TokenHistory(histories_[static_cast<uint32_t>(tokens[0])]);
    }
  }
}

void RowDecider::begin(const sluice_step &step, RowResults &results) const {
  const size_t n = step.n_rows;
  constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();
  results.n_rows = step.n_rows, results.n_top = 0;
  results.has_candidates = results.has_logits = false;
  results.token.assign(n, -1), results.logprob.assign(n, kUnknown);
  for (uint32_t r = 0; r < step.n_rows; ++r) {
    results.n_top = std::max(results.n_top, spec_of(step, step.row_spec[r]).n_logprobs);
    results.has_candidates |= (step.row_want[r] & SLUICE_ROW_CANDIDATES) != 0;
    results.has_logits |= (step.row_want[r] & SLUICE_ROW_LOGITS_HOST) != 0;
  }
  results.top_ids.assign(n * results.n_top, -1), results.top_logprobs.assign(n * results.n_top, kUnknown);
  if (results.has_candidates) {
    results.cand_ids.assign(n * step.n_candidates, -1);
    results.cand_logits.assign(n * step.n_candidates, sdk::kRemoved);
    results.row_lse.assign(n, kUnknown);
  }
  if (results.has_logits) results.logits.resize(n * script_.vocab_size);
}

/// The common case without a row: the peak wins at any sure temperature, the best at temperature 0.
bool RowDecider::decide_at_once(const sluice_sample_spec &spec, uint8_t want, const Choice &choice, uint32_t r,
                                RowResults &results) const {
  if (want != SLUICE_ROW_TOKEN || spec.n_logprobs > 0) return false;
  const bool logprob = (spec.flags & SLUICE_SPF_LOGPROB) != 0;
  const bool raw = spec.logprobs_kind == SLUICE_LOGPROBS_RAW || spec.logprobs_kind == SLUICE_LOGITS_RAW;
  if (logprob && (!raw || choice.token < 0)) return false;
  float temperature = 1;
  for (uint32_t i = 0; i < spec.n_stages; ++i) {
    if (spec.stage[i] < SLUICE_STAGE_TEMPERATURE) return false;
    if (spec.stage[i] == SLUICE_STAGE_TEMPERATURE) temperature = spec.temperature;
  }
  if (choice.token < 0 ? temperature != 0 : temperature > kSureTemperature) return false;
  results.token[r] = best_of(script_, choice);
  if (logprob) results.logprob[r] = spec.logprobs_kind == SLUICE_LOGPROBS_RAW ? 0.0f : kPeakLogit;
  return true;
}

sdk::RowInputs RowDecider::inputs(const sluice_step &step, uint32_t r, const sluice_sample_spec &spec,
                                  const int32_t *tokens, uint32_t seq_begin, uint32_t first_row) {
  sdk::RowInputs in;
  if (step.row_mask != nullptr && step.row_mask[r] >= 0)
    in.mask = step.mask_words + static_cast<size_t>(step.row_mask[r]) * ((script_.vocab_size + 31) / 32);
  if (step.bias_indptr != nullptr) {
    in.bias_token = step.bias_token + step.bias_indptr[r], in.bias_value = step.bias_value + step.bias_indptr[r];
    in.n_bias = step.bias_indptr[r + 1] - step.bias_indptr[r];
  }
  if (step.row_history == nullptr || step.row_history[r] < 0) return in;
  path_.clear();  // drafts: what stands behind the sequence's first row, on the way to this one
  for (uint32_t t = step.row_token[r]; t > first_row;) {
    path_.push_back(tokens[t]);
    const int32_t parent = step.parent == nullptr ? static_cast<int32_t>(t - seq_begin) - 1 : step.parent[t];
    if (parent < 0) break;
    t = seq_begin + static_cast<uint32_t>(parent);
  }
  std::reverse(path_.begin(), path_.end());
  const sdk::TokenHistory &history = histories_[static_cast<uint32_t>(step.row_history[r])];
  const bool as_is = path_.empty() && spec.penalty_last_n == 0;
  if (!as_is) history.counts(path_.data(), path_.size(), spec.penalty_last_n, path_history_);
  const std::vector<sdk::TokenCount> &counts = as_is ? history.counts() : path_history_.counts();
  in.counts = counts.data(), in.n_counts = counts.size();
  return in;
}

void RowDecider::decide(const sluice_step &step, uint32_t r, const Choice &choice, const int32_t *tokens,
                        uint32_t seq_begin, uint32_t first_row, RowResults &results) {
  const sluice_sample_spec &spec = spec_of(step, step.row_spec[r]);
  const uint8_t want = step.row_want[r];
  if (decide_at_once(spec, want, choice, r, results)) return;
  const uint32_t vocab = script_.vocab_size;
  row_.resize(vocab);
  float *row = (want & SLUICE_ROW_LOGITS_HOST) != 0 ? results.logits.data() + size_t{r} * vocab : row_.data();
  fill_row(script_, choice, row);
  sampler_.run(row, vocab, spec, inputs(step, r, spec, tokens, seq_begin, first_row));
  if ((want & SLUICE_ROW_TOKEN) != 0) {
    results.token[r] = sampler_.draw(step.row_seed[r], step.row_position[r]);
    if ((spec.flags & SLUICE_SPF_LOGPROB) != 0) results.logprob[r] = sampler_.value(results.token[r]);
  }
  if (spec.n_logprobs > 0) {
    const size_t at = size_t{r} * results.n_top;
    sampler_.top(spec.n_logprobs, results.top_ids.data() + at, results.top_logprobs.data() + at);
  }
  if ((want & SLUICE_ROW_CANDIDATES) != 0) {
    const size_t at = size_t{r} * step.n_candidates;
    sampler_.candidates(step.n_candidates, results.cand_ids.data() + at, results.cand_logits.data() + at);
    results.row_lse[r] = sampler_.lse();
  }
  if ((want & SLUICE_ROW_LOGITS_HOST) != 0) sampler_.write_back();
}

}  // namespace sluice::mock

#include "backends/graph/row_processor.hpp"

#include <algorithm>

namespace sluice::graph {

namespace {

const sluice_sample_spec &spec_of(const sluice_step &step, uint32_t row) {
  return *reinterpret_cast<const sluice_sample_spec *>(reinterpret_cast<const char *>(step.spec) +
                                                       uint64_t{step.row_spec[row]} * step.spec_stride);
}

/// The draft tokens on the way to a row of a tree, from the first one down; empty for a causal sequence.
void draft_path(const sluice_step &s, uint32_t token, std::vector<int32_t> &path) {
  path.clear();
  if (s.tree_mask_indptr == nullptr) return;
  const auto seq = static_cast<uint32_t>(std::upper_bound(s.q_indptr, s.q_indptr + s.n_seqs, token) - s.q_indptr - 1);
  if (s.tree_mask_indptr[seq] == s.tree_mask_indptr[seq + 1]) return;
  const uint32_t first = s.q_indptr[seq];
  for (uint32_t t = token; s.parent[t] >= 0; t = first + static_cast<uint32_t>(s.parent[t]))
    path.push_back(s.tokens[t]);
  std::reverse(path.begin(), path.end());
}

}  // namespace

uint64_t RowResults::bytes(const Settings &s, const ModelShape &m) {
  const uint64_t per_row =
      4 * (uint64_t{m.vocab} + 3 + 2 * s.max_logprobs + 2 * s.max_candidates + 2 * m.n_heads * m.head_top);
  return per_row * s.limits.rows;
}

RowResults::RowResults(const Settings &s, const ModelShape &m)
    : head_entries_(m.n_heads * m.head_top),
      token_(s.limits.rows),
      top_ids_(uint64_t{s.limits.rows} * s.max_logprobs),
      cand_ids_(uint64_t{s.limits.rows} * s.max_candidates),
      head_ids_(uint64_t{s.limits.rows} * head_entries_),
      logprob_(s.limits.rows),
      top_logprobs_(top_ids_.size()),
      cand_logits_(cand_ids_.size()),
      row_lse_(s.limits.rows),
      head_logprobs_(head_ids_.size()),
      logits_(new float[uint64_t{s.limits.rows} * m.vocab]) {}

void RowResults::take_heads(const sluice_step &step, const int32_t *ids, const float *logprobs) {
  if ((wanted_ & SLUICE_ROW_HEADS) == 0) return;
  for (uint32_t r = 0; r < step.n_rows; ++r) {
    int32_t *to_ids = head_ids_.data() + uint64_t{r} * head_entries_;
    float *to_logprobs = head_logprobs_.data() + uint64_t{r} * head_entries_;
    if ((step.row_want[r] & SLUICE_ROW_HEADS) == 0) {
      std::fill_n(to_ids, head_entries_, -1);
      std::fill_n(to_logprobs, head_entries_, sdk::kRemoved);
      continue;
    }
    std::copy_n(ids, head_entries_, to_ids);
    std::copy_n(logprobs, head_entries_, to_logprobs);
    ids += head_entries_, logprobs += head_entries_;
  }
}

void RowResults::describe(sluice_step_result &out) const {
  const auto given = [this](auto &array, bool asked) { return asked && n_rows_ > 0 ? array.data() : nullptr; };
  const bool candidates = (wanted_ & SLUICE_ROW_CANDIDATES) != 0;
  out.n_rows = n_rows_;
  out.token = given(token_, (wanted_ & SLUICE_ROW_TOKEN) != 0);
  out.logprob = given(logprob_, logprobs_);
  out.top_ids = given(top_ids_, n_top_ > 0);
  out.top_logprobs = given(top_logprobs_, n_top_ > 0);
  out.cand_ids = given(cand_ids_, candidates);
  out.cand_logits = given(cand_logits_, candidates);
  out.row_lse = given(row_lse_, candidates);
  out.head_ids = given(head_ids_, (wanted_ & SLUICE_ROW_HEADS) != 0);
  out.head_logprobs = given(head_logprobs_, (wanted_ & SLUICE_ROW_HEADS) != 0);
  out.logits_host = (wanted_ & SLUICE_ROW_LOGITS_HOST) != 0 ? logits_.get() : nullptr;
  out.n_top = n_top_;
}

RowProcessor::RowProcessor(const sluice_host_api &host, const Settings &settings, uint32_t vocab)
    : host_(host), vocab_(vocab), histories_(settings.limits.seqs), workers_(host.n_workers(host.host)) {}

uint64_t RowProcessor::workspace_bytes(uint32_t vocab, uint32_t workers) {
  return uint64_t{workers} * vocab * (sizeof(float) + 2 * sizeof(sdk::Ranked));
}

void RowProcessor::extend_histories(const sluice_step &s) {
  for (uint32_t i = 0; i < s.n_history; ++i) {
    sdk::TokenHistory &h = histories_[s.history_slot[i]];
    const int32_t *tokens = s.history_token + s.history_indptr[i];
    const size_t n = s.history_indptr[i + 1] - s.history_indptr[i];
    switch (s.history_kind[i]) {
      case SLUICE_HISTORY_RESET:
        h.reset();
        [[fallthrough]];
      case SLUICE_HISTORY_PROMPT:
        h.append_prompt(tokens, n);
        break;
      case SLUICE_HISTORY_OUTPUT:
        h.append_output(tokens, n);
        break;
      case SLUICE_HISTORY_FORK:
        if (static_cast<uint32_t>(*tokens) != s.history_slot[i]) h = histories_[static_cast<uint32_t>(*tokens)];
        break;
    }
  }
}

void RowProcessor::process(const sluice_step &step, float *logits, RowResults &out) {
  out.n_rows_ = step.n_rows;
  out.n_candidates_ = step.n_candidates;
  out.n_top_ = out.wanted_ = 0;
  out.logprobs_ = false;
  for (uint32_t r = 0; r < step.n_rows; ++r) {
    out.wanted_ |= step.row_want[r];
    if ((step.row_want[r] & SLUICE_ROW_TOKEN) == 0) continue;
    const sluice_sample_spec &spec = spec_of(step, r);
    out.n_top_ = std::max(out.n_top_, spec.n_logprobs);
    out.logprobs_ |= (spec.flags & SLUICE_SPF_LOGPROB) != 0;
  }
  struct Task {
    RowProcessor &self;
    const sluice_step &step;
    float *logits;
    RowResults &out;
  } task{*this, step, logits, out};
  host_.parallel_for(
      host_.host, step.n_rows,
      [](void *ctx, uint32_t row, uint32_t worker) {
        Task &t = *static_cast<Task *>(ctx);
        t.self.process_row(t.step, row, t.logits + uint64_t{row} * t.self.vocab_, t.self.workers_[worker], t.out);
      },
      &task);
}

sdk::RowInputs RowProcessor::inputs_of(const sluice_step &s, uint32_t row, const sluice_sample_spec &spec,
                                       Worker &worker) const {
  sdk::RowInputs in;
  if (s.row_mask != nullptr && s.row_mask[row] >= 0)
    in.mask = s.mask_words + static_cast<uint64_t>(s.row_mask[row]) * ((vocab_ + 31) / 32);
  if (s.bias_indptr != nullptr) {
    in.bias_token = s.bias_token + s.bias_indptr[row];
    in.bias_value = s.bias_value + s.bias_indptr[row];
    in.n_bias = s.bias_indptr[row + 1] - s.bias_indptr[row];
  }
  if (s.row_history == nullptr || s.row_history[row] < 0) return in;
  const sdk::TokenHistory *history = &histories_[static_cast<uint32_t>(s.row_history[row])];
  draft_path(s, s.row_token[row], worker.path);
  if (!worker.path.empty() || spec.penalty_last_n != 0) {
    history->counts(worker.path.data(), worker.path.size(), spec.penalty_last_n, worker.counted);
    history = &worker.counted;
  }
  in.counts = history->counts().data();
  in.n_counts = history->counts().size();
  return in;
}

void RowProcessor::process_row(const sluice_step &step, uint32_t row, float *logits, Worker &worker,
                               RowResults &out) const {
  const uint32_t want = step.row_want[row];
  int32_t *top_ids = out.top_ids_.data() + uint64_t{row} * out.n_top_;
  float *top_values = out.top_logprobs_.data() + uint64_t{row} * out.n_top_;
  int32_t *cand_ids = out.cand_ids_.data() + uint64_t{row} * out.n_candidates_;
  float *cand_logits = out.cand_logits_.data() + uint64_t{row} * out.n_candidates_;
  out.token_[row] = -1;
  out.logprob_[row] = out.row_lse_[row] = 0;
  std::fill_n(top_ids, out.n_top_, -1);
  std::fill_n(top_values, out.n_top_, sdk::kRemoved);
  std::fill_n(cand_ids, out.n_candidates_, -1);
  std::fill_n(cand_logits, out.n_candidates_, sdk::kRemoved);
  if ((want & ~SLUICE_ROW_HEADS) == 0) return;
  const sluice_sample_spec &spec = spec_of(step, row);
  sdk::RowSampler &sampler = worker.sampler;
  sampler.run(logits, vocab_, spec, inputs_of(step, row, spec, worker));
  if ((want & SLUICE_ROW_TOKEN) != 0) {
    const int32_t token = out.token_[row] = sampler.draw(step.row_seed[row], step.row_position[row]);
    if ((spec.flags & SLUICE_SPF_LOGPROB) != 0 && token >= 0) out.logprob_[row] = sampler.value(token);
    if (spec.n_logprobs > 0) sampler.top(spec.n_logprobs, top_ids, top_values);
  }
  if ((want & SLUICE_ROW_CANDIDATES) != 0) {
    sampler.candidates(out.n_candidates_, cand_ids, cand_logits);
    out.row_lse_[row] = sampler.lse();
  }
  if ((want & SLUICE_ROW_LOGITS_HOST) != 0) {
    sampler.write_back();
    std::copy_n(logits, vocab_, out.logits_.get() + uint64_t{row} * vocab_);
  }
}

}  // namespace sluice::graph

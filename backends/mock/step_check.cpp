#include "step_check.hpp"

#include "rows.hpp"
#include "sampling_caps.hpp"

#include <sluice/sdk/error.hpp>

#include <cmath>
#include <string>

namespace sluice::mock {
namespace {

[[noreturn]] void refuse_step(const std::string &what) { throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, what); }
[[noreturn]] void refuse_step(const char *array, uint64_t index, int64_t value, const std::string &rule) {
  refuse_step(std::string(array) + "[" + std::to_string(index) + "] is " + std::to_string(value) + "; " + rule);
}
void at_most(const char *what, uint64_t value, uint64_t limit) {
  if (value > limit)
    refuse_step(std::string(what) + " is " + std::to_string(value) + "; the setup allows " + std::to_string(limit));
}
template <class... P>
void require(bool needed, const char *what, const P *...pointers) {
  if (needed && ((pointers == nullptr) || ...)) refuse_step(std::string(what) + ": a required array is NULL");
}
/// [n + 1] offsets that start at 0, never fall, and end at `end` unless that is UINT32_MAX.
void check_ranges(const char *name, const uint32_t *indptr, uint32_t n, uint32_t end = UINT32_MAX) {
  if (indptr[0] != 0) refuse_step(name, 0, indptr[0], "ranges start at 0");
  for (uint32_t i = 0; i < n; ++i)
    if (indptr[i + 1] < indptr[i]) refuse_step(name, i + 1, indptr[i + 1], "ranges never fall");
  if (end != UINT32_MAX && indptr[n] != end) refuse_step(name, n, indptr[n], "the last must be " + std::to_string(end));
}

/// A causal sequence fills position after position; the slot follows from position and block table.
void check_causal(const sluice_step &step, const StepLimits &limits, uint32_t s) {
  const uint32_t *blocks = step.block_ids + step.block_indptr[s];
  for (uint32_t t = step.q_indptr[s], position = step.kv_len[s]; t < step.q_indptr[s + 1]; ++t, ++position) {
    if (step.positions[t] != static_cast<int32_t>(position))
      refuse_step("positions", t, step.positions[t], "after the cached tokens comes " + std::to_string(position));
    const uint32_t slot = blocks[position / limits.block_size] * limits.block_size + position % limits.block_size;
    if (step.slots[t] != slot && step.slots[t] != SLUICE_NO_SLOT)
      refuse_step("slots", t, step.slots[t], "by the block table it is " + std::to_string(slot));
  }
}

/// A tree: parents first, a position per depth, masks that agree with parents, slots in its own blocks behind the
/// cache.
void check_tree(const sluice_step &step, const StepLimits &limits, uint32_t s) {
  const uint32_t begin = step.q_indptr[s], n = step.q_indptr[s + 1] - begin, words = (n + 63) / 64;
  at_most("nodes of a tree", n, uint64_t{limits.max_tree_nodes} + 1);
  const uint32_t mask_begin = step.tree_mask_indptr[s];
  if (step.tree_mask_indptr[s + 1] - mask_begin != n * words)
    refuse_step("tree_mask_indptr", s + 1, step.tree_mask_indptr[s + 1], "a tree has ceil(q_len / 64) words per token");
  for (uint32_t i = 0; i < n; ++i) {
    const int32_t parent = step.parent[begin + i];
    if (parent < -1 || parent >= static_cast<int32_t>(i)) refuse_step("parent", begin + i, parent, "parents come first");
    const int32_t position = parent < 0 ? static_cast<int32_t>(step.kv_len[s]) : step.positions[begin + parent] + 1;
    if (step.positions[begin + i] != position)
      refuse_step("positions", begin + i, step.positions[begin + i], "its depth makes it " + std::to_string(position));
    const uint64_t *mask = step.tree_mask + mask_begin + size_t{i} * words;
    for (uint32_t w = 0; w < words; ++w) {
      uint64_t sees = parent < 0 ? 0 : (mask - size_t{i} * words + static_cast<size_t>(parent) * words)[w];
      if (i / 64 == w) sees |= 1ull << (i % 64);
      if (mask[w] != sees)
        refuse_step("tree_mask", mask_begin + i * words + w, static_cast<int64_t>(mask[w]),
               "it must hold the ancestors that `parent` tells and the token itself");
    }
  }
}

void check_sequences(const sluice_step &step, const StepLimits &limits) {
  for (uint32_t s = 0; s < step.n_seqs; ++s) {
    const uint32_t q_len = step.q_indptr[s + 1] - step.q_indptr[s];
    const uint32_t n_blocks = step.block_indptr[s + 1] - step.block_indptr[s];
    if (q_len == 0) refuse_step("q_indptr", s + 1, step.q_indptr[s + 1], "every sequence of a step has a token");
    const uint64_t end = uint64_t{step.kv_len[s]} + q_len;
    at_most("kv_len + tokens of a sequence", end, uint64_t{limits.max_context} + limits.max_tree_nodes);
    if (end > uint64_t{n_blocks} * limits.block_size)
      refuse_step("sequence " + std::to_string(step.seq_ids[s]) + ": " + std::to_string(n_blocks) + " blocks of " +
             std::to_string(limits.block_size) + " do not hold its " + std::to_string(end) + " tokens");
    for (uint32_t b = step.block_indptr[s]; b < step.block_indptr[s + 1]; ++b)
      if (step.block_ids[b] >= limits.device_blocks)
        refuse_step("block_ids", b, step.block_ids[b], "there are " + std::to_string(limits.device_blocks) + " blocks");
    is_tree(step, s) ? check_tree(step, limits, s) : check_causal(step, limits, s);
  }
}

void check_spec(const sluice_sample_spec &spec, uint32_t i, const StepLimits &limits) {
  if (spec.n_stages > SLUICE_MAX_STAGES) refuse_step("spec.n_stages", i, spec.n_stages, "at most 16");
  if ((spec.flags & 0xffffu & ~uint32_t{SLUICE_SPF_LOGPROB | SLUICE_SPF_TOP_K_TIES}) != 0)
    throw sdk::Error(SLUICE_E_UNSUPPORTED, "spec.flags has unknown bits: " + std::to_string(spec.flags));
  for (uint32_t n = 0; n < spec.n_stages; ++n)
    if (spec.stage[n] > 31 || (kStages & SLUICE_STAGE_BIT(spec.stage[n])) == 0)
      throw sdk::Error(SLUICE_E_UNSUPPORTED, "spec.stage " + std::to_string(spec.stage[n]) + " is not known here");
  if (const char *problem = sdk::spec_problem(spec)) refuse_step("spec[" + std::to_string(i) + "]: " + problem);
  at_most("spec.n_logprobs", spec.n_logprobs, limits.max_logprobs);
  if (spec.logprobs_kind > SLUICE_LOGITS_PROCESSED)
    throw sdk::Error(SLUICE_E_UNSUPPORTED,
                     "logprobs_kind " + std::to_string(spec.logprobs_kind) + " is not known here");
}

void check_row(const sluice_step &step, uint32_t r) {
  if (step.row_token[r] >= step.n_tokens) refuse_step("row_token", r, step.row_token[r], "the step has fewer tokens");
  if (r > 0 && step.row_token[r] <= step.row_token[r - 1]) refuse_step("row_token", r, step.row_token[r], "they ascend");
  if ((step.row_want[r] & ~kForms) != 0)
    throw sdk::Error(SLUICE_E_UNSUPPORTED,
                     "row_want " + std::to_string(step.row_want[r]) + " has forms not given here");
  if (step.row_want[r] == 0) refuse_step("row_want", r, 0, "a row is wanted in some form");
  if (step.row_spec[r] >= step.n_specs) refuse_step("row_spec", r, step.row_spec[r], "there are fewer specs");
  if (step.row_position[r] != static_cast<uint32_t>(step.positions[step.row_token[r]]) + 1)
    refuse_step("row_position", r, step.row_position[r], "the row decides the token after its own");
}

void check_history(const sluice_step &step, const StepLimits &limits) {
  require(step.n_history > 0, "history", step.history_slot, step.history_kind, step.history_indptr);
  if (step.n_history == 0) return;
  check_ranges("history_indptr", step.history_indptr, step.n_history);
  require(step.history_indptr[step.n_history] > 0, "history", step.history_token);
  for (uint32_t i = 0; i < step.n_history; ++i) {
    if (step.history_slot[i] >= limits.max_seqs) refuse_step("history_slot", i, step.history_slot[i], "below max_seqs");
    if (step.history_kind[i] < SLUICE_HISTORY_RESET || step.history_kind[i] > SLUICE_HISTORY_FORK)
      throw sdk::Error(SLUICE_E_UNSUPPORTED, "history_kind " + std::to_string(step.history_kind[i]) + " is not known");
    const bool fork = step.history_kind[i] == SLUICE_HISTORY_FORK;
    const uint32_t n = step.history_indptr[i + 1] - step.history_indptr[i];
    if (fork && n != 1) refuse_step("history_indptr", i + 1, step.history_indptr[i + 1], "FORK has one token, the slot");
    for (uint32_t t = step.history_indptr[i]; t < step.history_indptr[i + 1]; ++t)
      if (step.history_token[t] < 0 ||
          static_cast<uint32_t>(step.history_token[t]) >= (fork ? limits.max_seqs : limits.vocab_size))
        refuse_step("history_token", t, step.history_token[t], fork ? "not a slot" : "not in the vocabulary");
  }
}

void check_rows(const sluice_step &step, const StepLimits &limits) {
  if (step.n_rows == 0) return;
  require(true, "rows", step.row_token, step.row_want, step.row_spec, step.row_seed, step.row_position, step.spec);
  if (step.spec_stride < SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind))
    refuse_step("spec_stride is " + std::to_string(step.spec_stride) + "; too short for a sample spec");
  for (uint32_t i = 0; i < step.n_specs; ++i) check_spec(spec_of(step, i), i, limits);
  for (uint32_t r = 0; r < step.n_rows; ++r) check_row(step, r);
  at_most("n_candidates", step.n_candidates, limits.max_candidates);
  for (uint32_t r = 0; r < step.n_rows && step.row_mask != nullptr; ++r) {
    if (step.row_mask[r] < -1) refuse_step("row_mask", r, step.row_mask[r], "-1 or a mask");
    require(step.row_mask[r] >= 0, "mask_words", step.mask_words);
  }
  for (uint32_t r = 0; r < step.n_rows && step.row_history != nullptr; ++r)
    if (step.row_history[r] < -1 || step.row_history[r] >= static_cast<int32_t>(limits.max_seqs))
      refuse_step("row_history", r, step.row_history[r], "-1 or below max_seqs");
  if (step.bias_indptr == nullptr) return;
  check_ranges("bias_indptr", step.bias_indptr, step.n_rows);
  require(step.bias_indptr[step.n_rows] > 0, "bias", step.bias_token, step.bias_value);
  for (uint32_t i = 0; i < step.bias_indptr[step.n_rows]; ++i)
    if (step.bias_token[i] < 0 || static_cast<uint32_t>(step.bias_token[i]) >= limits.vocab_size)
      refuse_step("bias_token", i, step.bias_token[i], "not in the vocabulary");
}

}  // namespace

void check_step(const sluice_step &step, const StepLimits &limits) {
  if (step.struct_size < SLUICE_SIZE_THROUGH(sluice_step, row_history)) refuse_step("step.struct_size is too small for ABI 0.0");
  if ((step.flags & 0xffffu) != 0)
    throw sdk::Error(SLUICE_E_UNSUPPORTED, "step.flags has unknown bits: " + std::to_string(step.flags));
  if (step.feed != nullptr) throw sdk::Error(SLUICE_E_UNSUPPORTED, "step.feed needs LOGITS_DEV, which the mock lacks");
  if (step.n_tokens == 0 || step.n_seqs == 0) refuse_step("a step needs a token and a sequence");
  if (step.n_kv_groups != 1) refuse_step("n_kv_groups is " + std::to_string(step.n_kv_groups) + "; the mock has 1");
  at_most("n_tokens", step.n_tokens, limits.max_tokens);
  at_most("n_seqs", step.n_seqs, limits.max_seqs);
  at_most("n_rows", step.n_rows, limits.max_rows);
  require(true, "step", step.tokens, step.positions, step.slots, step.seq_ids, step.q_indptr, step.kv_len,
          step.block_indptr, step.block_ids);
  check_ranges("q_indptr", step.q_indptr, step.n_seqs, step.n_tokens);
  check_ranges("block_indptr", step.block_indptr, step.n_seqs);
  require(step.parent != nullptr, "tree", step.tree_mask_indptr, step.tree_mask);
  if (step.parent != nullptr) check_ranges("tree_mask_indptr", step.tree_mask_indptr, step.n_seqs);
  for (uint32_t t = 0; t < step.n_tokens; ++t) {
    const int32_t id = step.tokens[t];
    const bool fed = id < 0 && -(int64_t{id} + 1) < limits.prev_rows;
    if (!fed && (id < 0 || static_cast<uint32_t>(id) >= limits.vocab_size))
      refuse_step("tokens", t, id,
             "ids are 0.." + std::to_string(limits.vocab_size - 1) + ", or -1-k for a row of the step before");
  }
  check_sequences(step, limits);
  check_rows(step, limits);
  check_history(step, limits);
}

}  // namespace sluice::mock

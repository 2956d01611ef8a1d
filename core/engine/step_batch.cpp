#include "core/engine/step_batch.hpp"

#include <algorithm>
#include <cassert>

namespace sluice::engine {
bool StepBatch::keeps_history(const Sequence &sequence) {
  const auto &spec = sequence.spec;
  return std::any_of(spec.stage, spec.stage + spec.n_stages, [](uint8_t stage) {
    return stage == SLUICE_STAGE_REPETITION || stage == SLUICE_STAGE_FREQUENCY || stage == SLUICE_STAGE_PRESENCE;
  });
}

StepBatch::StepBatch(uint32_t max_seqs, uint32_t vocab_size, uint32_t block_size)
    : vocab_size_(vocab_size), block_size_(block_size), history_owner_(max_seqs, nullptr), history_used_(max_seqs, 0) {
  clear();
}

void StepBatch::clear() {
  const auto empty = [](auto &...vectors) { (vectors.clear(), ...); };
  empty(sequences_, row_of_, tokens_, positions_, slots_, q_indptr_, kv_len_, block_indptr_, block_ids_, seq_ids_,
        row_token_, row_spec_, row_position_, bias_indptr_, mask_words_, row_want_, row_seed_, row_mask_, row_history_,
        bias_token_, bias_value_, specs_, history_slot_, history_indptr_, history_kind_, history_token_, drafts_,
        draft_indptr_, tree_indptr_, parent_, tree_mask_);
  q_indptr_.push_back(0);
  block_indptr_.push_back(0);
  bias_indptr_.push_back(0);
  history_indptr_.push_back(0);
  draft_indptr_.push_back(0);
  tree_indptr_.push_back(0);
  std::fill(history_used_.begin(), history_used_.end(), 0);
}

void StepBatch::add(Sequence &sequence, uint32_t n, uint8_t want, std::span<const DraftNode> drafts, bool as_tree) {
  const uint32_t begin = sequence.computed;
  const auto n_fed = static_cast<uint32_t>(n + drafts.size());
  assert(n > 0 && begin + n <= sequence.length());
  assert(drafts.empty() || (n == 1 && begin + 1 == sequence.length()));
  assert(static_cast<uint64_t>(sequence.blocks.size()) * block_size_ >= begin + n_fed);
  for (uint32_t cell = begin; cell < begin + n_fed; ++cell) {
    const DraftNode *draft = cell < begin + n ? nullptr : &drafts[cell - begin - n];
    tokens_.push_back(draft == nullptr ? sequence.tokens[cell] : draft->token);
    positions_.push_back(static_cast<int32_t>(draft == nullptr ? cell : begin + draft->depth));
    slots_.push_back(sequence.blocks[cell / block_size_] * block_size_ + cell % block_size_);
    // Meant for trees only; of a causal sequence nobody reads it.
    parent_.push_back(draft == nullptr ? static_cast<int32_t>(cell - begin) - 1 : draft->parent + 1);
  }
  sequences_.push_back(&sequence);
  seq_ids_.push_back(sequence.id);
  q_indptr_.push_back(n_tokens());
  kv_len_.push_back(begin);
  block_ids_.insert(block_ids_.end(), sequence.blocks.begin(), sequence.blocks.end());
  block_indptr_.push_back(static_cast<uint32_t>(block_ids_.size()));
  drafts_.insert(drafts_.end(), drafts.begin(), drafts.end());
  draft_indptr_.push_back(static_cast<uint32_t>(drafts_.size()));
  if (!drafts.empty() && as_tree) add_tree(drafts);
  tree_indptr_.push_back(static_cast<uint32_t>(tree_mask_.size()));

  if (begin + n < sequence.length()) {
    row_of_.push_back(-1);
    return;
  }
  row_of_.push_back(static_cast<int32_t>(n_rows()));
  specs_.push_back(sequence.spec);
  const size_t first_row = row_token_.size();
  for (size_t i = 0; i <= drafts.size(); ++i) {
    row_token_.push_back(static_cast<uint32_t>(n_tokens() - drafts.size() - 1 + i));
    add_row(sequence, sequence.length() + (i == 0 ? 0 : drafts[i - 1].depth), want);
  }
  if (!keeps_history(sequence)) return;
  add_history(sequence);
  std::fill(row_history_.begin() + static_cast<ptrdiff_t>(first_row), row_history_.end(), sequence.history_slot);
}

void StepBatch::add_tree(std::span<const DraftNode> drafts) {
  const size_t n = drafts.size() + 1;
  const size_t words = (n + 63) / 64;
  const size_t first = tree_mask_.size();
  tree_mask_.resize(first + n * words, 0);
  for (size_t i = 0; i < n; ++i) {
    uint64_t *mask = tree_mask_.data() + first + i * words;
    if (i > 0) std::copy_n(tree_mask_.data() + first + static_cast<size_t>(drafts[i - 1].parent + 1) * words, words, mask);
    mask[i / 64] |= uint64_t{1} << (i % 64);
  }
}

void StepBatch::add_row(const Sequence &sequence, uint32_t position, uint8_t want) {
  row_want_.push_back(want);
  row_spec_.push_back(static_cast<uint32_t>(specs_.size() - 1));
  row_seed_.push_back(sequence.seed());
  row_position_.push_back(position);
  row_mask_.push_back(-1);
  bias_token_.insert(bias_token_.end(), sequence.bias_token.begin(), sequence.bias_token.end());
  bias_value_.insert(bias_value_.end(), sequence.bias_value.begin(), sequence.bias_value.end());
  bias_indptr_.push_back(static_cast<uint32_t>(bias_token_.size()));
  row_history_.push_back(-1);
}

std::span<uint32_t> StepBatch::add_masks() {
  const size_t n_words = (vocab_size_ + 31) / 32;
  const size_t n = n_drafts(sequences_.size() - 1) + 1;
  const auto first = static_cast<int32_t>(mask_words_.size() / n_words);
  for (size_t i = 0; i < n; ++i) row_mask_[row_mask_.size() - n + i] = first + static_cast<int32_t>(i);
  mask_words_.resize(mask_words_.size() + n * n_words);
  return {mask_words_.data() + mask_words_.size() - n * n_words, n * n_words};
}

const uint32_t *StepBatch::mask_of_row(uint32_t row) const {
  const size_t n_words = (vocab_size_ + 31) / 32;
  return row_mask_[row] < 0 ? nullptr : mask_words_.data() + static_cast<size_t>(row_mask_[row]) * n_words;
}

int32_t StepBatch::take_history_slot(Sequence &sequence) {
  // There are as many slots as sequences in a step, so one is always free of this step's.
  int32_t taken = -1;
  for (size_t i = 0; i < history_owner_.size(); ++i) {
    if (history_used_[i] != 0) continue;
    taken = static_cast<int32_t>(i);
    if (history_owner_[i] == nullptr) break;
  }
  assert(taken >= 0);
  auto &owner = history_owner_[static_cast<size_t>(taken)];
  if (owner != nullptr) owner->history_slot = -1;
  owner = &sequence;
  return taken;
}

void StepBatch::add_history(Sequence &sequence) {
  const auto append = [&](uint8_t kind, uint32_t from, uint32_t to) {
    history_slot_.push_back(static_cast<uint32_t>(sequence.history_slot));
    history_kind_.push_back(kind);
    history_token_.insert(history_token_.end(), sequence.tokens.begin() + from, sequence.tokens.begin() + to);
    history_indptr_.push_back(static_cast<uint32_t>(history_token_.size()));
  };
  if (sequence.history_slot < 0) {
    sequence.history_slot = take_history_slot(sequence);
    append(SLUICE_HISTORY_RESET, 0, sequence.prompt_len());
    sequence.history_length = sequence.prompt_len();
  }
  if (sequence.history_length < sequence.length())
    append(SLUICE_HISTORY_OUTPUT, sequence.history_length, sequence.length());
  sequence.history_length = sequence.length();
  history_used_[static_cast<size_t>(sequence.history_slot)] = 1;
}

void StepBatch::forget(Sequence &sequence) {
  if (sequence.history_slot >= 0) history_owner_[static_cast<size_t>(sequence.history_slot)] = nullptr;
  sequence.history_slot = -1;
}

sluice_step StepBatch::abi(uint64_t step_no) const {
  sluice_step step{};
  step.struct_size = SLUICE_SIZE_THROUGH(sluice_step, row_history);
  step.step_no = step_no;
  step.n_tokens = n_tokens();
  step.n_seqs = static_cast<uint32_t>(sequences_.size());
  step.n_rows = n_rows();
  step.n_kv_groups = 1;
  step.tokens = tokens_.data();
  step.positions = positions_.data();
  step.slots = slots_.data();
  step.seq_ids = seq_ids_.data();
  step.q_indptr = q_indptr_.data();
  step.kv_len = kv_len_.data();
  step.block_indptr = block_indptr_.data();
  step.block_ids = block_ids_.data();
  if (!tree_mask_.empty()) {
    step.parent = parent_.data();
    step.tree_mask_indptr = tree_indptr_.data();
    step.tree_mask = tree_mask_.data();
  }
  step.row_token = row_token_.data();
  step.row_want = row_want_.data();
  step.spec = specs_.data();
  step.n_specs = static_cast<uint32_t>(specs_.size());
  step.spec_stride = sizeof(sluice_sample_spec);
  step.row_spec = row_spec_.data();
  step.row_seed = row_seed_.data();
  step.row_position = row_position_.data();
  step.mask_words = mask_words_.empty() ? nullptr : mask_words_.data();
  step.row_mask = mask_words_.empty() ? nullptr : row_mask_.data();
  step.bias_indptr = bias_token_.empty() ? nullptr : bias_indptr_.data();
  step.bias_token = bias_token_.data();
  step.bias_value = bias_value_.data();
  step.n_history = static_cast<uint32_t>(history_slot_.size());
  step.history_slot = history_slot_.data();
  step.history_kind = history_kind_.data();
  step.history_indptr = history_indptr_.data();
  step.history_token = history_token_.data();
  step.row_history = history_token_.empty() && history_slot_.empty() ? nullptr : row_history_.data();
  return step;
}

}  // namespace sluice::engine

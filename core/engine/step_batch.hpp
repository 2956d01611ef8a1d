#pragma once
#include <sluice/abi/step.h>

#include <cstdint>
#include <span>
#include <vector>

#include "core/engine/draft_tree.hpp"
#include "core/engine/sequence.hpp"

namespace sluice::engine {

/// The arrays of one sluice_step, filled sequence by sequence. Memory is kept from step to step.
///
/// Penalty histories: the backend keeps max_seqs of them; this hands a slot to a sequence that needs one and takes it
/// from one that is not in the step, whose history is then sent again when it comes back.
/// thread  [engine]
class StepBatch {
 public:
  StepBatch(uint32_t max_seqs, uint32_t vocab_size, uint32_t block_size);

  void clear();

  /// Feeds the next n tokens of the sequence; its blocks must already cover them. A row is asked for iff they are the
  /// last it has.
  ///   lowered  the backend draws the token; else the row comes back as host logits
  ///   want     SLUICE_ROW_* of its rows
  ///   drafts   go behind the last token of a sequence that has one left, with a row for each
  ///   as_tree  false: the drafts are a chain, and the backend is not told that they are drafts
  void add(Sequence &sequence, uint32_t n, uint8_t want, std::span<const DraftNode> drafts = {}, bool as_tree = true);

  /// Where the allow-masks of the rows just added go: [rows of the sequence, (vocab + 31) / 32] words, until the next
  /// add().
  std::span<uint32_t> add_masks();

  bool empty() const { return sequences_.empty(); }
  std::span<Sequence *const> sequences() const { return sequences_; }
  uint32_t fed_tokens(size_t i) const { return q_indptr_[i + 1] - q_indptr_[i]; }
  int32_t row_of(size_t i) const { return row_of_[i]; }  ///< of sequence i, -1 = none; then those of its drafts
  std::span<const DraftNode> drafts(size_t i) const { return std::span(drafts_).subspan(draft_indptr_[i], n_drafts(i)); }
  uint32_t n_drafts(size_t i) const { return draft_indptr_[i + 1] - draft_indptr_[i]; }
  const uint32_t *mask_of_row(uint32_t row) const;       ///< null = none
  uint8_t want(uint32_t row) const { return row_want_[row]; }  ///< SLUICE_ROW_*
  uint32_t n_tokens() const { return static_cast<uint32_t>(tokens_.size()); }
  uint32_t n_rows() const { return static_cast<uint32_t>(row_token_.size()); }

  /// Valid until the next clear().
  sluice_step abi(uint64_t step_no) const;

  /// Whether the backend counts the sequence's tokens for penalties.
  static bool keeps_history(const Sequence &sequence);

  /// Lets go of a history slot, because the sequence ends.
  void forget(Sequence &sequence);

 private:
  void add_row(const Sequence &sequence, uint32_t position, uint8_t want);
  void add_tree(std::span<const DraftNode> drafts);
  void add_history(Sequence &sequence);
  int32_t take_history_slot(Sequence &sequence);

  uint32_t vocab_size_, block_size_;
  std::vector<Sequence *> sequences_;
  std::vector<int32_t> row_of_;
  std::vector<int32_t> tokens_, positions_;
  std::vector<uint32_t> slots_, q_indptr_, kv_len_, block_indptr_, block_ids_;
  std::vector<sluice_seq_id> seq_ids_;
  std::vector<DraftNode> drafts_;
  std::vector<uint32_t> draft_indptr_, tree_indptr_;
  std::vector<int32_t> parent_;
  std::vector<uint64_t> tree_mask_;
  std::vector<uint32_t> row_token_, row_spec_, row_position_, bias_indptr_, mask_words_;
  std::vector<uint8_t> row_want_;
  std::vector<uint64_t> row_seed_;
  std::vector<int32_t> row_mask_, row_history_, bias_token_;
  std::vector<float> bias_value_;
  std::vector<sluice_sample_spec> specs_;
  std::vector<Sequence *> history_owner_;  ///< [max_seqs]
  std::vector<uint8_t> history_used_;      ///< [max_seqs] by this step
  std::vector<uint32_t> history_slot_, history_indptr_;
  std::vector<uint8_t> history_kind_;
  std::vector<int32_t> history_token_;
};

}  // namespace sluice::engine

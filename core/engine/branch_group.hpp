#pragma once
#include <sluice/abi/draft.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/engine/sequence.hpp"
#include "core/engine/token_choice.hpp"

namespace sluice::engine {

/// What was chosen on a branch so far, shared by its forks. Kept only for requests that want logprobs.
using Said = std::vector<std::shared_ptr<const TokenChoice>>;

struct FinishedAnswer {
  std::vector<int32_t> tokens;  ///< output, with the token that ended it
  float score = 0;
  Said said;
};

/// A request whose decoder ranks branches: one ref, one place in line, several live sequences.
/// Always: the first branch is the sequence of the ref, the others stand here; all have the same length. When they have
/// KV it ends one token before, or is being recomputed: the first branch's to the end, then the others' behind what they
/// have in common with it.
struct BranchGroup {
  std::vector<std::unique_ptr<Sequence>> others;  ///< live branches after the first, best first
  std::vector<uint32_t> common;                   ///< [others] leading tokens that equal the first's, once KV was lost
  std::vector<Said> said;                         ///< [width()], or empty
  std::vector<FinishedAnswer> finished;           ///< best first, at most as many as are to be answered

  uint32_t width() const { return static_cast<uint32_t>(others.size()) + 1; }
  void keep(FinishedAnswer answer, uint32_t n_answers);
};

/// The arrays of one branch() call. Memory is kept from step to step.
class BranchCall {
 public:
  explicit BranchCall(uint32_t n_top) : n_top_(n_top) { clear(); }

  void clear();
  /// Adds a branch to the group that is being filled.
  ///   top  best first; fewer than n_top are filled up, more are left out
  void add(sluice_decoder_seq *seq, std::span<const request::TokenLogprob> top, uint32_t generated);
  void end_group() { group_indptr_.push_back(n_branches()); }

  uint32_t n_groups() const { return static_cast<uint32_t>(group_indptr_.size()) - 1; }
  uint32_t n_branches() const { return static_cast<uint32_t>(seq_.size()); }

  /// Valid until the next change. The output has room for every candidate that is shown.
  sluice_branch_in in() const;
  sluice_branch_out out();

  struct Entry {
    uint32_t branch;  ///< within its group
    int32_t token;
    float score;
    bool grows;       ///< else it finishes
  };
  struct Rules {
    uint32_t max_live;  ///< branches that may go on
    bool is_last;       ///< the answer is as long as it may be: nothing may go on
    bool has_finished;  ///< answers from before
  };
  /// Checks what branch() wrote, n entries by its own account, and sorts it by group.
  /// Returns what is wrong, empty when nothing is.
  std::string take(uint32_t n, std::span<const Rules> rules, uint32_t vocab_size);
  std::span<const Entry> entries(uint32_t group) const {
    return std::span(entries_).subspan(entry_indptr_[group], entry_indptr_[group + 1] - entry_indptr_[group]);
  }
  bool done(uint32_t group) const { return done_[group] != 0; }

 private:
  std::string check_entry(uint32_t i, uint32_t vocab_size) const;

  uint32_t n_top_;
  std::vector<uint32_t> group_indptr_, generated_;
  std::vector<sluice_decoder_seq *> seq_;
  std::vector<int32_t> top_ids_;
  std::vector<float> top_logprobs_;
  std::vector<uint32_t> from_;
  std::vector<int32_t> token_;
  std::vector<float> score_;
  std::vector<uint8_t> what_, done_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> entry_indptr_;
};

}  // namespace sluice::engine

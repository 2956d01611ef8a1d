#pragma once
#include <sluice/abi/kinds/decoder.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sluice::engine {

/// A draft as it goes to the target. The root, a sequence's last token, is no node.
struct DraftNode {
  int32_t token = -1;
  int32_t parent = -1;  ///< index in the same list, -1 = the root; parents come first
  uint32_t depth = 1;   ///< it stands at root position + depth
  int32_t q = -1;       ///< row of the distribution that it was drawn from, -1 = none: chosen in any way
  uint32_t source = 0;  ///< index in the decoder's tree
  uint32_t rank = 0;    ///< its place in the list by score, best first
};

/// A distribution that drafts were drawn from: a whole row, or the ids that are listed.
struct DraftDistribution {
  std::span<const float> dense;  ///< [vocab], or empty
  std::span<const int32_t> ids;
  std::span<const float> probs;  ///< of `ids`
  float of(int32_t token) const;
};

enum class DraftTrim : uint8_t {
  kByScore,  ///< the smallest score first, leaves before parents; a twin among siblings is dropped
  /// The last first: what was drawn must not decide whether it is tried, or the answer's distribution changes.
  kByOrder,
};

/// The arrays that a decoder fills in one step, and the judgement of what came back.
///
/// Per step: open(), then per round again(), the decoder's call, check(); then take() per sequence.
/// thread  [engine]. Keeps its memory from step to step.
class DraftTree {
 public:
  DraftTree(const sluice_decoder_needs &needs, uint32_t vocab_size) : needs_(needs), vocab_size_(vocab_size) {}

  /// Empties it; room for n_seqs sequences with as many nodes as the decoder's needs say.
  void open(uint32_t n_seqs);
  /// What the next draft() gets. Every pointer is set anew: a plugin that overwrites one steers nothing.
  sluice_draft_tree *again();
  /// Judges the nodes that the last call added. Empty = they are sound and belong to the tree; else what is wrong.
  ///   host_q_rows  distributions that the host holds (SLUICE_Q_HOST)
  std::string check(uint32_t host_q_rows);

  uint32_t size() const { return n_; }
  uint32_t seq(uint32_t node) const { return seq_[node]; }
  int32_t token(uint32_t node) const { return token_[node]; }
  int32_t parent(uint32_t node) const { return parent_[node]; }
  float score(uint32_t node) const { return score_[node]; }
  bool feeds(uint32_t node) const { return (flags_[node] & SLUICE_NODE_FEED) != 0; }
  bool has_own_q() const { return q_form_ == SLUICE_Q_SPARSE; }
  DraftDistribution own_q(uint32_t row) const;

  /// The nodes of one sequence, at most `budget` of them and none deeper than max_depth.
  void take(uint32_t seq, uint32_t budget, uint32_t max_depth, DraftTrim trim, std::vector<DraftNode> &out) const;

 private:
  std::string check_node(uint32_t node, uint32_t n_q_rows) const;
  std::string check_own_q(const sluice_draft_tree &tree) const;
  void rank(std::vector<DraftNode> &nodes) const;
  void drop_smallest(uint32_t budget, std::vector<DraftNode> &nodes) const;

  const sluice_decoder_needs needs_;
  const uint32_t vocab_size_;
  uint32_t n_seqs_ = 0, n_ = 0, q_form_ = 0, n_q_ = 0;
  sluice_draft_tree abi_{};
  std::vector<uint32_t> seq_, flags_, depth_, q_indptr_;
  std::vector<int32_t> token_, parent_, q_, q_id_;
  std::vector<float> score_, q_prob_;
  // What the rounds before said, to see whether a call changed it.
  std::vector<uint32_t> old_seq_;
  std::vector<int32_t> old_token_, old_parent_, old_q_;
  std::vector<float> old_score_;
};

/// Removes the nodes for which `dead` is set, and everything below them.
void drop_subtrees(std::vector<DraftNode> &nodes, std::span<const uint8_t> dead);

}  // namespace sluice::engine

#pragma once
#include <sluice/abi/kinds/backend.h>
#include <sluice/abi/kinds/decoder.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/engine/abi_call.hpp"
#include "core/engine/draft_tree.hpp"
#include "core/engine/sequence.hpp"

namespace sluice::engine {

/// A sequence of a step that may have drafts, and what came of it.
struct DraftSeat {
  Sequence *sequence = nullptr;
  uint32_t budget = 0;     ///< nodes, at least 1
  uint32_t max_depth = 0;  ///< what its request has room for
  DraftTrim trim = DraftTrim::kByScore;
  std::vector<DraftNode> nodes;
};

/// Asks a model's decoder for drafts.
///
/// A call that fails or returns garbage costs its step the drafts. An instance that says it is damaged is not asked
/// again; the model goes on one token at a time.
/// thread  [engine]
class Drafting {
 public:
  struct Parts {
    std::string name;  ///< "decoder ngram", for messages
    const sluice_decoder_vtbl *vtbl = nullptr;
    sluice_decoder *instance = nullptr;
    sluice_decoder_needs needs{};
    uint32_t vocab_size = 0;
    uint32_t n_heads = 0, head_top = 0;  ///< of the target's draft heads
  };
  explicit Drafting(Parts parts);

  const sluice_decoder_needs &needs() const { return parts_.needs; }
  /// A call to the decoder failed; if it says that it is damaged, it is not called again.
  void failed(const PluginFailure &failure) { damaged_ |= failure.poisoned; }
  bool damaged() const { return damaged_; }
  bool on() const { return !damaged_ && parts_.needs.max_nodes > 0; }

  /// Draft tokens that the decoder would like for a sequence that decodes, at most what its needs say.
  uint32_t wish(const Sequence &sequence) const;

  /// Fills the nodes of every seat. On failure none has any.
  PluginResult propose(std::span<DraftSeat> seats);

  /// Nodes of the decoder's tree in the last propose(), those that were trimmed too.
  uint32_t n_nodes() const { return tree_.size(); }
  void forget_nodes() { tree_.open(0); }
  DraftDistribution distribution(int32_t q) const { return tree_.own_q(static_cast<uint32_t>(q)); }

  /// Keeps what the heads said at the row that chose a sequence's last token.
  void keep_heads(Sequence &sequence, const sluice_step_result &result, uint32_t row) const;

 private:
  void fill_in(std::span<const DraftSeat> seats);

  const Parts parts_;
  bool damaged_ = false;
  DraftTree tree_;
  sluice_draft_in in_{};
  std::vector<sluice_decoder_seq *> seqs_;
  std::vector<uint32_t> budget_, root_position_;
  std::vector<int32_t> root_token_, head_ids_;
  std::vector<float> head_logprobs_;
};

}  // namespace sluice::engine

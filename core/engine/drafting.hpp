#pragma once
#include <sluice/abi/kinds/backend.h>
#include <sluice/abi/kinds/decoder.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/engine/abi_call.hpp"
#include "core/engine/draft_model.hpp"
#include "core/engine/draft_tree.hpp"
#include "core/engine/sampler_chain.hpp"
#include "core/engine/sequence.hpp"

namespace sluice::engine {

/// A sequence of a step that may have drafts, and what came of it.
struct DraftSeat {
  Sequence *sequence = nullptr;
  uint32_t budget = 0;     ///< nodes, at least 1
  uint32_t max_depth = 0;  ///< what its request has room for
  DraftTrim trim = DraftTrim::kByScore;  ///< kByOrder: draws are to be judged by rejection, so they are uncoupled
  std::vector<DraftNode> nodes;
  std::vector<uint32_t> fed;  ///< nodes of the decoder's tree that the draft model has run, in the order of their cells
  bool fed_in_line = true;    ///< they are one path, each stored where its token would stand
};

/// Asks a model's decoder for drafts, and runs its draft model.
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
    SamplerChain *chain = nullptr;
    std::unique_ptr<DraftModel> model;   ///< null without needs.draft_model
  };
  explicit Drafting(Parts parts);

  const sluice_decoder_needs &needs() const { return parts_.needs; }
  /// A call to the decoder or to its model failed; if it says that it is damaged, it is not called again.
  void failed(const PluginFailure &failure) { damaged_ |= failure.poisoned; }
  bool damaged() const { return damaged_; }
  bool on() const { return !damaged_ && parts_.needs.max_nodes > 0; }

  /// Draft tokens that the decoder would like for a sequence that decodes, at most what its needs say.
  uint32_t wish(const Sequence &sequence) const;

  /// Fills the nodes of every seat. On failure none has any.
  PluginResult propose(std::span<DraftSeat> seats);

  /// Nodes of the decoder's tree in the last propose(), those that were trimmed too.
  uint32_t n_nodes() const { return tree_.size(); }
  uint64_t draft_ns() const { return draft_ns_; }  ///< what the draft model took for them
  void forget();  ///< a step without drafts
  DraftDistribution distribution(int32_t q) const;

  /// What became of a seat's drafts: the draft model's cache holds on to what was right.
  ///   length    of the sequence before the step
  void settle(const DraftSeat &seat, uint32_t length, std::span<const uint32_t> accepted);

  /// The draft model's blocks go the way of the target's.
  PluginResult follow(const sluice_kv_batch &batch);

  /// Keeps what the heads said at the row that chose a sequence's last token.
  void keep_heads(Sequence &sequence, const sluice_step_result &result, uint32_t row) const;

 private:
  /// A row of the draft model, and whose it is: a node of the tree, or -1-i for the root of active sequence i.
  struct Fed {
    uint32_t active;
    int32_t node;
  };
  PluginResult run_rounds(std::span<DraftSeat> seats);
  PluginResult ask(std::span<const DraftSeat> seats, uint32_t round);
  void fill_in(std::span<const DraftSeat> seats, uint32_t round);
  PluginResult feed_roots(std::span<DraftSeat> seats);
  PluginResult feed_nodes(std::span<DraftSeat> seats);
  void choose_what_to_feed(std::span<const DraftSeat> seats);
  void add_to_step(DraftSeat &seat, std::span<const uint32_t> nodes);
  PluginResult take_outcomes(std::span<const DraftSeat> seats);
  void draw(const DraftSeat &seat, size_t host_row, uint32_t position);
  void list_best(const float *logits);
  uint32_t depth_of(int32_t node) const;

  Parts parts_;
  bool damaged_ = false;
  DraftTree tree_;
  sluice_draft_in in_{};
  std::vector<uint32_t> active_;  ///< seats that the decoder is asked about
  std::vector<sluice_decoder_seq *> seqs_;
  std::vector<uint32_t> budget_, root_position_;
  std::vector<int32_t> root_token_, head_ids_;
  std::vector<float> head_logprobs_;

  // The draft model's rounds.
  uint64_t draft_ns_ = 0;
  std::vector<Fed> fed_;
  std::vector<uint8_t> was_fed_;                   ///< of nodes
  std::vector<std::vector<uint32_t>> to_feed_;     ///< per active sequence
  std::vector<HostRow> rows_;
  std::vector<size_t> row_of_fed_;
  std::vector<int32_t> fed_node_, fed_token_, fed_q_, fed_top_ids_, feed_tokens_, feed_parents_;
  std::vector<float> fed_top_logprobs_, passing_row_, best_row_;
  std::vector<std::vector<float>> q_rows_;
  uint32_t n_q_rows_ = 0;
  sdk::RowSampler ranker_;
};

}  // namespace sluice::engine

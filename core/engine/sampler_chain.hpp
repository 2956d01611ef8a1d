#pragma once
#include <sluice/abi/kinds/backend.h>
#include <sluice/abi/kinds/sampler.h>
#include <sluice/sdk/sampling.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/engine/abi_call.hpp"
#include "core/engine/draft_tree.hpp"
#include "core/engine/sequence.hpp"
#include "core/engine/token_choice.hpp"

namespace sluice::engine {

/// One sampler of a model's chain. The instance is owned by whoever made it and outlives the chain.
struct SamplerPort {
  std::string name;
  const sluice_sampler_vtbl *vtbl = nullptr;
  sluice_sampler *instance = nullptr;
};

/// A row that the backend could not finish: its raw form, and the sequence it belongs to.
struct HostRow {
  Sequence *sequence = nullptr;
  const float *logits = nullptr;      ///< [vocab] f32 after the lowered stages
  TokenChoice *choice = nullptr;      ///< where the outcome goes; null: for processed() only
  const uint32_t *mask = nullptr;     ///< [n words] as fill_masks gave, or none. Already applied to lowered rows
  uint32_t position = 0;              ///< of the token that is chosen
  int32_t parent = -1;                ///< the row that it follows in a tree of drafts, -1 = the committed state
  int32_t token = -1;                 ///< the draft between that row and this one
  bool raw = false;                   ///< the whole chain is still to run, whatever the target's backend has lowered
};

/// The samplers of one model, in order: opens a sequence, lowers what the backend can do, runs the rest on the host.
///
/// A row's token is chosen by the first sampler that writes one; if none does, by the host's draw of abi/rng.h.
/// thread  [engine]
class SamplerChain {
 public:
  SamplerChain(std::vector<SamplerPort> samplers, const sluice_sample_caps &caps, uint32_t vocab_size);

  size_t size() const { return samplers_.size(); }
  bool has_masks() const { return has_masks_; }

  /// Opens the sequence with every sampler and lowers the longest prefix of the chain into sequence.spec.
  /// On failure nothing stays open.
  PluginResult open(Sequence &sequence);
  PluginResult close(Sequence &sequence);

  /// True: the backend's token is final. False: the row comes as host logits and goes through choose().
  bool lowered(const Sequence &sequence) const { return sequence.n_lowered == samplers_.size(); }

  /// Fills words[1 + drafts, (vocab + 31) / 32] with the tokens allowed after the sequence and after each draft, all
  /// ones where no sampler minds. dead[i] = 1: draft i is itself forbidden.
  PluginResult fill_masks(const Sequence &sequence, std::span<const DraftNode> drafts, std::span<uint32_t> words,
                          std::span<uint8_t> dead) const;

  /// Runs the samplers that were not lowered, and the draw. Rows of one sequence stand together, parents first.
  PluginResult choose(std::span<const HostRow> rows);

  /// The r-th row of the last choose() after the whole chain: [vocab], -inf where removed. Until the next choose().
  std::span<const float> processed(size_t r) const { return std::span(rows_).subspan(r * vocab_size_, vocab_size_); }
  /// The token that a sampler wrote for that row, -1 = the draw decides.
  int32_t written(size_t r) const { return token_[r]; }
  /// Says that the row's token is another one than was drawn. Its sequence has no sampler lowered if it wants logprobs.
  void put(const HostRow &row, int32_t token);
  /// From now on no sampler is lowered for requests that want logprobs: their tokens may be put().
  void expect_puts() { expects_puts_ = true; }
  /// Whether apply() of some sampler looks at the rows on the way to a row.
  bool stateful() const { return stateful_; }

  /// Tells every sampler the tokens that became final, in CSR form. Asks RELOWER samplers again.
  PluginResult commit(std::span<Sequence *const> sequences, std::span<const uint32_t> tok_indptr,
                      std::span<const int32_t> tokens, std::span<const float> logprobs);

 private:
  PluginResult lower(Sequence &sequence);
  PluginResult ask_bias(Sequence &sequence);
  void raw_logprobs(const HostRow &row);

  std::vector<SamplerPort> samplers_;
  std::vector<std::string> call_names_;  ///< "sampler NAME", for messages
  sluice_sample_caps caps_;
  uint32_t vocab_size_;
  bool has_masks_ = false;
  bool relowers_ = false;
  bool stateful_ = false;
  bool expects_puts_ = false;

  // Reused by choose() and commit().
  std::vector<float> rows_, logprob_;
  std::vector<int32_t> token_, row_parent_, row_token_, place_;
  std::vector<uint32_t> index_, position_, mask_words_;
  std::vector<uint64_t> seed_;
  std::vector<int32_t> row_mask_;
  std::vector<sluice_sampler_seq *> seqs_;
  std::vector<int32_t> chosen_, top_ids_;
  std::vector<float> top_logprobs_;
  sdk::RowSampler row_sampler_;
};

}  // namespace sluice::engine

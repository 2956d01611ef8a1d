#pragma once
#include <sluice/abi/kinds/backend.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/engine/abi_call.hpp"
#include "core/engine/sequence.hpp"
#include "core/kv/block_pool.hpp"

namespace sluice::engine {

/// What a draft model is made of. Borrowed; outlives the engine.
struct DraftModelParts {
  std::string name;  ///< "draft model small on backend cpu", for messages
  const sluice_backend_vtbl *backend = nullptr;
  sluice_model *model = nullptr;  ///< configured with the target's block size and number of blocks
  uint32_t max_tokens = 0;        ///< of one of its steps
  uint32_t host_blocks = 0;       ///< its swap space; as much as the target's, or none
};

/// The second model of a speculative decoder: what it is fed, and what of its cache is good.
///
/// Its keys and values lie in blocks of the target's numbers, so one block table serves both, and whatever shares, drops
/// or hands out a block does so for both. What it lacks of a text is fed to it before it drafts; what it was fed of
/// drafts that were rejected is overwritten.
/// Always: of a block, the first fill_[block].tokens cells hold what belongs to the tokens that the target has there,
/// unless the block was handed out anew since.
/// thread  [engine]
class DraftModel {
 public:
  /// errors  kUnsupported (paged KV with one group and the target's vocabulary are needed), the backend's own
  static Result<DraftModel> create(DraftModelParts parts, uint32_t vocab_size, uint32_t block_size,
                                   const kv::BlockPool &pool);

  const std::string &name() const { return parts_.name; }
  bool trees() const { return trees_; }
  uint32_t max_tokens() const { return parts_.max_tokens; }

  /// Leading tokens of the sequence whose keys and values it has.
  uint32_t known(const Sequence &sequence) const;
  /// From now on it has those of the first n tokens.
  void has(const Sequence &sequence, uint32_t n);

  /// The target's blocks were copied or swapped: its own go the same way. What cannot is fed again later.
  PluginResult follow(const sluice_kv_batch &batch);

  // A step: begin(), add..., run(), then the rows in the order in which they were asked for.
  void begin();
  /// Feeds n tokens of the text behind what it knows; with a row behind the last. False: another sequence of this step
  /// writes to a block that they share, so it has to wait.
  bool add_text(const Sequence &sequence, uint32_t n, bool row);
  /// Feeds drafts behind `length` cells, the last n_new with a row each.
  ///   parents  index among the drafts, -1 = the text; empty: one after the other
  void add_drafts(const Sequence &sequence, uint32_t length, std::span<const int32_t> tokens,
                  std::span<const int32_t> parents, uint32_t n_new);
  bool empty() const { return seq_ids_.empty(); }
  PluginResult run();
  const float *row(uint32_t i) const { return result_.logits_host + size_t{i} * vocab_size_; }  ///< until begin()
  uint64_t device_ns() const { return result_.device_ns; }

  ~DraftModel();
  DraftModel(DraftModel &&other) noexcept;
  DraftModel &operator=(DraftModel &&) = delete;

 private:
  struct Fill {
    uint32_t generation = 0;
    uint32_t tokens = 0;
  };
  DraftModel(DraftModelParts parts, uint32_t vocab_size, uint32_t block_size, const kv::BlockPool &pool, bool trees)
      : parts_(std::move(parts)), pool_(&pool), vocab_size_(vocab_size), block_size_(block_size), trees_(trees),
        fill_(pool.total()), host_fill_(parts_.host_blocks, 0), claimed_(pool.total(), 0) {}
  void add(const Sequence &sequence, uint32_t begin, std::span<const int32_t> tokens);
  void add_row(uint32_t token);
  void release();
  sluice_step step();

  DraftModelParts parts_;
  const kv::BlockPool *pool_;
  uint32_t vocab_size_, block_size_;
  bool trees_;
  std::vector<Fill> fill_;           ///< [blocks]
  std::vector<uint32_t> host_fill_;  ///< [host_blocks] tokens
  std::vector<uint64_t> claimed_;    ///< [blocks] the step that writes text there
  uint64_t step_no_ = 0;
  std::optional<sluice_ticket> ticket_;
  sluice_step_result result_{};

  std::vector<int32_t> tokens_, positions_, parent_;
  std::vector<uint32_t> slots_, q_indptr_, kv_len_, block_indptr_, block_ids_, tree_indptr_, row_token_, row_spec_,
      row_position_;
  std::vector<uint64_t> tree_mask_, row_seed_;
  std::vector<uint8_t> row_want_;
  std::vector<sluice_seq_id> seq_ids_;
};

}  // namespace sluice::engine

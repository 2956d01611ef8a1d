// Is a step well formed? Everything that can be told without looking at the cache.
#pragma once
#include <sluice/abi/kinds/backend.h>

#include <cstdint>

namespace sluice::mock {

struct StepLimits {
  uint32_t vocab_size, block_size, device_blocks;
  uint32_t max_tokens, max_seqs, max_rows, max_context, max_candidates, max_logprobs, max_tree_nodes;
  uint32_t prev_rows;  // rows of the step before, which negative ids may name
};

/// Pointers, counts, ranges, ids, blocks, slots against positions, trees, rows, specs, masks, biases and histories.
/// errors  sdk::Error kInvalidArgument, kUnsupported; names the array, the index and the value.
void check_step(const sluice_step &step, const StepLimits &limits);

/// Is this sequence's part of the step a draft tree?
inline bool is_tree(const sluice_step &step, uint32_t seq) {
  return step.parent != nullptr && step.tree_mask_indptr != nullptr &&
         step.tree_mask_indptr[seq] != step.tree_mask_indptr[seq + 1];
}

}  // namespace sluice::mock

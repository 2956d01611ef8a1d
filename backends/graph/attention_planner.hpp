// Cuts the attention of a step into work items that a device runs in any order.
#pragma once
#include "backends/graph/tensors.hpp"

#include <span>

namespace sluice::graph {

/// A tile shares the keys it loads; a sequence's query tokens are cut into tiles of this many.
constexpr uint32_t kTileTokens = 8;
/// Visible tokens per split. Fixed, so that sums do not depend on the company or on the number of workers.
constexpr uint32_t kSplitTokens = 512;
/// At most so many partial rows in a step; beyond, the tile is not split.
constexpr uint32_t kMaxPartials = 2048;

constexpr uint32_t max_attention_items(const StepLimits &limits) { return limits.tokens + kMaxPartials; }
constexpr uint32_t max_attention_merges(const StepLimits &limits) { return limits.tokens; }

struct AttentionInputs {
  std::span<const uint32_t> q_begin;     ///< [seqs + 1]
  std::span<const uint32_t> kv_len;      ///< [seqs]
  std::span<const uint32_t> tree_begin;  ///< [seqs + 1]
  std::span<const uint64_t> tree_mask;
  uint32_t split_tokens = kSplitTokens;
  uint32_t parallelism = 1;  ///< items that keep the device busy
};

struct AttentionPlan {
  uint32_t items = 0, merges = 0, partials = 0;
};

/// How many tokens window token j of a sequence sees, itself included.
uint32_t visible_tokens(const AttentionInputs &in, uint32_t seq, uint32_t j);

/// Covers every (token, split) exactly once: a tile is one item, or one item per split with a merge per token when
/// there are too few tiles to keep the device busy. Splits never merge differently in the two forms.
///
/// items   room for max_attention_items()
/// merges  room for max_attention_merges()
AttentionPlan plan_attention(const AttentionInputs &in, AttentionItem *items, AttentionMerge *merges);

}  // namespace sluice::graph

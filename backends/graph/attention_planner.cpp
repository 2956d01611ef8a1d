#include "backends/graph/attention_planner.hpp"

#include <algorithm>

namespace sluice::graph {

uint32_t visible_tokens(const AttentionInputs &in, uint32_t seq, uint32_t j) {
  if (in.tree_begin[seq] == in.tree_begin[seq + 1]) return in.kv_len[seq] + j + 1;
  const uint32_t words = (in.q_begin[seq + 1] - in.q_begin[seq] + 63) / 64;
  uint32_t n = in.kv_len[seq];
  for (uint32_t w = 0; w < words; ++w)
    n += static_cast<uint32_t>(__builtin_popcountll(in.tree_mask[in.tree_begin[seq] + uint64_t{j} * words + w]));
  return n;
}

namespace {

uint32_t divide_up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

uint32_t count_tiles(const AttentionInputs &in) {
  uint32_t tiles = 0;
  for (size_t s = 0; s + 1 < in.q_begin.size(); ++s) tiles += divide_up(in.q_begin[s + 1] - in.q_begin[s], kTileTokens);
  return tiles;
}

}  // namespace

AttentionPlan plan_attention(const AttentionInputs &in, AttentionItem *items, AttentionMerge *merges) {
  AttentionPlan plan;
  const bool few_tiles = count_tiles(in) < in.parallelism;
  for (uint32_t seq = 0; seq + 1 < in.q_begin.size(); ++seq) {
    for (uint32_t begin = in.q_begin[seq]; begin < in.q_begin[seq + 1]; begin += kTileTokens) {
      const uint32_t end = std::min(begin + kTileTokens, in.q_begin[seq + 1]), width = end - begin;
      uint32_t visible = 0;
      for (uint32_t t = begin; t < end; ++t) visible = std::max(visible, visible_tokens(in, seq, t - in.q_begin[seq]));
      const uint32_t splits = divide_up(visible, in.split_tokens);
      if (!few_tiles || splits == 1 || plan.partials + splits * width > kMaxPartials) {
        items[plan.items++] = {seq, begin, end, 0, splits, kNoPartial};
        continue;
      }
      for (uint32_t s = 0; s < splits; ++s)
        items[plan.items++] = {seq, begin, end, s, s + 1, plan.partials + s * width};
      for (uint32_t t = begin; t < end; ++t)
        merges[plan.merges++] = {t, plan.partials + (t - begin),
                                 divide_up(visible_tokens(in, seq, t - in.q_begin[seq]), in.split_tokens), width};
      plan.partials += splits * width;
    }
  }
  return plan;
}

}  // namespace sluice::graph

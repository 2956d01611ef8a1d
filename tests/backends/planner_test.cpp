#include "backends/graph/attention_planner.hpp"
#include "backends/graph/host_memory.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace sluice::graph {
namespace {

/// How often each (token, split) is covered, and the merges checked against the items' partial rows.
void expect_exact_cover(const AttentionInputs &in) {
  const uint32_t tokens = in.q_begin.back();
  const StepLimits limits{tokens, static_cast<uint32_t>(in.kv_len.size()), 1, 0, 0, 0};
  std::vector<AttentionItem> items(max_attention_items(limits));
  std::vector<AttentionMerge> merges(max_attention_merges(limits));
  const AttentionPlan plan = plan_attention(in, items.data(), merges.data());
  ASSERT_LE(plan.items, items.size());
  ASSERT_LE(plan.partials, kMaxPartials);
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> covered;   // (token, split) -> times
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> partials;  // (token, split) -> partial row
  for (uint32_t i = 0; i < plan.items; ++i) {
    const AttentionItem &item = items[i];
    ASSERT_GE(item.q_begin, in.q_begin[item.seq]);
    ASSERT_LE(item.q_end, in.q_begin[item.seq + 1]);
    ASSERT_LE(item.q_end - item.q_begin, kTileTokens);
    for (uint32_t t = item.q_begin; t < item.q_end; ++t)
      for (uint32_t s = item.split_begin; s < item.split_end; ++s) {
        ++covered[{t, s}];
        if (item.partial != kNoPartial) partials[{t, s}] = item.partial + t - item.q_begin;
      }
  }
  for (uint32_t seq = 0; seq < in.kv_len.size(); ++seq)
    for (uint32_t t = in.q_begin[seq]; t < in.q_begin[seq + 1]; ++t) {
      const uint32_t seen = visible_tokens(in, seq, t - in.q_begin[seq]);
      for (uint32_t s = 0; s * in.split_tokens < seen; ++s) EXPECT_EQ((covered[{t, s}]), 1u) << "token " << t;
    }
  for (uint32_t i = 0; i < plan.merges; ++i)
    for (uint32_t s = 0; s < merges[i].n_partials; ++s)
      EXPECT_EQ((partials[{merges[i].token, s}]), merges[i].first_partial + s * merges[i].stride);
}

TEST(Planner, CoversEveryTokenAndSplitOnce) {
  std::mt19937 random(11);
  for (int round = 0; round < 200; ++round) {
    std::vector<uint32_t> q_begin{0}, kv_len, tree_begin{0};
    const uint32_t seqs = 1 + random() % 6;
    for (uint32_t s = 0; s < seqs; ++s) {
      q_begin.push_back(q_begin.back() + random() % 30);
      kv_len.push_back(random() % 3000);
      tree_begin.push_back(0);
    }
    for (const uint32_t parallelism : {1u, 4u, 64u})
      expect_exact_cover({q_begin, kv_len, tree_begin, {}, 512, parallelism});
  }
}

TEST(Planner, TreesCountWhatTheirBitsShow) {
  const std::vector<uint32_t> q_begin{0, 3}, kv_len{10}, tree_begin{0, 3};
  const std::vector<uint64_t> mask{1, 3, 5};
  const AttentionInputs in{q_begin, kv_len, tree_begin, mask, 512, 1};
  EXPECT_EQ(visible_tokens(in, 0, 0), 11u);
  EXPECT_EQ(visible_tokens(in, 0, 2), 12u);
  expect_exact_cover(in);
}

TEST(HostMemory, TakesTheSmallerOfMachineAndControlGroup) {
  const std::string meminfo = "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  600 kB\n";
  EXPECT_EQ(parse_host_memory(meminfo, "", "").available_bytes, 600u * 1024);
  EXPECT_EQ(parse_host_memory(meminfo, "max\n", "5\n").total_bytes, 1000u * 1024);
  const DeviceMemory limited = parse_host_memory(meminfo, "512000\n", "500000\n");
  EXPECT_EQ(limited.total_bytes, 512000u);
  EXPECT_EQ(limited.available_bytes, 12000u);
  EXPECT_EQ(parse_host_memory(meminfo, "1000\n", "2000\n").available_bytes, 0u);
  EXPECT_EQ(parse_host_memory(meminfo, "9223372036854771712\n", "0\n").available_bytes, 600u * 1024);
  EXPECT_GT(host_memory().available_bytes, 0u);
}

}  // namespace
}  // namespace sluice::graph

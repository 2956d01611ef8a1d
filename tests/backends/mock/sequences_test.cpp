#include "backends/mock/sequences.hpp"

#include <gtest/gtest.h>

namespace sluice::mock {
namespace {

Sequence seen_at(uint64_t n_submit) {
  Sequence s;
  s.tokens = {1, 2, 3}, s.n_prompt = 2, s.last_submit = n_submit;
  return s;
}

TEST(Sequences, AFewAreKeptForever) {
  Sequences all;
  for (uint64_t id = 0; id < 100; ++id) all.at(id) = seen_at(id);
  all.sweep(1'000'000);
  EXPECT_EQ(all.size(), 100u);
  EXPECT_EQ(all.at(5).tokens.size(), 3u);
}

TEST(Sequences, IdleOnesOfManyLoseTheirTokensAndKeepTheirPrompt) {
  Sequences all;
  for (uint64_t id = 0; id <= Sequences::kManySequences; ++id) all.at(id) = seen_at(id);
  const uint64_t now = Sequences::kManySequences + 1;
  all.sweep(now);
  EXPECT_TRUE(all.at(0).tokens.empty());
  EXPECT_EQ(all.at(0).n_prompt, 2u);
  EXPECT_EQ(all.at(now - 1 - Sequences::kKeepSubmits + 1).tokens.size(), 3u);
}

TEST(Sequences, IdleOnesOfTooManyGo) {
  Sequences all;
  for (uint64_t id = 0; id <= Sequences::kTooManySequences; ++id) all.at(id) = seen_at(id);
  all.sweep(Sequences::kTooManySequences + 1);
  EXPECT_LE(all.size(), Sequences::kKeepSubmits + 2);
}

/// A sequence that lost its tokens is still checked by the contexts in the cache.
TEST(Sequences, WithoutTokensTheContextsStillTell) {
  ShadowKv kv(4, 0, 4);
  const uint32_t blocks[] = {0, 1};
  uint64_t context = kEmptyContext;
  for (uint32_t i = 0; i < 6; ++i) {
    context = extend(context, static_cast<int32_t>(10 + i));
    kv.write(i, {static_cast<int32_t>(10 + i), context});
  }
  Sequence forgotten;
  EXPECT_NO_THROW(check_cache(kv, 1, blocks, 6, forgotten));
  EXPECT_EQ(forgotten.tokens, (std::vector<int32_t>{10, 11, 12, 13, 14, 15}));
  Sequence other;
  kv.write(1, {99, 1234});
  EXPECT_THROW(check_cache(kv, 2, blocks, 6, other), std::runtime_error);
}

}  // namespace
}  // namespace sluice::mock

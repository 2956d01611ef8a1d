#include "core/kv/block_pool.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace sluice::kv {
namespace {

constexpr uint32_t kBlockSize = 4;

std::vector<PrefixHash> chain(std::span<const int32_t> tokens, uint64_t salt = 0) {
  std::vector<PrefixHash> hashes;
  PrefixHash hash = prefix_root(salt);
  for (size_t i = 0; i + kBlockSize <= tokens.size(); i += kBlockSize)
    hashes.push_back(hash = prefix_next(hash, tokens.subspan(i, kBlockSize)));
  return hashes;
}

/// Holds blocks for the tokens and publishes the full ones.
std::vector<uint32_t> hold(BlockPool &pool, const std::vector<int32_t> &tokens) {
  const auto hashes = chain(tokens);
  std::vector<uint32_t> table;
  pool.share(hashes, pool.match(hashes, tokens), table);
  const auto needed = static_cast<uint32_t>((tokens.size() + kBlockSize - 1) / kBlockSize);
  EXPECT_TRUE(pool.allocate(needed - static_cast<uint32_t>(table.size()), table));
  for (size_t i = 0; i < hashes.size(); ++i)
    pool.publish(table[i], hashes[i], std::span(tokens).subspan(i * kBlockSize, kBlockSize));
  return table;
}

TEST(BlockPool, HandsOutEachBlockOnce) {
  BlockPool pool(4, kBlockSize);
  std::vector<uint32_t> a;
  std::vector<uint32_t> b;
  ASSERT_TRUE(pool.allocate(3, a));
  EXPECT_FALSE(pool.allocate(2, b)) << "only one is free";
  EXPECT_TRUE(b.empty()) << "a failed allocation takes nothing";
  ASSERT_TRUE(pool.allocate(1, b));
  EXPECT_EQ(pool.free_blocks(), 0U);
  const std::vector<uint32_t> *tables[] = {&a, &b};
  EXPECT_EQ(pool.audit(tables), "");
  pool.free(a);
  EXPECT_EQ(pool.free_blocks(), 3U);
  EXPECT_EQ(pool.used_blocks(), 1U);
}

TEST(BlockPool, AuditNamesLostSharedAndFreedBlocks) {
  BlockPool pool(8, kBlockSize);
  std::vector<uint32_t> a;
  ASSERT_TRUE(pool.allocate(2, a));
  EXPECT_NE(pool.audit({}).find("in 0 tables and has 1 holders"), std::string::npos);
  auto shared = a;
  const std::vector<uint32_t> *both[] = {&a, &shared};
  EXPECT_NE(pool.audit(both).find("in 2 tables and has 1 holders"), std::string::npos);
  const std::vector<uint32_t> stale = {7};
  const std::vector<uint32_t> *with_stale[] = {&a, &stale};
  EXPECT_NE(pool.audit(with_stale).find("block 7 is in 1 tables and has 0 holders"), std::string::npos);
  const std::vector<uint32_t> wild = {99};
  const std::vector<uint32_t> *with_wild[] = {&wild};
  EXPECT_NE(pool.audit(with_wild).find("out of range"), std::string::npos);
}

TEST(BlockPool, APrefixIsFoundWhileItIsHeldAndAfterwards) {
  BlockPool pool(8, kBlockSize);
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  auto first = hold(pool, tokens);
  EXPECT_EQ(pool.match(chain(tokens), tokens), 2U) << "the block that is not full is nobody else's";
  auto second = hold(pool, tokens);
  EXPECT_EQ(second[0], first[0]);
  EXPECT_EQ(second[1], first[1]);
  EXPECT_NE(second[2], first[2]);
  EXPECT_TRUE(pool.is_shared(first[0]));
  const std::vector<uint32_t> *tables[] = {&first, &second};
  EXPECT_EQ(pool.audit(tables), "");
  pool.free(first);
  pool.free(second);
  EXPECT_EQ(pool.cached_blocks(), 2U);
  EXPECT_EQ(pool.used_blocks(), 0U);
  EXPECT_EQ(pool.match(chain(tokens), tokens), 2U);
}

TEST(BlockPool, OtherTokensOtherSaltAndAForgedHashDoNotMatch) {
  BlockPool pool(8, kBlockSize);
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5, 6, 7, 8};
  auto table = hold(pool, tokens);
  auto other = tokens;
  other[5] = 99;
  EXPECT_EQ(pool.match(chain(other), other), 1U);
  EXPECT_EQ(pool.match(chain(tokens, 7), tokens), 0U) << "another owner's";
  EXPECT_EQ(pool.match(chain(tokens), other), 1U) << "the hash agrees, the tokens do not";
}

TEST(BlockPool, EvictsTheLeastRecentlyUsedAndTailsFirst) {
  BlockPool pool(4, kBlockSize);
  const std::vector<int32_t> old = {1, 1, 1, 1, 2, 2, 2, 2};
  const std::vector<int32_t> recent = {3, 3, 3, 3, 4, 4, 4, 4};
  auto a = hold(pool, old);
  pool.free(a);
  auto b = hold(pool, recent);
  pool.free(b);
  std::vector<uint32_t> needed;
  ASSERT_TRUE(pool.allocate(1, needed));
  EXPECT_EQ(pool.match(chain(old), old), 1U) << "its tail went, its head is left";
  EXPECT_EQ(pool.match(chain(recent), recent), 2U);
  ASSERT_TRUE(pool.allocate(1, needed));
  EXPECT_EQ(pool.match(chain(old), old), 0U);
  EXPECT_EQ(pool.match(chain(recent), recent), 2U);
}

TEST(BlockPool, AForkSharesAllAndSplitsWhatItWrites) {
  BlockPool pool(4, kBlockSize);
  std::vector<uint32_t> a, b, c;
  ASSERT_TRUE(pool.allocate(2, a));
  pool.fork(a, b);
  pool.fork(std::span(a).first(1), c);
  EXPECT_EQ(b, a);
  EXPECT_EQ(pool.used_blocks(), 2U) << "a fork takes nothing";
  EXPECT_EQ(pool.holders(a[0]), 3U);
  EXPECT_FALSE(pool.is_writable(a[1]));
  ASSERT_TRUE(pool.split(b[1]));
  EXPECT_NE(b[1], a[1]);
  EXPECT_TRUE(pool.is_writable(a[1]) && pool.is_writable(b[1])) << "the last sharer keeps the block";
  const std::vector<uint32_t> *tables[] = {&a, &b, &c};
  EXPECT_EQ(pool.audit(tables), "");
  ASSERT_TRUE(pool.split(c[0]));
  const auto before = b;
  EXPECT_FALSE(pool.split(b[0])) << "no block is left";
  EXPECT_EQ(b, before);
  pool.free(b);
  EXPECT_EQ(pool.free_blocks(), 1U) << "what only the fork held is free at once";
  EXPECT_EQ(pool.audit(tables), "");
}

TEST(BlockPool, APublishedBlockIsNotWrittenEvenByItsOnlyHolder) {
  BlockPool pool(2, kBlockSize);
  const std::vector<int32_t> tokens = {1, 2, 3, 4};
  auto a = hold(pool, tokens);
  EXPECT_FALSE(pool.is_writable(a[0]));
  ASSERT_TRUE(pool.split(a[0]));
  EXPECT_TRUE(pool.is_writable(a[0]));
  EXPECT_EQ(pool.match(chain(tokens), tokens), 1U) << "it stays for those who look for it";
}

TEST(BlockPool, SurvivesRandomTraffic) {
  BlockPool pool(64, kBlockSize);
  std::vector<std::vector<uint32_t>> tables(16);
  std::vector<const std::vector<uint32_t> *> pointers;
  for (const auto &table : tables) pointers.push_back(&table);
  std::mt19937 random(7);
  uint32_t hits = 0;
  for (int i = 0; i < 20000; ++i) {
    auto &table = tables[random() % tables.size()];
    if (!table.empty() && random() % 3 == 0) {
      auto &block = table[random() % table.size()];
      if (!pool.is_writable(block)) pool.split(block);
    } else if (!table.empty()) {
      pool.free(table);
    } else if (random() % 4 == 0) {
      pool.fork(tables[random() % tables.size()], table);
    } else {
      // Few different tokens, so that prefixes meet often.
      std::vector<int32_t> tokens(1 + random() % 24);
      for (size_t k = 0; k < tokens.size(); ++k) tokens[k] = static_cast<int32_t>(random() % 12 == 0 ? 1 : 0);
      const auto hashes = chain(tokens);
      const uint32_t matched = pool.match(hashes, tokens);
      const auto needed = static_cast<uint32_t>((tokens.size() + kBlockSize - 1) / kBlockSize);
      if (pool.available_blocks() < needed) continue;
      hits += matched;
      table = hold(pool, tokens);
      ASSERT_EQ(table.size(), needed);
    }
    ASSERT_EQ(pool.audit(pointers), "");
  }
  EXPECT_GT(hits, 1000U);
}

}  // namespace
}  // namespace sluice::kv

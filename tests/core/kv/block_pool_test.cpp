#include "core/kv/block_pool.hpp"

#include <gtest/gtest.h>

#include <random>

namespace sluice::kv {
namespace {

TEST(BlockPool, HandsOutEachBlockOnce) {
  BlockPool pool(4);
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
  BlockPool pool(8);
  std::vector<uint32_t> a;
  ASSERT_TRUE(pool.allocate(2, a));
  EXPECT_EQ(pool.audit({}), "2 blocks are lost");
  auto shared = a;
  const std::vector<uint32_t> *both[] = {&a, &shared};
  EXPECT_NE(pool.audit(both).find("in two tables"), std::string::npos);
  const std::vector<uint32_t> stale = {7};
  const std::vector<uint32_t> *with_stale[] = {&a, &stale};
  EXPECT_NE(pool.audit(with_stale).find("free in the pool"), std::string::npos);
  const std::vector<uint32_t> wild = {99};
  const std::vector<uint32_t> *with_wild[] = {&wild};
  EXPECT_NE(pool.audit(with_wild).find("out of range"), std::string::npos);
}

TEST(BlockPool, SurvivesRandomTraffic) {
  BlockPool pool(64);
  std::vector<std::vector<uint32_t>> tables(16);
  std::vector<const std::vector<uint32_t> *> pointers;
  for (const auto &table : tables) pointers.push_back(&table);
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    auto &table = tables[random() % tables.size()];
    const uint32_t free_before = pool.free_blocks();
    const size_t held_before = table.size();
    if (random() % 3 == 0) {
      pool.free(table);
      ASSERT_EQ(pool.free_blocks(), free_before + held_before);
    } else {
      const uint32_t n = static_cast<uint32_t>(random() % 6);
      const bool fits = n <= free_before;
      ASSERT_EQ(pool.allocate(n, table), fits);
      ASSERT_EQ(table.size(), held_before + (fits ? n : 0));
    }
    ASSERT_EQ(pool.audit(pointers), "");
  }
}

}  // namespace
}  // namespace sluice::kv

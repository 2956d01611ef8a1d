// The shadow of the cache: honest hosts pass, planted errors are found.
#include "tests/backends/mock/mock_driver.hpp"

namespace sluice::test {
namespace {

using Ids = std::vector<int32_t>;

/// Runs a step that must be refused; returns the words.
std::string refusal(Mock &m, MockSeq &s) {
  MockStep step;
  sluice_ticket ticket = 0;
  EXPECT_EQ(m.submit(step.add(s, 1), &ticket), SLUICE_E_INVALID_ARGUMENT);
  return m.status.text();
}

TEST(MockKv, AnOverwrittenBlockIsFound) {
  Mock m;
  MockSeq a = m.seq(1, {10, 11, 12, 13, 14, 15}), b = m.seq(2, {20, 21, 22, 23, 24});
  m.answer(a, 2);
  b.blocks[0] = a.blocks[1];  // the host gives away a block that is in use
  m.answer(b, 1);
  EXPECT_EQ(refusal(m, a),
            "sequence 1: block 1 slot 0 (position 4) holds token 20, expected 14; the block was lost, "
            "shared wrongly or overwritten");
}

TEST(MockKv, ASwappedBlockTableIsFound) {
  Mock m;
  MockSeq a = m.seq(1, {10, 11, 12, 13, 14, 15, 16, 17, 18});
  m.answer(a, 1);
  std::swap(a.blocks[0], a.blocks[1]);
  EXPECT_NE(refusal(m, a).find("block 1 slot 0 (position 0) holds token 14, expected 10"), std::string::npos);
}

TEST(MockKv, ABlockNeverWrittenIsFound) {
  Mock m;
  MockSeq a = m.seq(1, {10, 11, 12, 13, 14});
  m.answer(a, 1);
  a.blocks[0] = 60;
  EXPECT_NE(refusal(m, a).find("block 60 slot 0 (position 0) holds nothing, expected 10"), std::string::npos);
}

TEST(MockKv, ASharedPrefixIsFineAndAWrongOneIsNot) {
  Mock m;
  MockSeq a = m.seq(1, {10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
  m.answer(a, 1);
  MockSeq b = m.seq(2, {10, 11, 12, 13, 14, 15, 16, 17, 30});  // two full blocks in common
  b.blocks[0] = a.blocks[0], b.blocks[1] = a.blocks[1], b.cached = 8;
  EXPECT_EQ(m.answer(b, 2), (Ids{31, 32}));
  MockSeq c = m.seq(3, {50, 51, 52, 53, 14, 15, 16, 17, 30});  // its second block follows another first one
  MockStep first;
  m.run(first.add(c, 4));
  c.blocks[1] = a.blocks[1], c.cached = 8;
  EXPECT_EQ(refusal(m, c),
            "sequence 3: block 1 slot 0 (position 4) holds token 14, computed after other tokens than "
            "those before it now; the block was lost, shared wrongly or overwritten");
}

TEST(MockKv, WritingIntoASharedBlockIsFound) {
  Mock m;
  MockSeq a = m.seq(1, {10, 11, 12, 13, 14, 15});
  m.answer(a, 1);
  MockSeq b = a;  // a fork without copy-on-write: both fill slot 2 of block 1
  b.id = 2;
  b.tokens.back() = 40;
  MockStep both;
  sluice_ticket ticket = 0;
  both.add(a, 1).add(b, 1);
  EXPECT_EQ(m.submit(both, &ticket), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(m.status.text(), "slots[1]: block 1 slot 2 is written twice in the step; a block is shared wrongly");
  MockStep first, second;
  m.run(first.add(a, 1));
  m.run(second.add(b, 1));
  EXPECT_NE(refusal(m, a).find("block 1 slot 2 (position 6) holds token 40, expected 16"), std::string::npos);
}

TEST(MockKv, CopyOnWriteMakesAForkRight) {
  Mock m;
  MockSeq a = m.seq(1, {10, 11, 12, 13, 14, 15});
  m.answer(a, 1);
  MockSeq b = a;
  b.id = 2, b.tokens.back() = 40, b.blocks[1] = 50;
  ASSERT_EQ(m.kv_op(SLUICE_KV_COPY, a.blocks[1], 50), SLUICE_OK);
  MockStep both;
  EXPECT_EQ(m.run(both.add(a, 1).add(b, 1)), (Ids{17, 41}));
  EXPECT_EQ(m.answer(a, 1), (Ids{18}));
  EXPECT_EQ(m.answer(b, 1), (Ids{42}));
}

TEST(MockKv, SwapOutAndInBringsTheSameTokensBack) {
  Mock m;
  MockSeq a = m.seq(1, {10, 11, 12, 13, 14, 15}), thief = m.seq(2, {1, 2, 3, 4, 5, 6, 7});
  m.answer(a, 1);
  ASSERT_EQ(m.kv_op(SLUICE_KV_SWAP_OUT, a.blocks[0], 3), SLUICE_OK);
  ASSERT_EQ(m.kv_op(SLUICE_KV_SWAP_OUT, a.blocks[1], 7), SLUICE_OK);
  thief.blocks = a.blocks;
  m.answer(thief, 2);
  a.blocks[0] = 61, a.blocks[1] = 60;
  ASSERT_EQ(m.kv_op(SLUICE_KV_SWAP_IN, 3, 61), SLUICE_OK);
  MockSeq too_early = a;
  EXPECT_NE(refusal(m, too_early).find("block 60 slot 0 (position 4) holds nothing, expected 14"), std::string::npos);
  ASSERT_EQ(m.kv_op(SLUICE_KV_SWAP_IN, 7, 60), SLUICE_OK);
  EXPECT_EQ(m.answer(a, 2), (Ids{17, 18}));
}

TEST(MockKv, RefusesOperationsOutOfRange) {
  Mock m;
  EXPECT_EQ(m.kv_op(SLUICE_KV_COPY, 64, 0), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(m.kv_op(SLUICE_KV_SWAP_OUT, 0, 16), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(m.kv_op(SLUICE_KV_SWAP_IN, 16, 0), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(m.kv_op(SLUICE_KV_MOVE_SLOTS, 256, 0), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(m.kv_op(SLUICE_KV_SEQ_FORK, 0, 0), SLUICE_E_UNSUPPORTED);
  EXPECT_EQ(m.kv_op(SLUICE_KV_MOVE_SLOTS, 255, 0), SLUICE_OK);
}

TEST(MockKv, CheckCanBeTurnedOff) {
  Mock m(PluginConfig::Values{{"check_kv", "false"}});
  MockSeq a = m.seq(1, {10, 11, 12, 13, 14});
  m.answer(a, 1);
  a.blocks[0] = 60;
  EXPECT_EQ(m.answer(a, 1), (Ids{16}));
}

/// Many sequences come, share, fork and go over few blocks; an honest host is never blamed, and a host that makes one
/// mistake is, at the latest when the sequence runs again.
TEST(MockKv, FindsEveryPlantedSwapAndBlamesNoHonestHost) {
  uint64_t state = 5;
  const auto any = [&](uint32_t n) { return static_cast<uint32_t>(mock::mix(++state) % n); };
  for (int round = 0; round < 200; ++round) {
    Mock m(PluginConfig::Values{{"script", "hash"}});
    std::vector<MockSeq> seqs;
    for (uint64_t id = 1; id <= 5; ++id) {
      Ids prompt;
      for (uint32_t n = 5 + any(20); n > 0; --n) prompt.push_back(static_cast<int32_t>(3 + any(500)));
      seqs.push_back(m.seq(id, prompt, 48));
    }
    for (int step = 0; step < 12; ++step) {
      MockStep batch;
      for (MockSeq &s : seqs) {
        if (any(3) == 0) continue;
        const auto left = static_cast<uint32_t>(s.tokens.size()) - s.cached;
        if (s.cached + 8 < 48) batch.add(s, std::min(left, 1 + any(6)));
      }
      if (batch.parts.empty()) continue;
      ASSERT_NO_THROW(m.run(batch)) << m.status.text();
    }
    MockSeq &victim = seqs[any(5)], &other = seqs[any(5)];
    if (victim.cached == 0 || other.cached == 0 || victim.id == other.id) continue;
    victim.blocks[any((victim.cached + kBlockSize - 1) / kBlockSize)] = other.blocks[0];
    MockStep next;
    sluice_ticket ticket = 0;
    EXPECT_EQ(m.submit(next.add(victim, 1), &ticket), SLUICE_E_INVALID_ARGUMENT) << "round " << round;
  }
}

}  // namespace
}  // namespace sluice::test

#include "core/engine/plan.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "core/engine/sched_table.hpp"

namespace sluice::engine {
namespace {

constexpr uint32_t kCapacity = 8;
constexpr uint32_t kMaxSeqs = 4;

/// Two residents (0 decodes, 1 in mid-prefill) and two waiting (2 new, 3 preempted); 4..7 are nobody.
class PlanTest : public ::testing::Test {
 protected:
  PlanTest() : table_(kCapacity), buffers_(kCapacity, kMaxSeqs) {
    for (sluice_seq_ref ref = 0; ref < 4; ++ref) {
      auto request = std::make_shared<request::Request>();
      request->id = ref + 1;
      request->prompt.assign(10, 1);
      request->max_new = 20;
      sequences_[ref].request = request;
      sequences_[ref].tokens = request->prompt;
      sequences_[ref].state = ref < 2 ? SLUICE_SEQ_RESIDENT : SLUICE_SEQ_WAITING;
    }
    sequences_[0].tokens.push_back(5);
    sequences_[0].computed = 10;
    sequences_[1].computed = 4;
    sequences_[3].tokens.push_back(5);
    for (sluice_seq_ref ref = 0; ref < 4; ++ref) {
      table_.arrive(ref, sequences_[ref]);
      table_.refresh(ref, sequences_[ref], sequences_[ref].length() - sequences_[ref].computed);
    }
    buffers_.resident = {0, 1};
    buffers_.waiting = {2, 3};
    buffers_.view.token_budget = 16;
    buffers_.view.max_seqs = kMaxSeqs;
    buffers_.reset();
  }

  void act(uint8_t op, sluice_seq_ref ref, uint32_t tokens = 0) {
    auto &plan = buffers_.plan;
    plan.op[plan.n_acts] = op;
    plan.ref[plan.n_acts] = ref;
    plan.tokens[plan.n_acts++] = tokens;
  }
  std::string check() {
    const auto wrong = check_plan(buffers_, *table_.abi());
    for (const auto seen : buffers_.seen) EXPECT_EQ(seen, 0) << "scratch is left clean";
    return wrong;
  }

  Sequence sequences_[4];
  SchedTable table_;
  PlanBuffers buffers_;
};

TEST_F(PlanTest, TakesAFittingPlan) {
  act(SLUICE_ACT_RUN, 0, 1);
  act(SLUICE_ACT_RUN, 1, 6);
  act(SLUICE_ACT_RUN, 2, 9);
  act(SLUICE_ACT_REJECT, 3);  // has run before it was preempted
  EXPECT_NE(check().find("REJECT of ref 3, which has run"), std::string::npos);
  buffers_.plan.n_acts = 3;
  EXPECT_EQ(check(), "");
}

TEST_F(PlanTest, RefusesEachKindOfGarbage) {
  struct Case {
    const char *expected;
    std::function<void()> make;
  };
  const Case cases[] = {
      {"is nobody", [&] { act(SLUICE_ACT_RUN, 4, 1); }},
      {"is nobody", [&] { act(SLUICE_ACT_RUN, 0xFFFFFFFF, 1); }},
      {"has two acts", [&] { act(SLUICE_ACT_RUN, 1, 1), act(SLUICE_ACT_RUN, 1, 1); }},
      {"it has 1 pending", [&] { act(SLUICE_ACT_RUN, 0, 2); }},
      {"with 0 tokens", [&] { act(SLUICE_ACT_RUN, 0, 0); }},
      {"unknown operation 77", [&] { act(77, 0, 1); }},
      {"a swap, but", [&] { act(SLUICE_ACT_SWAP_OUT, 0); }},
      {"SWAP_IN of ref 0", [&] { act(SLUICE_ACT_SWAP_IN, 0); }},
      {"PREEMPT of ref 2", [&] { act(SLUICE_ACT_PREEMPT, 2); }},
      {"the step's budget is 16",
       [&] { act(SLUICE_ACT_RUN, 1, 6), act(SLUICE_ACT_RUN, 2, 10), act(SLUICE_ACT_RUN, 3, 11); }},
      {"drafts", [&] { act(SLUICE_ACT_RUN, 0, 1), buffers_.plan.drafts[0] = 3; }},
      {"somebody is runnable", [] {}},
      {"acts, there is room", [&] { buffers_.plan.n_acts = 1000; }},
      {"victims, there is room", [&] { act(SLUICE_ACT_RUN, 0, 1), buffers_.plan.n_victims = 1000; }},
      {"victim 0", [&] {
         act(SLUICE_ACT_RUN, 0, 1);
         buffers_.plan.n_victims = 1;
         buffers_.plan.victims[0] = 500;
       }},
  };
  for (const auto &c : cases) {
    buffers_.reset();
    c.make();
    const std::string expected = c.expected;
    EXPECT_NE(check().find(expected), std::string::npos) << expected << " in: " << check();
  }
}

TEST_F(PlanTest, AnEmptyPlanIsFineWhenItSaysWhenToWake) {
  buffers_.plan.wake_at_ns = 5;
  EXPECT_EQ(check(), "");
}

TEST_F(PlanTest, TooManySequences) {
  buffers_.view.max_seqs = 1;
  act(SLUICE_ACT_RUN, 0, 1);
  act(SLUICE_ACT_RUN, 1, 1);
  EXPECT_NE(check().find("the step takes 1"), std::string::npos);
}

TEST_F(PlanTest, SwapsNeedHostSpaceAndAFittingState) {
  buffers_.view.host_total = 10;
  act(SLUICE_ACT_SWAP_OUT, 0);
  EXPECT_EQ(check(), "");
  act(SLUICE_ACT_SWAP_OUT, 2);
  EXPECT_NE(check().find("SWAP_OUT of ref 2 in state 1"), std::string::npos);
  buffers_.reset();
  table_.flags[0] = SLUICE_SEQF_NO_PREEMPT;
  act(SLUICE_ACT_SWAP_OUT, 0);
  EXPECT_NE(check().find("SWAP_OUT of ref 0"), std::string::npos);
  buffers_.reset();
  sequences_[1].state = SLUICE_SEQ_SWAPPED;
  table_.refresh(1, sequences_[1], 6);
  act(SLUICE_ACT_SWAP_IN, 1);
  EXPECT_EQ(check(), "");
}

TEST_F(PlanTest, SomebodySwappedOutIsSomebodyWhoCouldRun) {
  buffers_.resident.clear();
  buffers_.waiting.clear();
  buffers_.swapped = {1};
  EXPECT_NE(check().find("somebody is runnable"), std::string::npos);
  buffers_.moving = {0};
  EXPECT_EQ(check(), "") << "an end of its move brings the next plan";
}

TEST_F(PlanTest, FallbackBringsBackWhoWasSwappedOutBeforeAnybodyNew) {
  buffers_.view.host_total = 10;
  sequences_[1].state = SLUICE_SEQ_SWAPPED;
  table_.refresh(1, sequences_[1], 6);
  buffers_.resident = {0};
  buffers_.swapped = {1};
  plan_fallback(buffers_, *table_.abi());
  EXPECT_EQ(check(), "");
  ASSERT_EQ(buffers_.plan.n_acts, 2U);
  EXPECT_EQ(buffers_.plan.op[1], SLUICE_ACT_SWAP_IN);
  EXPECT_EQ(buffers_.plan.ref[1], 1U);
}

TEST_F(PlanTest, FallbackRunsDecodesFirstWithinTheBudget) {
  plan_fallback(buffers_, *table_.abi());
  EXPECT_EQ(check(), "");
  ASSERT_EQ(buffers_.plan.n_acts, 3U);
  EXPECT_EQ(buffers_.plan.ref[0], 0U);
  EXPECT_EQ(buffers_.plan.tokens[0], 1U);
  EXPECT_EQ(buffers_.plan.ref[1], 1U);
  EXPECT_EQ(buffers_.plan.tokens[1], 6U);
  EXPECT_EQ(buffers_.plan.ref[2], 2U);
  EXPECT_EQ(buffers_.plan.tokens[2], 9U) << "what the budget leaves";
  EXPECT_EQ(buffers_.plan.victims[0], 1U) << "the latest goes first";
}

}  // namespace
}  // namespace sluice::engine

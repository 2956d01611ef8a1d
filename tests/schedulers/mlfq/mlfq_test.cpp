#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "tests/schedulers/mlfq/world.hpp"

namespace sluice::mlfq {
namespace {

std::string explained(const Policy &policy, sluice_seq_ref r) {
  std::string text(300, '#');
  text.resize(policy.explain(r, text.data(), 300));
  return text;
}
bool runs(const Acts &acts, sluice_seq_ref r) {
  return std::any_of(acts.begin(), acts.end(), [&](const Act &a) { return a.op == SLUICE_ACT_RUN && a.ref == r; });
}
size_t count(const Acts &acts, uint8_t op) {
  return static_cast<size_t>(std::count_if(acts.begin(), acts.end(), [&](const Act &a) { return a.op == op; }));
}

TEST(Mlfq, ANewcomerSkipsLevelsThatItsPrefillWouldUseUp) {
  World w;
  const auto p = w.policy();  // quanta 20, 40, 80 ms; a step takes 10 ms + 0.1 ms a token
  EXPECT_EQ(explained(*p, w.waiting(*p, 100)).substr(0, 13), "level 1 of 12");
  EXPECT_EQ(explained(*p, w.waiting(*p, 101)).substr(0, 13), "level 2 of 12");
  EXPECT_EQ(explained(*p, w.waiting(*p, 500)).substr(0, 13), "level 3 of 12");
  const auto naive = w.policy({{"variant", "naive"}, {"quantum_ms", "20"}});
  EXPECT_EQ(explained(*naive, w.waiting(*naive, 500)).substr(0, 13), "level 1 of 12");
}

TEST(Mlfq, WhoUsedUpItsQuantumSinksAndGivesItsSeatToNewcomers) {
  World w(64, 2);
  const auto p = w.policy();
  const auto a = w.resident(*p, 32, 25), b = w.resident(*p, 32, 25);
  EXPECT_EQ(explained(*p, a).substr(0, 33), "level 2 of 12, 0.0 of 40.0 ms use");
  const auto fresh = w.waiting(*p, 20);
  EXPECT_EQ(w.plan(*p), (Acts{run(a, 1), run(fresh, 20)})) << "two seats: the newcomer's, and the first of level 2";
  w.commit(*p, a, 30);
  EXPECT_TRUE(runs(w.plan(*p), a)) << "its quantum lasts";
  w.commit(*p, a, 30);
  EXPECT_FALSE(runs(w.plan(*p), a));
  EXPECT_TRUE(runs(w.plan(*p), b));
}

TEST(Mlfq, EverybodyWhoDecodesHasItsTokenBeforeAPromptGetsAChunk) {
  World w(64, 3);
  w.view.token_budget = 50;
  const auto p = w.policy();
  const auto low = w.resident(*p, 32, 25);
  const auto first = w.waiting(*p, 100), second = w.waiting(*p, 100);
  const auto third = w.waiting(*p, 100);
  EXPECT_EQ(w.plan(*p), (Acts{run(first, 50)})) << "all seats are claimed by the first level";
  for (const auto r : {second, third}) w.state[r] = 0, w.tell(*p, SLUICE_EV_CANCEL, r);
  EXPECT_EQ(w.plan(*p), (Acts{run(low, 1), run(first, 49)})) << "what the decode leaves, though it is the lowest";
  const auto unguarded = w.policy({{"variant", "unguarded"}, {"quantum_ms", "20"}});
  for (const auto r : {first, low}) w.tell(*unguarded, SLUICE_EV_ARRIVE, r, 100);
  w.commit(*unguarded, low, 25);
  EXPECT_EQ(w.plan(*unguarded), (Acts{run(first, 50)}));
}

TEST(Mlfq, WhoPausesForAlphaIsPromotedForTheQuantumOfItsOwnLevelAndReturns) {
  World w(64, 1);
  const auto p = w.policy({{"quantum_ms", "20"}, {"alpha_s", "5"}});
  const auto old = w.resident(*p, 32, 25);
  const auto other = w.waiting(*p, 20);
  EXPECT_TRUE(runs(w.plan(*p), other));
  w.view.now_ns += 4999 * kMs;
  EXPECT_FALSE(runs(w.plan(*p), old));
  w.view.now_ns += 2 * kMs;
  w.plan(*p);
  EXPECT_EQ(explained(*p, old).substr(0, 24), "level 1 of 12 (promoted)");
  w.tell(*p, SLUICE_EV_CANCEL, other), w.state[other] = 0;
  w.waiting(*p, 20);
  EXPECT_TRUE(runs(w.plan(*p), old)) << "first come, first served within the level";
  w.commit(*p, old, 30);
  EXPECT_TRUE(runs(w.plan(*p), old)) << "it has the 40 ms of level 2";
  w.commit(*p, old, 30);
  EXPECT_EQ(explained(*p, old).substr(0, 33), "level 2 of 12, 0.0 of 40.0 ms use") << "back where it was";
}

TEST(Mlfq, PromotesNoMoreThanTwoInAStep) {
  World w(64, 1);
  const auto p = w.policy({{"quantum_ms", "20"}, {"alpha_s", "1"}});
  std::vector<sluice_seq_ref> all;
  for (int i = 0; i < 5; ++i) all.push_back(w.resident(*p, 16, 25));
  w.view.now_ns += 2000 * kMs;
  const auto promoted = [&] {
    return std::count_if(all.begin(), all.end(),
                         [&](sluice_seq_ref r) { return explained(*p, r).find("promoted") != std::string::npos; });
  };
  w.plan(*p);
  EXPECT_EQ(promoted(), 2);
  w.plan(*p);
  EXPECT_EQ(promoted(), 4);
}

TEST(Mlfq, LowerLevelsLeaveTheDeviceForANewcomerAndComeBackWhenTheirTurnComes) {
  World w(64, 2);
  const auto p = w.policy();
  const auto deep = w.resident(*p, 800, 25), deeper = w.resident(*p, 700, 25);
  w.commit(*p, deeper, 45);  // third level
  ASSERT_EQ(w.view.device_free, 6U);
  const auto fresh = w.waiting(*p, 100);
  EXPECT_EQ(w.plan(*p), (Acts{swap_out(deeper), run(deep, 1), run(fresh, 100)}));
  w.swapped(deeper);
  w.tell(*p, SLUICE_EV_CANCEL, fresh), w.state[fresh] = 0;
  EXPECT_EQ(w.plan(*p), (Acts{run(deep, 1), swap_in(deeper)}));
}

TEST(Mlfq, WithoutHostSpaceNobodyIsMadeToRecomputeForANewcomer) {
  World w(64, 2);
  w.setup.can_swap = 0, w.view.host_total = w.view.host_free = 0;
  const auto p = w.policy();
  const auto a = w.resident(*p, 800, 25), b = w.resident(*p, 700, 25);
  w.waiting(*p, 200);
  EXPECT_EQ(w.plan(*p), (Acts{run(a, 1), run(b, 1)}));
}

TEST(Mlfq, NobodyNewBeginsWhileHostSpaceIsLow) {
  World w(64, 2);
  const auto p = w.policy();
  const auto a = w.resident(*p, 32, 25), b = w.resident(*p, 32, 25);
  w.waiting(*p, 20);
  w.view.host_free = 39;  // of 400
  EXPECT_EQ(w.plan(*p), (Acts{run(a, 1), run(b, 1)}));
  w.view.host_free = 41;
  EXPECT_EQ(w.plan(*p).size(), 2U);
  EXPECT_FALSE(runs(w.plan(*p), b));
}

TEST(Mlfq, SwapsInNoMoreThanHalfOfWhatTheBusCarriesInAStep) {
  World w(64, 8);
  const auto p = w.policy();
  w.resident(*p, 16, 25);
  for (int i = 0; i < 4; ++i) w.swapped(w.resident(*p, 160, 25));  // ten blocks, 10,000 bytes
  w.plan(*p);                          // learns what a step takes: 10.1 ms
  w.view.swap_in_bytes_per_s = 4.1e6;  // half a step carries 20,705 bytes
  EXPECT_EQ(count(w.plan(*p), SLUICE_ACT_SWAP_IN), 2U);
  w.view.swap_in_bytes_per_s = 1e3;
  EXPECT_EQ(count(w.plan(*p), SLUICE_ACT_SWAP_IN), 1U) << "one at least, so that a slow bus stops nobody";
  w.view.swap_in_bytes = 10'000;
  EXPECT_EQ(count(w.plan(*p), SLUICE_ACT_SWAP_IN), 0U) << "but not a second while it moves";
}

TEST(Mlfq, ResidentsFillSeatsWhoseOwnersAreStillOnTheHost) {
  World w(64, 2);
  const auto p = w.policy();
  const auto top = w.resident(*p, 32, 25), next = w.resident(*p, 32, 25), last = w.resident(*p, 32, 25);
  w.swapped(top), w.swapped(next);
  w.plan(*p);  // learns what a step takes, and with it how much may be swapped in
  const auto acts = w.plan(*p);
  EXPECT_TRUE(runs(acts, last));
  EXPECT_EQ(count(acts, SLUICE_ACT_SWAP_IN), 2U);
}

TEST(Mlfq, SomebodyRunsEvenWhenBothPoolsAreFull) {
  World w(64, 2);
  const auto p = w.policy();
  const auto a = w.resident(*p, 800, 25), b = w.resident(*p, 800, 25);
  ASSERT_EQ(w.view.device_free, 0U);
  w.view.host_free = 0;
  const auto acts = w.plan(*p);
  EXPECT_EQ(acts, (Acts{run(a, 1)}));
  EXPECT_EQ(w.victims, (std::vector<sluice_seq_ref>{b}));
}

TEST(Mlfq, FeedbackIsOffWhileOutputLengthsAreAlike) {
  World w(4096, 1);
  const auto p = w.policy({{"quantum_ms", "20"}, {"length_window", "100"}});
  const auto old = w.resident(*p, 32, 25);
  const auto fresh = w.waiting(*p, 20);
  EXPECT_TRUE(runs(w.plan(*p), fresh)) << "nothing is known yet";
  for (int i = 0; i < 99; ++i) w.finish(*p, w.resident(*p, 16), 100);
  EXPECT_TRUE(p->is_feedback_on()) << "too few to tell";
  w.finish(*p, w.resident(*p, 16), 100);
  EXPECT_FALSE(p->is_feedback_on());
  EXPECT_TRUE(runs(w.plan(*p), old)) << "as first come, first served has it";
  for (int i = 0; i < 200; ++i) w.finish(*p, w.resident(*p, 16), i % 10 == 0 ? 1000 : 10);
  EXPECT_TRUE(p->is_feedback_on());
  EXPECT_TRUE(runs(w.plan(*p), fresh));
}

/// Whatever the state, as long as neither seats nor blocks are short.
TEST(Mlfq, WithoutContentionItsPlanIsThatOfFcfsToTheBit) {
  std::mt19937 random(5);
  for (int round = 0; round < 500; ++round) {
    World w(64, 16);
    w.view.device_free = w.view.device_total = 2000;
    w.view.token_budget = 64 + random() % 400;
    const auto p = w.policy();
    const auto fcfs = w.fcfs();
    const uint32_t n = random() % 17;
    for (uint32_t i = 0; i < n; ++i) {
      if (random() % 3 == 0) {
        w.waiting(*p, 1 + random() % 300);
        continue;
      }
      const auto r = w.resident(*p, 1 + random() % 300, random() % 60);
      if (random() % 3 == 0) w.pending[r] = 1 + random() % 100, w.generated[r] = 0;
      if (random() % 5 == 0) w.pending[r] = 0;
      w.wish[r] = random() % 3;
    }
    w.view.now_ns += random() % 100 * 1000 * kMs;
    EXPECT_EQ(w.plan(*p), w.plan(*fcfs));
    const auto victims = w.victims;
    const uint64_t wake = w.wake_at_ns;
    w.plan(*p);
    EXPECT_EQ(w.victims, victims);
    EXPECT_EQ(w.wake_at_ns, wake);
  }
}

/// 256 run; ten thousand wait in line and more than a thousand pause. A plan looks at those who run and who take part
/// in a change, whoever else is there.
TEST(Mlfq, TheWorkOfAPlanDoesNotGrowWithTheQueue) {
  uint64_t most[2] = {0, 0};
  for (const int many : {0, 1}) {
    World w(60'000, 256);
    w.view.device_free = w.view.device_total = 4000, w.view.host_free = w.view.host_total = 100'000;
    w.view.watermark = 256;
    const auto p = w.policy();
    for (int i = 0; i < 300; ++i) w.resident(*p, 160, 25 + i % 7 * 100);
    for (int i = 0; i < 1000; ++i) w.swapped(w.resident(*p, 160, 25 + i % 7 * 100));
    for (int i = 0; i < (many == 0 ? 1000 : 50'000); ++i) w.waiting(*p, 1 + static_cast<uint32_t>(i) % 400);
    for (const bool low : {false, true}) {
      w.view.host_free = low ? 9000 : 90'000;
      w.plan(*p);
      most[many] = std::max(most[many], p->looked_at());
    }
  }
  EXPECT_EQ(most[0], most[1]) << "fifty times as many in the queue";
  EXPECT_LE(most[1], 2000U);
}

TEST(Mlfq, AStateThatWasSavedGoesOnAlike) {
  World w(64, 2);
  const auto p = w.policy();
  for (int i = 0; i < 20; ++i) w.resident(*p, 16, static_cast<uint32_t>(25 + 13 * i % 200));
  for (int i = 0; i < 5; ++i) w.waiting(*p, static_cast<uint32_t>(50 + 70 * i));
  std::vector<unsigned char> state(p->state_bytes());
  p->save(state.data());
  const auto q = w.policy();
  ASSERT_EQ(q->state_bytes(), state.size());
  q->load(state.data());
  for (int i = 0; i < 30; ++i) {
    const auto acts = w.plan(*p);
    ASSERT_EQ(w.plan(*q), acts);
    w.view.now_ns += 5000 * kMs;
    for (const Act &act : acts) {
      if (act.op != SLUICE_ACT_RUN || w.state[act.ref] != SLUICE_SEQ_RESIDENT) continue;
      w.last_run_ns[act.ref] = w.view.now_ns;
      for (auto *policy : {p.get(), q.get()}) policy->on_event({SLUICE_EV_COMMIT, act.ref, 1, 1, 30 * kMs});
    }
  }
}

TEST(Mlfq, ABlockedSequenceIsOutOfTheQueueUntilItIsTold) {
  World w(64, 1);
  const auto p = w.policy();
  const auto blocked = w.waiting(*p, 20), other = w.waiting(*p, 20);
  w.state[blocked] = SLUICE_SEQ_BLOCKED;
  w.resident(*p, 16, 25);
  EXPECT_TRUE(runs(w.plan(*p), other));
  w.state[blocked] = SLUICE_SEQ_WAITING;
  w.tell(*p, SLUICE_EV_UNBLOCKED, blocked);
  w.finish(*p, other, 5);
  EXPECT_TRUE(runs(w.plan(*p), blocked));
}

}  // namespace
}  // namespace sluice::mlfq

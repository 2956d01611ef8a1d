#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <set>

#include "tests/support/loaded_plugin.hpp"

namespace {
using namespace sluice::test;

struct Act {
  uint8_t op;
  sluice_seq_ref ref;
  uint32_t tokens, drafts;
  bool operator==(const Act &) const = default;
};
std::ostream &operator<<(std::ostream &os, const Act &a) {
  return os << "{op " << int(a.op) << " ref " << a.ref << " tokens " << a.tokens << " drafts " << a.drafts << "}";
}
Act run(sluice_seq_ref r, uint32_t tokens, uint32_t drafts = 0) { return {SLUICE_ACT_RUN, r, tokens, drafts}; }
Act preempt(sluice_seq_ref r) { return {SLUICE_ACT_PREEMPT, r, 0, 0}; }
Act swap_out(sluice_seq_ref r) { return {SLUICE_ACT_SWAP_OUT, r, 0, 0}; }
Act swap_in(sluice_seq_ref r) { return {SLUICE_ACT_SWAP_IN, r, 0, 0}; }

constexpr uint32_t kBlockSize = 16;
uint32_t blocks_of(uint64_t tokens) { return static_cast<uint32_t>((tokens + kBlockSize - 1) / kBlockSize); }

/// A table, a view and the policy, all by hand.
class Fcfs {
 public:
  explicit Fcfs(const PluginConfig::Values &options = {}, uint32_t capacity = 64) : capacity_(capacity) {
    for (auto *column : {&computed, &generated, &in_flight, &pending, &width, &device_blocks, &exclusive_blocks, &wish,
                         &flags, &prompt_len, &max_new, &host_blocks})
      column->assign(capacity, 0);
    first_miss_hash.assign(capacity, 0), probed_step.assign(capacity, 0);
    state.assign(capacity, SLUICE_SEQ_WAITING);
    width.assign(capacity, 1);
    table.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_table, probed_step);
    table.capacity = capacity;
    table.state = state.data(), table.computed = computed.data(), table.generated = generated.data();
    table.in_flight = in_flight.data(), table.pending = pending.data(), table.width = width.data();
    table.device_blocks = device_blocks.data(), table.exclusive_blocks = exclusive_blocks.data();
    table.draft_wish = wish.data(), table.flags = flags.data();
    table.prompt_len = prompt_len.data(), table.max_new = max_new.data();
    table.host_blocks = host_blocks.data();
    table.first_miss_hash = first_miss_hash.data(), table.probed_step = probed_step.data();
    view.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_view, swap_out_bytes_per_s);
    view.token_budget = 256, view.max_seqs = 16, view.max_prefills = 4, view.block_size = kBlockSize;
    view.device_total = view.device_free = 1000;
    const PluginConfig config(desc_, options);
    sluice_sched_setup setup{};
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_setup, host);
    setup.max_seqs = 64, setup.token_budget = 4096, setup.waiting_window = capacity, setup.table = &table;
    setup.can_swap = 1, setup.host = &services;
    services.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_host, probe_prefix);
    services.ctx = this;
    services.swap_time_ns = [](void *self, uint32_t blocks, int32_t) {
      return static_cast<Fcfs *>(self)->swap_block_ns * blocks;
    };
    services.recompute_time_ns = [](void *self, sluice_seq_ref r) {
      return uint64_t{1'000} * static_cast<Fcfs *>(self)->computed[r];
    };
    PluginStatus status;
    if (vtbl().create(&host_.api, config.handle(), &setup, &policy_, status) != SLUICE_OK)
      throw std::runtime_error(status.text());
  }
  ~Fcfs() { vtbl().destroy(policy_); }

  /// A resident that has `cached` tokens of KV and still `to_feed` tokens; 1 = it decodes.
  sluice_seq_ref resident(uint32_t cached, uint32_t to_feed) {
    const sluice_seq_ref r = next_++;
    state[r] = SLUICE_SEQ_RESIDENT, computed[r] = cached, pending[r] = to_feed;
    prompt_len[r] = cached + to_feed, max_new[r] = 100;
    device_blocks[r] = exclusive_blocks[r] = blocks_of(cached);
    residents.push_back(r);
    return r;
  }
  sluice_seq_ref swapped(uint32_t cached) {
    const sluice_seq_ref r = next_++;
    state[r] = SLUICE_SEQ_SWAPPED, computed[r] = cached, pending[r] = 1, host_blocks[r] = blocks_of(cached);
    outside.push_back(r);
    return r;
  }
  sluice_seq_ref waiting(uint32_t prompt, uint32_t longest_answer = 100) {
    const sluice_seq_ref r = next_++;
    pending[r] = prompt_len[r] = prompt, max_new[r] = longest_answer;
    queue.push_back(r);
    return r;
  }

  std::vector<Act> plan() {
    view.resident = residents.data(), view.n_resident = static_cast<uint32_t>(residents.size());
    view.waiting = queue.data(), view.n_waiting = view.n_waiting_total = static_cast<uint32_t>(queue.size());
    view.swapped = outside.data(), view.n_swapped = static_cast<uint32_t>(outside.size());
    const uint32_t room = view.n_resident + view.n_waiting + view.n_swapped + view.max_seqs;
    std::vector<uint8_t> op(room);
    std::vector<sluice_seq_ref> ref(room), victim(room);
    std::vector<uint32_t> tokens(room), drafts(room);
    sluice_sched_plan p{};
    p.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_plan, wake_at_ns);
    p.capacity = p.victim_capacity = room;
    p.op = op.data(), p.ref = ref.data(), p.tokens = tokens.data(), p.drafts = drafts.data(), p.victims = victim.data();
    PluginStatus status;
    EXPECT_EQ(vtbl().plan(policy_, &view, &p, status), SLUICE_OK) << status.text();
    victims.assign(victim.begin(), victim.begin() + p.n_victims);
    wake_at_ns = p.wake_at_ns;
    std::vector<Act> acts;
    for (uint32_t i = 0; i < p.n_acts; ++i) acts.push_back({op[i], ref[i], tokens[i], drafts[i]});
    return acts;
  }
  std::string explain(sluice_seq_ref r, uint32_t cap = 200) {
    std::string text(cap, '#');
    text.resize(vtbl().explain(policy_, r, text.data(), cap));
    return text;
  }
  void reconfigure(const PluginConfig::Values &options) {
    const PluginConfig config(desc_, options);
    ASSERT_EQ(vtbl().reconfigure(policy_, config.handle(), nullptr), SLUICE_OK);
  }
  const sluice_scheduler_vtbl &vtbl() const { return *desc_.scheduler; }

  sluice_sched_table table{};
  sluice_sched_view view{};
  std::vector<uint8_t> state;
  std::vector<uint32_t> computed, generated, in_flight, pending, width, device_blocks, exclusive_blocks, wish, flags,
      prompt_len, max_new, host_blocks;
  std::vector<uint64_t> first_miss_hash, probed_step;
  std::vector<sluice_seq_ref> residents, queue, outside, victims;
  sluice_sched_host services{};
  uint64_t swap_block_ns = 1'000'000;  // dearer than computing again
  uint64_t wake_at_ns = 0;

 private:
  PluginHost host_;
  const sluice_plugin_desc &desc_ = load_plugin(SLUICE_PLUGIN_DIR, "scheduler", "fcfs", host_);
  sluice_scheduler *policy_ = nullptr;
  uint32_t capacity_;
  sluice_seq_ref next_ = 0;
};

using Acts = std::vector<Act>;

TEST(Fcfs, RunsDecodesThenStartedPromptsThenNewOnes) {
  Fcfs s;
  const auto prompt = s.resident(32, 50), decode = s.resident(40, 1), fresh = s.waiting(20);
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1), run(prompt, 50), run(fresh, 20)}));
}

TEST(Fcfs, SplitsPromptsByTheTokensThatDecodesLeave) {
  Fcfs s;
  s.view.token_budget = 64;
  const auto a = s.resident(10, 1), b = s.resident(10, 1), first = s.waiting(40), second = s.waiting(100);
  EXPECT_EQ(s.plan(), (Acts{run(a, 1), run(b, 1), run(first, 40), run(second, 22)}));
}

TEST(Fcfs, BoundsAChunkByMaxChunk) {
  Fcfs s(PluginConfig::Values{{"max_chunk", "24"}});
  const auto started = s.resident(24, 76), fresh = s.waiting(100);
  EXPECT_EQ(s.plan(), (Acts{run(started, 24), run(fresh, 24)}));
  s.reconfigure({{"max_chunk", "8"}});
  EXPECT_EQ(s.plan(), (Acts{run(started, 8), run(fresh, 8)}));
}

TEST(Fcfs, KeepsToMaxPrefills) {
  Fcfs s;
  s.view.max_prefills = 2;
  const auto a = s.resident(16, 20), b = s.waiting(20);
  s.waiting(20);
  EXPECT_EQ(s.plan(), (Acts{run(a, 20), run(b, 20)}));
  EXPECT_NE(s.explain(2).find("max_prefills"), std::string::npos);
}

TEST(Fcfs, CountsEverySeatThatHoldsKv) {
  Fcfs s;
  s.view.max_seqs = 3;
  const auto a = s.resident(16, 1);
  s.resident(16, 0);  // its step is under way
  const auto c = s.waiting(8);
  const auto d = s.waiting(8);
  EXPECT_EQ(s.plan(), (Acts{run(a, 1), run(c, 8)}));
  EXPECT_NE(s.explain(d).find("max_seqs"), std::string::npos);
  s.view.n_moving = 1;
  EXPECT_EQ(s.plan(), (Acts{run(a, 1)}));
}

TEST(Fcfs, WhoDoesNotFitIsOvertakenOnlySoOften) {
  Fcfs s(PluginConfig::Values{{"max_overtaken", "2"}});
  s.view.device_free = 5;
  const auto decode = s.resident(16 * 3 + 1, 1);
  const auto big = s.waiting(16 * 6);
  s.waiting(16 * 5 + 1);  // does not fit either
  for (int n = 0; n < 2; ++n) {
    const auto small = s.waiting(5);
    EXPECT_EQ(s.plan(), (Acts{run(decode, 1), run(small, 5)}));
    s.queue.pop_back();
  }
  s.plan();  // nobody overtakes it in this plan, so it does not count
  s.waiting(5);
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1)}));
  EXPECT_EQ(s.explain(big), "waits in line: the first needs 6 blocks, 5 are to be had");
  s.view.device_free = 7;
  EXPECT_EQ(s.plan()[1], run(big, 96));
}

TEST(Fcfs, NobodyOvertakesWhoLostItsBlocks) {
  Fcfs s;
  s.view.device_free = 3;
  const auto decode = s.resident(20, 1), resumed = s.waiting(16 * 6);
  s.waiting(5);
  s.flags[resumed] = SLUICE_SEQF_RESUMED;
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1)}));
}

TEST(Fcfs, EqualPromptsComputeTheirPrefixOnce) {
  Fcfs s;
  s.view.step_no = 7;
  const auto first = s.waiting(100), same = s.waiting(100), other = s.waiting(100), unknown = s.waiting(20);
  for (const auto r : {first, same, other}) s.probed_step[r] = 7, s.first_miss_hash[r] = r == other ? 5 : 9;
  EXPECT_EQ(s.plan(), (Acts{run(first, 100), run(other, 100), run(unknown, 20)}));
  s.queue = {same};
  s.view.step_no = 8;  // what the last step computed has been found
  EXPECT_EQ(s.plan(), (Acts{run(same, 100)}));
}

TEST(Fcfs, APromptInChunksKeepsItsLikeWaiting) {
  Fcfs s;
  s.view.step_no = 7, s.view.token_budget = 32;
  const auto started = s.resident(32, 68), same = s.waiting(68);
  for (const auto r : {started, same}) s.probed_step[r] = 7, s.first_miss_hash[r] = 9;
  EXPECT_EQ(s.plan(), (Acts{run(started, 32)}));
  s.pending[started] = 0;  // its reader is slow: nobody waits for that
  EXPECT_EQ(s.plan(), (Acts{run(same, 32)}));
}

TEST(Fcfs, SwapsOutWhereThatIsCheaper) {
  Fcfs s;
  s.view.device_free = 0, s.view.host_total = s.view.host_free = 3;
  s.swap_block_ns = 1;
  const auto a = s.resident(32, 1), b = s.resident(32, 1), c = s.resident(33, 1);
  s.resident(33, 1);
  const Acts acts = s.plan();
  EXPECT_EQ(acts[0], swap_out(c + 1));
  EXPECT_EQ(acts[1], run(a, 1));
  EXPECT_EQ(acts[2], run(b, 1));
  s.swap_block_ns = 1'000'000;
  EXPECT_EQ(s.plan()[0], preempt(c + 1));
  s.swap_block_ns = 1, s.view.host_free = 2;
  EXPECT_EQ(s.plan()[0], preempt(c + 1)) << "no room in swap space";
}

TEST(Fcfs, WhoWasSwappedOutComesBackBeforeAnybodyNew) {
  Fcfs s;
  s.view.watermark = 2, s.view.device_free = 6;
  const auto decode = s.resident(20, 1), out = s.swapped(64);
  const auto fresh = s.waiting(5);
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1)})) << "4 blocks, one to grow and the watermark";
  EXPECT_EQ(s.explain(out), "is swapped out: waits for blocks");
  EXPECT_EQ(s.explain(fresh), "waits in line: the first needs 7 blocks, 6 are to be had");
  s.view.device_free = 10;
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1), swap_in(out), run(fresh, 5)}));
  s.residents.clear(), s.view.device_free = 4;
  EXPECT_EQ(s.plan(), (Acts{swap_in(out)})) << "alone it may have every block";
}

TEST(Fcfs, WithoutOvertakingNobodyPassesTheHeadOfTheQueue) {
  Fcfs s(PluginConfig::Values{{"max_overtaken", "0"}});
  s.view.device_free = 5;
  const auto decode = s.resident(16 * 3 + 1, 1);
  const auto big = s.waiting(16 * 6), small = s.waiting(5);
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1)}));
  EXPECT_EQ(s.explain(big), "waits in line: the first needs 6 blocks, 5 are to be had");
  EXPECT_EQ(s.explain(small), s.explain(big));
  s.view.device_evictable = 1;
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1), run(big, 96)}));
}

TEST(Fcfs, LeavesTheWatermarkUnlessAlone) {
  Fcfs s;
  s.view.device_free = 4, s.view.watermark = 2;
  const auto r = s.waiting(16 * 3);
  EXPECT_EQ(s.plan(), (Acts{run(r, 48)})) << "alone it may have every block";
  const auto decode = s.resident(15, 1);
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1)}));
  s.view.device_free = 5;
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1), run(r, 48)}));
}

TEST(Fcfs, StartsAPromptOnlyBesideWhatStartedOnesWillFill) {
  Fcfs s;
  s.view.token_budget = 40, s.view.device_free = 10;
  const auto started = s.resident(16, 16 * 7);  // 7 blocks to come
  const auto fits = s.waiting(16 * 3);
  s.reconfigure({{"max_chunk", "16"}});
  EXPECT_EQ(s.plan(), (Acts{run(started, 16), run(fits, 16)}));
  s.view.device_free = 9;
  EXPECT_EQ(s.plan(), (Acts{run(started, 16)}));
  EXPECT_EQ(s.explain(fits), "waits in line: the first needs 3 blocks, 2 are to be had");
}

TEST(Fcfs, PreemptsTheLatestArrivalsForADecode) {
  Fcfs s;
  s.view.device_free = 0;
  const auto a = s.resident(32, 1), b = s.resident(33, 1), c = s.resident(33, 1), d = s.resident(20, 1);
  s.flags[d] = SLUICE_SEQF_NO_PREEMPT;
  const auto fresh = s.waiting(1);
  EXPECT_EQ(s.plan(), (Acts{preempt(c), run(a, 1), run(b, 1), run(d, 1)}));
  EXPECT_EQ(s.victims, (std::vector<sluice_seq_ref>{b, a}));
  EXPECT_EQ(s.explain(fresh), "waits: blocks ran out and the latest arrivals gave way");
}

TEST(Fcfs, TakesNothingFromWhoWouldFreeNothing) {
  Fcfs s;
  s.view.device_free = 0;
  const auto a = s.resident(32, 1), b = s.resident(33, 1), c = s.resident(33, 1);
  s.exclusive_blocks[c] = 0;  // all of it is shared
  EXPECT_EQ(s.plan(), (Acts{preempt(b), run(a, 1), run(c, 1)}));
}

TEST(Fcfs, ALateDecodeWithoutABlockPausesAndKeepsItsKv) {
  Fcfs s;
  s.view.device_free = 0;
  const auto a = s.resident(33, 1), b = s.resident(32, 1);
  s.waiting(1);
  EXPECT_EQ(s.plan(), (Acts{run(a, 1)}));
  EXPECT_EQ(s.victims, (std::vector<sluice_seq_ref>{b, a}));
  EXPECT_EQ(s.explain(b), "paused: tokens, seats or blocks ran out, 32 tokens in cache, 1 to feed");
}

TEST(Fcfs, APromptShrinksItsChunkBeforeAnybodyYields) {
  Fcfs s;
  s.view.device_free = 1;
  const auto a = s.resident(24, 100), b = s.resident(20, 100);
  EXPECT_EQ(s.plan(), (Acts{run(a, 24), run(b, 12)})) << "to the end of the free block, and of its own last one";
  s.view.device_free = 0, s.computed[a] = 32;
  EXPECT_EQ(s.plan(), (Acts{preempt(b), run(a, 32)})) << "not even one token fits";
}

TEST(Fcfs, APromptTakesNothingFromADecodeOfTheSamePlan) {
  Fcfs s;
  s.view.device_free = 0;
  s.resident(32, 100);
  const auto decode = s.resident(20, 1);
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1)}));
}

TEST(Fcfs, ResumedKeepsItsPlaceAndNeedsAllItsBlocks) {
  Fcfs s;
  const auto decode = s.resident(40, 1);
  const auto resumed = s.waiting(60), later = s.waiting(4);
  s.flags[resumed] = SLUICE_SEQF_RESUMED;
  s.view.device_free = 3;
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1)}));
  s.view.device_free = 5;
  EXPECT_EQ(s.plan(), (Acts{run(decode, 1), run(resumed, 60), run(later, 4)}));
}

TEST(Fcfs, NoEvictReservesTheLongestAnswers) {
  Fcfs s(PluginConfig::Values{{"no_evict", "true"}});
  s.view.device_free = 12;
  const auto a = s.resident(16, 1);  // prompt 17 + 100 new: 8 blocks, 7 still to come
  const auto b = s.waiting(16, 64), c = s.waiting(1, 1);
  EXPECT_EQ(s.plan(), (Acts{run(a, 1), run(b, 16)}));
  EXPECT_EQ(s.explain(c), "waits in line: the first needs 1 blocks, 0 are to be had");
}

TEST(Fcfs, GrantsDraftsFromTokensAndBlocksToSpare) {
  Fcfs s;
  s.view.token_budget = 8;
  const auto a = s.resident(17, 1), b = s.resident(17, 1);
  s.wish[a] = 10, s.wish[b] = 2;
  EXPECT_EQ(s.plan(), (Acts{run(a, 1, 6), run(b, 1, 0)})) << "no draft takes the token of a decode";
  s.view.device_free = 0, s.view.token_budget = 100;
  s.wish[a] = 15;
  EXPECT_EQ(s.plan(), (Acts{run(a, 1, 0), run(b, 1, 2)})) << "nobody yields for a draft";
}

TEST(Fcfs, AnEmptyPlanAsksToBeWokenUp) {
  Fcfs s;
  s.view.now_ns = 5'000'000'000, s.view.device_free = 0;
  s.waiting(10);
  EXPECT_TRUE(s.plan().empty());
  EXPECT_GT(s.wake_at_ns, s.view.now_ns);
}

TEST(Fcfs, ExplainKeepsToItsRoom) {
  Fcfs s;
  s.waiting(10), s.plan();
  EXPECT_EQ(s.explain(0, 5), "is n");
  EXPECT_EQ(s.explain(0, 0), "");
}

TEST(Fcfs, ManyRandomViewsGiveValidPlansAndTheSameOnesAgain) {
  std::mt19937 rng(7);
  const auto any = [&](uint32_t low, uint32_t high) { return std::uniform_int_distribution<uint32_t>(low, high)(rng); };
  for (int round = 0; round < 3000; ++round) {
    const PluginConfig::Values options{{"max_chunk", std::to_string(any(0, 3) * 16)},
                                       {"no_evict", any(0, 1) != 0 ? "true" : "false"}};
    Fcfs s(options), twin(options);
    for (Fcfs *f : {&s, &twin}) {
      rng.seed(static_cast<uint32_t>(round) + 100);
      f->view.token_budget = any(1, 100), f->view.max_seqs = any(1, 12), f->view.max_prefills = any(0, 4);
      f->view.device_free = any(0, 20), f->view.device_evictable = any(0, 3), f->view.watermark = any(0, 4);
      for (uint32_t n = any(0, 10); n > 0; --n) {
        const auto r = f->resident(any(1, 60), any(0, 2) != 0 ? 1 : any(0, 60));
        f->flags[r] = any(0, 4) == 0 ? SLUICE_SEQF_NO_PREEMPT : 0;
        f->exclusive_blocks[r] = any(0, f->device_blocks[r]), f->wish[r] = any(0, 5);
      }
      for (uint32_t n = any(0, 10); n > 0; --n) f->waiting(any(1, 90), any(1, 60));
    }
    const Acts acts = s.plan();
    EXPECT_EQ(acts, twin.plan());
    std::set<sluice_seq_ref> seen;
    int64_t blocks = s.view.device_free + s.view.device_evictable;
    uint64_t tokens = 0;
    uint32_t seats = 0, prefills = 0;
    for (const Act &a : acts) {
      ASSERT_TRUE(seen.insert(a.ref).second);
      if (a.op == SLUICE_ACT_PREEMPT) {
        ASSERT_EQ(s.state[a.ref], SLUICE_SEQ_RESIDENT);
        ASSERT_EQ(s.flags[a.ref] & SLUICE_SEQF_NO_PREEMPT, 0u);
        blocks += s.exclusive_blocks[a.ref];
        continue;
      }
      ASSERT_GE(a.tokens, 1u);
      ASSERT_LE(a.tokens, s.pending[a.ref]);
      tokens += a.tokens + a.drafts, ++seats, prefills += s.pending[a.ref] > 1;
      const uint32_t after = blocks_of(s.computed[a.ref] + a.tokens + a.drafts);
      blocks -= after > s.device_blocks[a.ref] ? after - s.device_blocks[a.ref] : 0;
      ASSERT_GE(blocks, 0) << "each act finds its blocks";
    }
    ASSERT_LE(tokens, s.view.token_budget);
    ASSERT_LE(seats, s.view.max_seqs);
    ASSERT_LE(prefills, s.view.max_prefills);
    for (const auto v : s.victims)
      ASSERT_TRUE(std::find(acts.begin(), acts.end(), preempt(v)) == acts.end()) << "already preempted";
  }
}

/// Plays the host: carries plans out against a block pool, until everybody has finished.
TEST(Fcfs, EverybodyFinishesAndFirstTokensComeInOrder) {
  std::mt19937 rng(11);
  for (int round = 0; round < 20; ++round) {
    const bool in_order = round % 2 == 0;
    Fcfs s(PluginConfig::Values{{"max_overtaken", in_order ? "0" : "8"}}, 256);
    const uint32_t total = 24;
    s.view.token_budget = 48, s.view.max_seqs = 8, s.view.max_prefills = 2, s.view.device_total = total;
    s.view.watermark = 1;
    std::vector<uint32_t> length(200);
    for (uint32_t i = 0; i < 200; ++i) {
      length[i] = 1 + rng() % 120;
      s.waiting(1 + rng() % 200, length[i]);
    }
    std::vector<sluice_seq_ref> first_tokens;
    uint32_t finished = 0, used = 0, preemptions = 0;
    for (int step = 0; finished < 200; ++step) {
      ASSERT_LT(step, 100000) << finished << " of 200 finished";
      s.view.device_free = total - used;
      const Acts acts = s.plan();
      ASSERT_FALSE(acts.empty());
      for (const Act &a : acts) {
        auto &mine = s.device_blocks[a.ref];
        if (a.op == SLUICE_ACT_PREEMPT) {
          used -= mine, mine = s.exclusive_blocks[a.ref] = 0, ++preemptions;
          s.pending[a.ref] = s.computed[a.ref] + s.pending[a.ref], s.computed[a.ref] = 0;
          s.state[a.ref] = SLUICE_SEQ_WAITING, s.flags[a.ref] = SLUICE_SEQF_RESUMED;
          s.residents.erase(std::find(s.residents.begin(), s.residents.end(), a.ref));
          s.queue.insert(std::lower_bound(s.queue.begin(), s.queue.end(), a.ref), a.ref);
          continue;
        }
        if (s.state[a.ref] == SLUICE_SEQ_WAITING) {
          s.queue.erase(std::find(s.queue.begin(), s.queue.end(), a.ref));
          s.residents.insert(std::lower_bound(s.residents.begin(), s.residents.end(), a.ref), a.ref);
          s.state[a.ref] = SLUICE_SEQ_RESIDENT, s.flags[a.ref] = 0;
        }
        s.computed[a.ref] += a.tokens, s.pending[a.ref] -= a.tokens;
        used += blocks_of(s.computed[a.ref]) - mine;
        mine = s.exclusive_blocks[a.ref] = blocks_of(s.computed[a.ref]);
        ASSERT_LE(used, total);
        if (s.pending[a.ref] > 0) continue;
        s.pending[a.ref] = 1;
        if (++s.generated[a.ref] == 1) first_tokens.push_back(a.ref);
        if (s.generated[a.ref] < length[a.ref]) continue;
        used -= mine, ++finished;
        s.residents.erase(std::find(s.residents.begin(), s.residents.end(), a.ref));
      }
    }
    EXPECT_EQ(used, 0u);
    if (in_order) {
      EXPECT_TRUE(std::is_sorted(first_tokens.begin(), first_tokens.end()));
    }
    EXPECT_LT(preemptions, 400u) << "two per request at most, so no two push each other out in turns";
  }
}

}  // namespace

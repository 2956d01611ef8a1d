// Swapping step by step: what the scheduler sees of it, and what its blocks do meanwhile.
#include <gtest/gtest.h>
#include <sluice/sdk/scheduler.hpp>

#include <functional>

#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::engine::testing {
namespace {

/// Does what the test says, step by step; without a word it runs every resident and admits everybody.
class Puppet final : public sdk::Scheduler {
 public:
  static constexpr uint32_t kFlags = 0;
  struct Strings {
    std::function<void(const sdk::View &, sdk::Plan &)> plan;
    std::vector<sdk::Event> heard;
    sluice_sched_view view{};
    const sluice_sched_table *table = nullptr;
    const sluice_sched_host *host = nullptr;
    bool can_swap = false;
  };
  static Strings &strings() {
    static Strings all;
    return all;
  }
  Puppet(const sdk::Config &, const sluice_sched_setup &setup) {
    strings() = {};
    strings().table = setup.table;
    strings().host = setup.host;
    strings().can_swap = setup.can_swap != 0;
  }
  void on_event(const sdk::Event &event) override { strings().heard.push_back(event); }
  void plan(const sdk::View &view, sdk::Plan &plan) override {
    strings().view = view.v;
    if (strings().plan) return strings().plan(view, plan);
    run_all(view, plan);
  }
  static void run_all(const sdk::View &view, sdk::Plan &plan) {
    for (const auto ref : view.resident())
      if (view.t.pending[ref] > 0) plan.run(ref, view.t.pending[ref]);
    for (const auto ref : view.waiting()) plan.run(ref, view.t.pending[ref]);
    plan.wake_at(view.v.now_ns + 1'000'000);
  }
};

class SwapTest : public ::testing::Test {
 protected:
  void open(uint32_t host_blocks, const TestConfig &mock = {{"script", "count"}, {"eos_token", "-1"},
                                                            {"step_us", "1000"}, {"swap_block_us", "1500"}}) {
    limits_.max_seqs = 8;
    limits_.token_budget = 64;
    limits_.max_live = 8;
    limits_.max_context = 256;
    limits_.block_size = 8;
    limits_.kv_blocks = 12;
    limits_.host_blocks = host_blocks;
    limits_.bytes_per_block = 8192;
    model_ = std::make_unique<MockModel>(host_, mock, limits_, "greedy");
    static const auto puppet = sdk::SchedulerAdapter<Puppet>::vtbl();
    auto core = EngineCore::create(model_->parts(&puppet), limits_);
    ASSERT_TRUE(core.has_value()) << core.error().message;
    core_ = std::move(*core);
  }
  std::shared_ptr<request::Request> submit(int32_t first, size_t n_prompt, uint32_t max_new = 100) {
    auto request = std::make_shared<request::Request>();
    request->id = ++next_id_;
    for (size_t i = 0; i < n_prompt; ++i) request->prompt.push_back(first + static_cast<int32_t>(i));
    request->max_new = max_new;
    request->events = std::make_shared<request::EventChannel>(nullptr);
    EXPECT_TRUE(core_->submit(request).has_value());
    return request;
  }
  /// One committed step, however often the clock has to move for it.
  void commit_step() {
    for (int i = 0; i < 1'000; ++i) {
      const auto outcome = core_->step(0);
      ASSERT_EQ(core_->audit(), "");
      if (outcome == StepOutcome::kCommitted) return;
      host_.clock.advance_ns(100'000);
    }
    FAIL() << "nothing is ever committed";
  }
  size_t heard(uint8_t kind) const {
    const auto &all = Puppet::strings().heard;
    return static_cast<size_t>(std::count_if(all.begin(), all.end(), [&](const auto &e) { return e.kind == kind; }));
  }
  static uint8_t state_of(sluice_seq_ref ref) { return Puppet::strings().table->state[ref]; }

  TestHost host_;
  EngineLimits limits_;
  std::unique_ptr<MockModel> model_;
  std::unique_ptr<EngineCore> core_;
  uint64_t next_id_ = 0;
};

TEST_F(SwapTest, GoesOutAndComesBackWithItsTokens) {
  open(20);
  EXPECT_TRUE(Puppet::strings().can_swap);
  const auto request = submit(20, 30, 12);
  commit_step();
  commit_step();
  const auto ref = Puppet::strings().view.resident[0];
  EXPECT_EQ(Puppet::strings().table->device_blocks[ref], 4U);

  Puppet::strings().plan = [&](const sdk::View &, sdk::Plan &plan) { plan.swap_out(ref); };
  commit_step();
  EXPECT_EQ(state_of(ref), SLUICE_SEQ_MOVING_OUT);
  EXPECT_EQ(core_->stats().kv_blocks_used, 0U) << "its blocks serve others at once";
  EXPECT_EQ(core_->stats().host_blocks_used, 4U);

  uint64_t moved_bytes = 0;
  Puppet::strings().plan = [&](const sdk::View &view, sdk::Plan &plan) {
    if (view.v.n_moving > 0) moved_bytes = view.v.swap_out_bytes;
    if (view.v.n_swapped > 0) plan.swap_in(view.v.swapped[0]);
    plan.wake_at(view.v.now_ns + 1'000'000);
  };
  commit_step();  // the copies end, and the same plan asks for it back
  EXPECT_EQ(moved_bytes, 4U * 8192) << "the view says what is under way";
  EXPECT_EQ(heard(SLUICE_EV_SWAPPED_OUT), 1U);
  EXPECT_EQ(state_of(ref), SLUICE_SEQ_MOVING_IN);
  Puppet::strings().plan = nullptr;
  while (core_->live() > 0) commit_step();
  EXPECT_EQ(heard(SLUICE_EV_SWAPPED_IN), 1U);
  EXPECT_EQ(core_->stats().preemptions, 0U);
  std::vector<request::Event> events;
  request->events->drain(events);
  ASSERT_EQ(events.size(), 12U);
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].token, 50 + static_cast<int32_t>(i));
}

TEST_F(SwapTest, ASecondTimeOnlyNewBlocksAreCopied) {
  open(20);
  submit(20, 30);
  commit_step();
  const auto ref = Puppet::strings().view.waiting[0];
  uint64_t out_bytes = 0, in_bytes = 0;
  for (int round = 0; round < 2; ++round) {
    Puppet::strings().plan = [&](const sdk::View &view, sdk::Plan &plan) {
      if (view.t.state[ref] == SLUICE_SEQ_RESIDENT) plan.swap_out(ref);
      if (view.t.state[ref] == SLUICE_SEQ_SWAPPED) plan.swap_in(ref);
      out_bytes = std::max(out_bytes, view.v.swap_out_bytes);
      in_bytes = std::max(in_bytes, view.v.swap_in_bytes);
      plan.wake_at(view.v.now_ns + 1'000'000);
    };
    out_bytes = in_bytes = 0;
    while (heard(SLUICE_EV_SWAPPED_IN) <= static_cast<size_t>(round)) commit_step();
    // The full blocks of 30 tokens are still cached on the device, so only the last one comes in.
    EXPECT_EQ(in_bytes, 8192U);
    EXPECT_EQ(out_bytes, round == 0 ? 4U * 8192 : 8192U) << "full blocks are still in swap space";
  }
}

TEST_F(SwapTest, SharedBlocksStayWithThoseWhoUseThem) {
  open(20);
  submit(20, 30);
  commit_step();
  submit(20, 30);
  commit_step();
  const auto &table = *Puppet::strings().table;
  commit_step();
  const auto first = Puppet::strings().view.resident[0], second = Puppet::strings().view.resident[1];
  EXPECT_EQ(table.exclusive_blocks[second], 1U) << "three of its four blocks are the other's too";
  Puppet::strings().plan = [&](const sdk::View &view, sdk::Plan &plan) {
    if (view.t.state[second] == SLUICE_SEQ_RESIDENT) plan.swap_out(second);
    plan.run(first, view.t.pending[first]);
  };
  const uint64_t used = core_->stats().kv_blocks_used;
  commit_step();
  EXPECT_LE(core_->stats().kv_blocks_used, used) << "one freed, perhaps one taken by who runs";
  EXPECT_EQ(table.host_blocks[second], 4U) << "in swap space it is whole";
  commit_step();
  EXPECT_EQ(table.exclusive_blocks[first], table.device_blocks[first]) << "nobody shares any more";
}

TEST_F(SwapTest, WithoutRoomInSwapSpaceTheActIsTrimmed) {
  open(2);
  submit(20, 30);
  commit_step();
  const auto ref = Puppet::strings().view.waiting[0];
  Puppet::strings().plan = [&](const sdk::View &view, sdk::Plan &plan) {
    if (heard(SLUICE_EV_TRIMMED) == 0) return plan.swap_out(ref);
    Puppet::run_all(view, plan);
  };
  commit_step();
  EXPECT_EQ(heard(SLUICE_EV_TRIMMED), 1U);
  EXPECT_EQ(state_of(ref), SLUICE_SEQ_RESIDENT);
}

TEST_F(SwapTest, WithoutSwapSpaceThePolicyIsToldSo) {
  open(0);
  EXPECT_FALSE(Puppet::strings().can_swap);
  EXPECT_EQ(Puppet::strings().host->swap_time_ns(Puppet::strings().host->ctx, 1, 0), UINT64_MAX);
}

TEST_F(SwapTest, ACancelWhileItMovesGivesEverythingBack) {
  open(20);
  for (const uint8_t when : {SLUICE_SEQ_MOVING_OUT, SLUICE_SEQ_SWAPPED, SLUICE_SEQ_MOVING_IN}) {
    const auto request = submit(20, 30);
    Puppet::strings().plan = [&](const sdk::View &view, sdk::Plan &plan) {
      for (const auto ref : view.waiting()) plan.run(ref, view.t.pending[ref]);
      for (const auto ref : view.resident()) plan.swap_out(ref);
      if (when != SLUICE_SEQ_SWAPPED)
        for (const auto ref : view.swapped()) plan.swap_in(ref);
      plan.wake_at(view.v.now_ns + 1'000'000);
    };
    commit_step();
    const auto ref = Puppet::strings().view.waiting[0];
    for (int i = 0; i < 1'000 && state_of(ref) != when; ++i) {
      core_->step(0);
      host_.clock.advance_ns(100'000);
    }
    ASSERT_EQ(state_of(ref), when);
    core_->cancel(request->id, request::CancelCause::kClient);
    EXPECT_EQ(core_->audit(), "");
    EXPECT_EQ(core_->stats().kv_blocks_used + core_->stats().host_blocks_used, 0U);
    for (int i = 0; i < 20; ++i, host_.clock.advance_ns(1'000'000)) core_->step(0);
    EXPECT_EQ(core_->audit(), "") << "its copies end after it";
  }
}

/// Two fill the cache; the plan names the second as a victim for the first's next block.
void let_one_yield(SwapTest &, EngineCore &core, const std::function<void()> &commit) {
  Puppet::strings().plan = [](const sdk::View &view, sdk::Plan &plan) {
    if (view.v.n_resident < 2) return Puppet::run_all(view, plan);
    plan.run(view.v.resident[0], view.t.pending[view.v.resident[0]]);
    plan.victim(view.v.resident[1]);
  };
  for (int i = 0; i < 40 && core.stats().preemptions + core.stats().swaps_out == 0; ++i) commit();
}

TEST_F(SwapTest, AFallbackVictimIsSwappedWhereCopiesAreCheaperThanComputing) {
  open(20, {{"script", "count"}, {"eos_token", "-1"}, {"step_us", "1000"}, {"token_us", "1000"}});
  submit(20, 40);
  submit(120, 40);
  let_one_yield(*this, *core_, [&] { commit_step(); });
  EXPECT_EQ(core_->stats().swaps_out, 1U);
  EXPECT_EQ(core_->stats().preemptions, 0U);
}

TEST_F(SwapTest, AndRecomputedWhereTheyAreNot) {
  limits_.swap_rates = {1e4, 1e4};  // bytes a second
  open(20, {{"script", "count"}, {"eos_token", "-1"}, {"step_us", "1000"}, {"token_us", "1"}});
  submit(20, 40);
  submit(120, 40);
  let_one_yield(*this, *core_, [&] { commit_step(); });
  EXPECT_EQ(core_->stats().swaps_out, 0U);
  EXPECT_EQ(core_->stats().preemptions, 1U);
}

TEST_F(SwapTest, MeasuresTheCopiesOfADevice) {
  open(20);
  // The mock copies a block in 1.5 ms of a clock that only moves when somebody looks; here nobody does.
  auto rates = measure_swap(*model_->parts(nullptr).backend, model_->parts(nullptr).model, host_.clock, 4, 8192);
  ASSERT_FALSE(rates.has_value());
  EXPECT_EQ(rates.error().code, Code::kTimeout);
}

}  // namespace
}  // namespace sluice::engine::testing

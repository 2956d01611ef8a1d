// Planning while the step before runs: what the policy sees, and what becomes of a plan that the commit overtakes.
#include <gtest/gtest.h>
#include <sluice/sdk/scheduler.hpp>

#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::engine::testing {
namespace {

/// Runs everybody, and notes what it saw of steps under way.
class Onlooker final : public sdk::Scheduler {
 public:
  static constexpr uint32_t kFlags = 0;
  struct Seen {
    uint64_t plans = 0, ahead = 0, wrong = 0;
    std::vector<uint64_t> fingerprint;
  };
  static Seen &seen() {
    static Seen all;
    return all;
  }
  Onlooker(const sdk::Config &, const sluice_sched_setup &) { seen() = {}; }
  void plan(const sdk::View &view, sdk::Plan &plan) override {
    auto &s = seen();
    ++s.plans;
    bool ahead = false;
    for (const auto ref : view.resident()) {
      const uint32_t fed = view.t.in_flight[ref];
      ahead |= fed > 0;
      // What is fed and what is to be fed come out at the text, and at most one token behind it.
      const uint32_t after = view.t.computed[ref] + fed + view.t.pending[ref];
      const uint32_t length = view.t.prompt_len[ref] + view.t.generated[ref];
      s.wrong += after > length + 1;
      if (view.t.pending[ref] > 0) plan.run(ref, view.t.pending[ref]);
      s.fingerprint.push_back(view.v.now_ns ^ uint64_t{ref} << 48 ^ view.t.pending[ref]);
    }
    s.ahead += ahead ? 1 : 0;
    for (const auto ref : view.waiting()) plan.run(ref, view.t.pending[ref]);
    plan.wake_at(view.v.now_ns + 1'000'000);
  }
};

struct Outcome {
  std::vector<std::vector<int32_t>> tokens;
  request::GeneratorStats stats;
  Onlooker::Seen seen;
};

EngineLimits limits_for(bool plan_ahead) {
  EngineLimits limits;
  limits.max_seqs = 16;
  limits.token_budget = 512;
  limits.max_live = 16;
  limits.max_context = 256;
  limits.block_size = 8;
  limits.kv_blocks = 200;
  limits.plan_ahead = plan_ahead;
  return limits;
}

const sluice_scheduler_vtbl *onlooker() {
  static const auto vtbl = sdk::SchedulerAdapter<Onlooker>::vtbl();
  return &vtbl;
}

Outcome run_ahead(bool plan_ahead, uint32_t step_us = 2000) {
  TestHost host;
  const auto limits = limits_for(plan_ahead);
  MockModel model(host, {{"script", "count"}, {"eos_token", "-1"}, {"step_us", std::to_string(step_us)}}, limits, "greedy");
  auto core = EngineCore::create(model.parts(onlooker()), limits);
  EXPECT_TRUE(core.has_value());
  Outcome out;
  std::vector<std::shared_ptr<request::Request>> requests;
  uint64_t next_id = 0;
  for (int i = 0; i < 20'000 && (next_id < 12 || (*core)->live() > 0); ++i) {
    if (i % 40 == 0 && next_id < 12) {
      auto request = std::make_shared<request::Request>();
      request->id = ++next_id;
      request->prompt.assign(5 + 3 * next_id, static_cast<int32_t>(20 + next_id));
      request->max_new = static_cast<uint32_t>(3 + 5 * next_id);
      request->arrival_ns = host.clock.now_ns();
      request->events = std::make_shared<request::EventChannel>(nullptr);
      EXPECT_TRUE((*core)->submit(request).has_value());
      requests.push_back(request);
    }
    if (i == 700) (*core)->cancel(12, request::CancelCause::kClient);
    if ((*core)->step(0) != StepOutcome::kCommitted) host.clock.advance_ns(100'000);
    EXPECT_EQ((*core)->audit(), "");
  }
  EXPECT_EQ((*core)->live(), 0U);
  for (const auto &request : requests) {
    std::vector<request::Event> events;
    request->events->drain(events);
    out.tokens.emplace_back();
    for (const auto &event : events)
      if (event.token >= 0) out.tokens.back().push_back(event.token);
  }
  out.stats = (*core)->stats();
  out.seen = Onlooker::seen();
  return out;
}

TEST(PlanAhead, IsMadeWhileAStepRunsAndChangesNoToken) {
  const auto plain = run_ahead(false), ahead = run_ahead(true);
  EXPECT_EQ(plain.seen.ahead, 0U);
  EXPECT_GT(ahead.seen.ahead, ahead.seen.plans / 2) << "most plans are made ahead";
  EXPECT_EQ(plain.stats.steps_planned_ahead, 0U);
  EXPECT_GT(ahead.stats.steps_planned_ahead, ahead.stats.steps / 2);
  EXPECT_LE(ahead.stats.steps_planned_ahead, ahead.seen.ahead);
  EXPECT_EQ(ahead.seen.wrong + plain.seen.wrong, 0U);
  EXPECT_EQ(ahead.stats.plan_fallbacks, 0U) << "who ended meanwhile makes no plan invalid";
  for (size_t i = 0; i + 1 < plain.tokens.size(); ++i) EXPECT_EQ(ahead.tokens[i], plain.tokens[i]) << "request " << i + 1;
}

TEST(PlanAhead, IsTheSameEveryTime) {
  const auto once = run_ahead(true), again = run_ahead(true);
  EXPECT_EQ(once.seen.fingerprint, again.seen.fingerprint);
  EXPECT_EQ(once.tokens, again.tokens);
}

TEST(PlanAhead, IsNotMadeForStepsThatAreOverAtOnce) { EXPECT_EQ(run_ahead(true, 0).seen.ahead, 0U); }

TEST(PlanAhead, IsThrownAwayWhenThePolicyChanges) {
  TestHost host;
  const auto limits = limits_for(true);
  MockModel model(host, {{"script", "count"}, {"eos_token", "-1"}, {"step_us", "2000"}}, limits, "greedy");
  auto core = EngineCore::create(model.parts(onlooker()), limits);
  ASSERT_TRUE(core.has_value());
  auto request = std::make_shared<request::Request>();
  request->id = 1;
  request->prompt.assign(5, 20);
  request->max_new = 40;
  request->events = std::make_shared<request::EventChannel>(nullptr);
  ASSERT_TRUE((*core)->submit(request).has_value());
  const auto step_until = [&](const auto &reached) {
    for (int i = 0; i < 1000 && !reached((*core)->step(0)); ++i) host.clock.advance_ns(100'000);
  };
  step_until([](auto) { return Onlooker::seen().ahead > 2; });
  ASSERT_GT(Onlooker::seen().ahead, 2U);
  ASSERT_TRUE((*core)->change_scheduler({"another", onlooker(), nullptr, true}).has_value());  // which forgets what it saw
  step_until([](auto outcome) { return outcome == StepOutcome::kCommitted; });
  EXPECT_EQ(Onlooker::seen().plans, 0U) << "the step under way was planned before";
  EXPECT_EQ((*core)->step(0), StepOutcome::kInFlight);
  EXPECT_GE(Onlooker::seen().plans, 1U) << "the new policy plans the one behind";
  EXPECT_EQ(Onlooker::seen().ahead, 0U);
}

TEST(PlanAhead, IsNotMadeForDecodersThatDraftOrBranch) {
  TestHost host;
  auto limits = limits_for(true);
  limits.max_rows = 64;
  const MockModel::Use decoders[] = {{"plain"}, {"ngram"}, {"beam", {{"max_beams", "4"}}}};
  for (const auto &decoder : decoders) {
    MockModel model(host, {{"script", "count"}, {"eos_token", "-1"}, {"step_us", "2000"}}, limits, {"greedy"}, decoder);
    auto core = EngineCore::create(model.parts(onlooker()), limits);
    ASSERT_TRUE(core.has_value()) << core.error().message;
    EXPECT_EQ((*core)->limits().plan_ahead, decoder.name == "plain") << decoder.name;
  }
}

}  // namespace
}  // namespace sluice::engine::testing

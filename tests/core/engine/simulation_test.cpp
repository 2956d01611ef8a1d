// Random traffic against the engine core on a clock that the test moves: the very code of the server, without threads.
// The mock backend keeps a shadow of the cache and refuses a step that reads a block somebody else wrote.
#include <gtest/gtest.h>
#include <sluice/sdk/scheduler.hpp>

#include <map>
#include <random>

#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::engine::testing {
namespace {

using request::CancelCause;
using request::FinishReason;

constexpr int32_t kTokens = 512;

/// Plans at random, and now and then returns garbage: the host must take neither harm nor stop.
class Chaos final : public sdk::Scheduler {
 public:
  static constexpr uint32_t kFlags = 0;
  Chaos(const sdk::Config &, const sluice_sched_setup &) {}
  void plan(const sdk::View &view, sdk::Plan &plan) override {
    if (random_() % 64 == 0) throw sdk::Error(SLUICE_E_UNAVAILABLE, "chaos refuses to plan");
    uint32_t budget = view.v.token_budget;
    uint32_t seats = view.v.max_seqs;
    const auto consider = [&](sluice_seq_ref ref) {
      const uint32_t pending = view.t.pending[ref];
      if (pending == 0 || budget == 0 || seats == 0 || random_() % 4 == 0) return;
      const auto tokens = static_cast<uint32_t>(1 + random_() % std::min(pending, budget));
      plan.run(ref, tokens);
      budget -= tokens;
      --seats;
    };
    for (const auto ref : view.resident()) {
      if (random_() % 32 == 0) {
        plan.preempt(ref);
      } else if (view.v.host_total > 0 && random_() % 16 == 0) {
        plan.swap_out(ref);
      } else {
        consider(ref);
      }
    }
    for (const auto ref : view.swapped())
      if (random_() % 4 == 0) plan.swap_in(ref);
    for (const auto ref : view.waiting()) consider(ref);
    for (const auto ref : view.resident()) plan.victim(ref);
    if (random_() % 50 == 0) plan.run(random_() % 2 == 0 ? 999'999 : 0, 1'000'000);
    plan.wake_at(view.v.now_ns + 1'000'000);
  }

 private:
  std::mt19937 random_{11};
};

struct Client {
  std::shared_ptr<request::EventChannel> channel = std::make_shared<request::EventChannel>(nullptr, 8);
  std::shared_ptr<request::Request> request;
  std::vector<std::vector<int32_t>> tokens;
  std::vector<FinishReason> finished;
  bool gone = false;
};

struct Simulated {
  size_t stopped = 0, errors = 0, cancelled = 0;
  request::GeneratorStats stats;
};

class Simulation {
 public:
  struct Swap {
    uint32_t host_blocks = 0;
    uint64_t fail_every = 0;
    bool fail_in_wait = false;
  };
  Simulation(const sluice_scheduler_vtbl *scheduler, const TestConfig &mock, uint64_t seed)
      : Simulation(scheduler, mock, seed, Swap()) {}
  Simulation(const sluice_scheduler_vtbl *scheduler, const TestConfig &mock, uint64_t seed, const Swap &swap)
      : random_(seed) {
    limits_.max_seqs = 8;
    limits_.token_budget = 48;
    limits_.max_live = 64;
    limits_.waiting_window = 16;
    limits_.max_context = 256;
    limits_.block_size = 8;
    limits_.kv_blocks = 40;  // 320 tokens: a few sequences fit, so preemption is normal
    limits_.host_blocks = swap.host_blocks;
    limits_.bytes_per_block = 8192;
    limits_.plan_ahead = seed % 2 == 1;
    model_ = std::make_unique<MockModel>(host_, mock, limits_, "greedy");
    if (swap.fail_every > 0) model_->fail_kv_ops(swap.fail_every, swap.fail_in_wait);
    auto core = EngineCore::create(model_->parts(scheduler), limits_);
    EXPECT_TRUE(core.has_value()) << (core ? "" : core.error().message);
    if (core) core_ = std::move(*core);
  }

  Simulated run(size_t n_requests) {
    size_t submitted = 0;
    uint64_t idle_steps = 0;
    while (submitted < n_requests || core_->live() > 0) {
      if (submitted < n_requests && random_() % 3 == 0) submitted += arrive() ? 1 : 0;
      disturb();
      const auto outcome = core_->step(0);
      const std::string wrong = core_->audit();
      EXPECT_EQ(wrong, "") << "after " << submitted << " requests";
      if (!wrong.empty()) break;
      host_.clock.advance_ns(outcome == StepOutcome::kCommitted ? 1'000 : 200'000);
      idle_steps = outcome == StepOutcome::kCommitted ? 0 : idle_steps + 1;
      EXPECT_LT(idle_steps, 100'000U) << "the engine stands still with " << core_->live() << " sequences";
      if (idle_steps >= 100'000) break;
      drain(false);
    }
    core_->step(0);
    drain(true);
    result_.stats = core_->stats();
    EXPECT_EQ(result_.stats.kv_blocks_used, 0U);
    EXPECT_EQ(result_.stats.host_blocks_used, 0U);
    return result_;
  }

 private:
  bool arrive() {
    Client client;
    client.request = std::make_shared<request::Request>();
    auto &r = *client.request;
    r.id = ++next_id_;
    r.prompt.resize(1 + random_() % (random_() % 8 == 0 ? 120 : 30));
    for (auto &token : r.prompt) token = static_cast<int32_t>(10 + random_() % 300);
    // Half of them begin like others do, so that the prefix cache has something to share.
    if (random_() % 2 == 0) {
      const auto start = static_cast<int32_t>(20 + 50 * (random_() % 3));
      for (size_t i = 0; i < r.prompt.size() && i < 40; ++i) r.prompt[i] = start + static_cast<int32_t>(i);
    }
    r.client = random_() % 8 == 0 ? 1 : 0;
    r.max_new = static_cast<uint32_t>(1 + random_() % 40);
    r.n_answers = random_() % 10 == 0 ? 3 : 1;
    r.seed = random_();
    r.stop_tokens = {2};
    r.arrival_ns = host_.clock.now_ns();
    if (random_() % 16 == 0) r.deadline_ns = r.arrival_ns + random_() % 20'000'000;
    r.events = client.channel;
    client.tokens.resize(r.n_answers);
    client.finished.assign(r.n_answers, FinishReason::kNone);
    if (!EngineCore::check(r, core_->limits()) || !core_->submit(client.request)) return false;
    clients_.emplace(r.id, std::move(client));
    return true;
  }

  void disturb() {
    if (clients_.empty() || random_() % 12 != 0) return;
    auto it = clients_.lower_bound(random_() % (next_id_ + 1));
    if (it == clients_.end()) return;
    it->second.gone = true;
    if (random_() % 2 == 0) {
      core_->cancel(it->first, CancelCause::kClient);
    } else {  // a disconnect: the service closes the channel and says so, in this order
      it->second.channel->close();
      if (random_() % 2 == 0) core_->cancel(it->first, CancelCause::kDisconnect);
    }
  }

  void drain(bool all) {
    std::vector<request::Event> events;
    for (auto it = clients_.begin(); it != clients_.end();) {
      auto &client = it->second;
      if (!all && random_() % 4 == 0) {  // a slow reader: the channel fills and the engine must wait for it
        ++it;
        continue;
      }
      client.channel->drain(events);
      for (const auto &event : events) take(client, event);
      const bool done = std::none_of(client.finished.begin(), client.finished.end(),
                                     [](FinishReason reason) { return reason == FinishReason::kNone; });
      it = done || (client.channel->closed() && all) ? clients_.erase(it) : std::next(it);
    }
    EXPECT_TRUE(!all || clients_.empty()) << "requests without an end";
  }

  void take(Client &client, const request::Event &event) {
    ASSERT_LT(event.answer, client.finished.size());
    ASSERT_EQ(client.finished[event.answer], FinishReason::kNone) << "an event after the end";
    auto &tokens = client.tokens[event.answer];
    if (event.token >= 0) {
      // The mock counts: every token is its predecessor's successor, or the end.
      const int32_t before = tokens.empty() ? client.request->prompt.back() : tokens.back();
      if (event.finish != FinishReason::kStop) {
        ASSERT_EQ(event.token, (before + 1) % kTokens);
      }
      tokens.push_back(event.token);
    }
    client.finished[event.answer] = event.finish;
    switch (event.finish) {
      case FinishReason::kNone: break;
      case FinishReason::kStop: ASSERT_EQ(event.token, 2); ++result_.stopped; break;
      case FinishReason::kLength: ASSERT_EQ(tokens.size(), client.request->max_new); ++result_.stopped; break;
      case FinishReason::kCancelled: ASSERT_TRUE(client.gone); ++result_.cancelled; break;
      case FinishReason::kError:
        ASSERT_TRUE(event.error != nullptr);
        ASSERT_NE(event.error->message, "");
        ++result_.errors;
        break;
    }
  }

  TestHost host_;
  EngineLimits limits_;
  std::unique_ptr<MockModel> model_;
  std::unique_ptr<EngineCore> core_;
  std::mt19937_64 random_;
  std::map<uint64_t, Client> clients_;
  uint64_t next_id_ = 0;
  Simulated result_;
};

const TestConfig kMock = {{"script", "count"},   {"vocab_size", "512"}, {"eos_probability", "0.01"},
                          {"step_us", "300"},    {"jitter", "0.5"},     {"fail_every", "211"},
                          {"fail_code", "internal"}};

TEST(Simulation, TenThousandRequestsUnderFcfsLoseNoBlock) {
  TestHost host;
  for (const char *where : {"wait", "submit"}) {
    auto mock = kMock;
    mock["fail_in"] = where;
    Simulation simulation(load_plugin(host, "scheduler", "fcfs")->scheduler, mock, 1);
    const auto outcome = simulation.run(5'000);
    EXPECT_GT(outcome.stopped, 2'500U);
    EXPECT_GT(outcome.errors, 20U) << "injected errors reach their owners";
    EXPECT_GT(outcome.cancelled, 100U);
    EXPECT_GT(outcome.stats.preemptions, 100U) << "the cache is small enough to fight over";
    EXPECT_GT(outcome.stats.cached_tokens, 1'000U) << "equal prefixes are computed once";
    EXPECT_EQ(outcome.stats.plan_fallbacks, 0U);
    EXPECT_GT(outcome.stats.steps_planned_ahead, outcome.stats.steps / 2) << "and whoever ends meanwhile does no harm";
    EXPECT_TRUE(outcome.stats.healthy);
  }
}

TEST(Simulation, ThePoliciesLoseNoBlockWhenCancelsFailedCopiesAndFailedStepsMeet) {
  TestHost host;
  auto mock = kMock;
  mock["swap_block_us"] = "40", mock["token_us"] = "50";  // copies are cheaper than computing
  for (const char *policy : {"fcfs", "mlfq"})
    for (const uint64_t seed : {4U, 5U}) {  // the odd one plans ahead
      SCOPED_TRACE(std::string(policy) + ", seed " + std::to_string(seed));
      Simulation simulation(load_plugin(host, "scheduler", policy)->scheduler, mock, seed, {60, 13, seed == 5});
      const auto outcome = simulation.run(2'000);
      EXPECT_GT(outcome.stopped, 1'000U);
      EXPECT_GT(outcome.errors, 10U);
      EXPECT_GT(outcome.cancelled, 50U);
      EXPECT_GT(outcome.stats.swaps_out, 100U);
      EXPECT_GT(outcome.stats.preemptions, 10U) << "copies that failed";
      EXPECT_EQ(outcome.stats.plan_fallbacks, 0U);
      EXPECT_TRUE(outcome.stats.healthy);
    }
}

TEST(Simulation, AnInsaneSchedulerIsSlowButHarmless) {
  static const auto chaos = sdk::SchedulerAdapter<Chaos>::vtbl();
  Simulation simulation(&chaos, kMock, 2);
  const auto outcome = simulation.run(10'000);
  EXPECT_GT(outcome.stopped, 5'000U);
  EXPECT_GT(outcome.stats.plan_fallbacks, 100U);
  EXPECT_TRUE(outcome.stats.healthy);
}

TEST(Simulation, SwapsByAnInsaneSchedulerLoseNoBlockEvenWhenCopiesFail) {
  static const auto chaos = sdk::SchedulerAdapter<Chaos>::vtbl();
  auto mock = kMock;
  mock["swap_block_us"] = "40";
  for (const auto &swap : {Simulation::Swap{60, 0, false}, {24, 13, false}, {24, 13, true}}) {
    Simulation simulation(&chaos, mock, 3, swap);
    const auto outcome = simulation.run(4'000);
    EXPECT_GT(outcome.stopped, 2'000U);
    EXPECT_GT(outcome.stats.swaps_out, 1'000U);
    EXPECT_GT(outcome.stats.swaps_in, 500U);
    EXPECT_TRUE(outcome.stats.healthy);
  }
}

TEST(Simulation, ADeadBackendFailsEverybodyAndIsNotUsedAgain) {
  TestHost host;
  auto mock = kMock;
  mock["lost_at"] = "50";
  EngineLimits limits;
  limits.max_context = 256;
  limits.kv_blocks = 64;
  MockModel model(host, mock, limits, "greedy");
  auto core = EngineCore::create(model.parts(load_plugin(host, "scheduler", "fcfs")->scheduler), limits);
  ASSERT_TRUE(core.has_value());
  std::vector<std::shared_ptr<request::Request>> requests;
  for (uint64_t id = 1; id <= 20; ++id) {
    auto request = std::make_shared<request::Request>();
    request->id = id;
    request->prompt = {20, 21};
    request->max_new = 200;
    request->events = std::make_shared<request::EventChannel>(nullptr);
    ASSERT_TRUE((*core)->submit(request).has_value());
    requests.push_back(request);
  }
  for (int i = 0; i < 100'000 && (*core)->live() > 0; ++i) {
    (*core)->step(0);
    host.clock.advance_ns(100'000);
  }
  EXPECT_EQ((*core)->audit(), "");
  EXPECT_FALSE((*core)->stats().healthy);
  EXPECT_NE((*core)->stats().trouble.find("lost"), std::string::npos);
  for (const auto &request : requests) {
    std::vector<request::Event> events;
    request->events->drain(events);
    ASSERT_FALSE(events.empty());
    EXPECT_EQ(events.back().finish, FinishReason::kError);
  }
  EXPECT_EQ((*core)->submit(requests[0]).error().code, Code::kUnavailable);
}

TEST(EngineCore, AReaderThatFallsBehindPausesItsSequenceAndIsNotForgotten) {
  TestHost host;
  EngineLimits limits;
  limits.max_context = 256;
  limits.kv_blocks = 64;
  MockModel model(host, {{"script", "count"}, {"eos_token", "-1"}}, limits, "greedy");
  auto core = EngineCore::create(model.parts(load_plugin(host, "scheduler", "fcfs")->scheduler), limits);
  ASSERT_TRUE(core.has_value());
  auto request = std::make_shared<request::Request>();
  request->id = 1;
  request->prompt = {20};
  request->max_new = 20;
  request->events = std::make_shared<request::EventChannel>(nullptr, 4);
  ASSERT_TRUE((*core)->submit(request).has_value());
  std::vector<request::Event> events;
  size_t n_tokens = 0;
  for (int round = 0; round < 5; ++round) {
    while ((*core)->step(0) != StepOutcome::kIdle) {
    }
    EXPECT_EQ((*core)->live() == 0, (*core)->wake_at_ns() == 0) << "somebody must look again";
    request->events->drain(events);
    EXPECT_EQ(events.size(), 4U) << "what the channel holds";
    n_tokens += events.size();
  }
  EXPECT_EQ(n_tokens, 20U);
  EXPECT_EQ((*core)->live(), 0U);
}

}  // namespace
}  // namespace sluice::engine::testing

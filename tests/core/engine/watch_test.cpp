// Plugins that take their time: the watch sees it, says so, and the engine goes on when they are back.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "core/engine/engine.hpp"
#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::engine::testing {
namespace {

using namespace std::chrono_literals;
using request::FinishReason;

constexpr std::chrono::milliseconds kDeadline = 400ms;

/// While it is shut, the scheduler's plan() does not return.
class Gate {
 public:
  void shut() { set(true); }
  void open() { set(false); }
  void pass() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !shut_; });
  }

 private:
  void set(bool shut) {
    const std::lock_guard lock(mutex_);
    shut_ = shut;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool shut_ = false;
};
Gate gate;
const sluice_scheduler_vtbl *fcfs = nullptr;

EngineLimits limits() {
  EngineLimits limits;
  limits.max_seqs = 4, limits.token_budget = 64, limits.max_live = 16, limits.max_context = 256;
  limits.block_size = 8, limits.kv_blocks = 48;
  limits.call_deadline = kDeadline;
  return limits;
}

std::shared_ptr<request::Request> watched_request(uint64_t id, uint32_t max_new) {
  auto request = std::make_shared<request::Request>();
  request->id = id;
  request->prompt = {20, 21, 22};
  request->max_new = max_new;
  request->events = std::make_shared<request::EventChannel>(nullptr);
  return request;
}

struct Heard {
  int tokens = 0, finishes = 0;
  FinishReason finish = FinishReason::kNone;
  void read(const request::Request &request) {
    std::vector<request::Event> events;
    request.events->drain(events);
    for (const auto &event : events) {
      tokens += event.token >= 0 ? 1 : 0;
      if (event.finish != FinishReason::kNone) ++finishes, finish = event.finish;
    }
  }
};

template <class F> bool eventually(F done, std::chrono::milliseconds patience = 10s) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(5ms);
  }
  return true;
}

class WatchTest : public ::testing::Test {
 protected:
  void make(const TestConfig &options = {{"script", "count"}, {"eos_token", "-1"}}) {
    fcfs = load_plugin(host_, "scheduler", "fcfs")->scheduler;
    slow_ = *fcfs;
    slow_.plan = [](sluice_scheduler *self, const sluice_sched_view *view, sluice_sched_plan *plan, sluice_status *st) {
      gate.pass();
      return fcfs->plan(self, view, plan, st);
    };
    model_ = std::make_unique<MockModel>(host_, options, limits(), "greedy");
    auto engine = Engine::create(model_->parts(&slow_), limits(), 20);
    ASSERT_TRUE(engine.has_value());
    engine_ = std::move(*engine);
  }
  Heard wait(const request::Request &request) {
    Heard heard;
    EXPECT_TRUE(eventually([&] { heard.read(request); return heard.finishes > 0; }));
    return heard;
  }

  TestHost host_;
  sluice_scheduler_vtbl slow_{};
  std::unique_ptr<MockModel> model_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(WatchTest, ALateCallTakesTheModelOutUntilItReturns) {
  make();
  gate.shut();
  const auto request = watched_request(1, 5);
  ASSERT_TRUE(engine_->submit(request));
  ASSERT_TRUE(eventually([&] { return !engine_->stats().healthy; }));
  const auto stats = engine_->stats();
  EXPECT_EQ(stats.trouble, "scheduler under test: plan takes longer than 400 ms");
  EXPECT_EQ(stats.culprit, "scheduler under test");
  EXPECT_FALSE(stats.damaged);
  EXPECT_TRUE(stats.retry_after_s.has_value());
  EXPECT_EQ(engine_->submit(watched_request(2, 5)).error().code, Code::kUnavailable);
  gate.open();
  const Heard heard = wait(*request);
  EXPECT_EQ(heard.finish, FinishReason::kLength);
  EXPECT_EQ(heard.tokens, 5) << "nothing is lost by being late";
  EXPECT_TRUE(eventually([&] { return engine_->stats().healthy; }));
  EXPECT_EQ(engine_->stats().plugin_overruns, 1u);
  EXPECT_TRUE(engine_->submit(watched_request(3, 5)));
}

TEST_F(WatchTest, ACallThatStaysAwayEndsWhatRunsOnce) {
  make();
  gate.shut();
  const auto request = watched_request(1, 5);
  ASSERT_TRUE(engine_->submit(request));
  Heard heard = wait(*request);
  EXPECT_EQ(heard.finish, FinishReason::kError);
  gate.open();
  EXPECT_TRUE(eventually([&] { return engine_->stats().healthy && engine_->stats().running == 0; }));
  heard.read(*request);
  EXPECT_EQ(heard.finishes, 1) << "the engine thread has come back and ended it again";
  const auto next = watched_request(2, 5);
  ASSERT_TRUE(engine_->submit(next));
  EXPECT_EQ(wait(*next).finish, FinishReason::kLength);
}

TEST_F(WatchTest, AStepThatNeverEndsDamagesTheModel) {
  make({{"script", "count"}, {"eos_token", "-1"}, {"hang_at", "3"}});
  const auto request = watched_request(1, 20);
  ASSERT_TRUE(engine_->submit(request));
  const Heard heard = wait(*request);
  EXPECT_EQ(heard.finish, FinishReason::kError);
  ASSERT_TRUE(eventually([&] { return engine_->stats().damaged; }));
  EXPECT_EQ(engine_->stats().culprit, "backend mock");
  EXPECT_EQ(engine_->submit(watched_request(2, 5)).error().code, Code::kUnavailable);
  engine_->stop();
  EXPECT_FALSE(engine_->stuck());
}

TEST_F(WatchTest, AChangeOfThePolicyThatHangsIsGivenUp) {
  make();
  auto hanging = *fcfs;
  hanging.create = [](const sluice_host_api *host, const sluice_config *options, const sluice_sched_setup *setup,
                      sluice_scheduler **out, sluice_status *st) {
    gate.pass();
    return fcfs->create(host, options, setup, out, st);
  };
  gate.shut();
  const auto begin = std::chrono::steady_clock::now();
  const auto changed = engine_->change_scheduler({"hanging", &hanging, nullptr, true});
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  ASSERT_FALSE(changed);
  EXPECT_EQ(changed.error().code, Code::kTimeout);
  const auto behind = engine_->change_scheduler({"fcfs", fcfs, nullptr, true});  // never reaches the thread
  EXPECT_FALSE(behind);
  gate.open();
  EXPECT_TRUE(eventually([&] { return engine_->stats().healthy; }));
  const auto request = watched_request(1, 5);
  ASSERT_TRUE(engine_->submit(request));
  EXPECT_EQ(wait(*request).finish, FinishReason::kLength);
  engine_->stop();
}

TEST_F(WatchTest, APolicyThatOverwritesRoomAndPointersSteersNothing) {
  fcfs = load_plugin(host_, "scheduler", "fcfs")->scheduler;
  slow_ = *fcfs;
  slow_.plan = [](sluice_scheduler *self, const sluice_sched_view *view, sluice_sched_plan *plan, sluice_status *st) {
    const int32_t code = fcfs->plan(self, view, plan, st);
    static sluice_seq_ref theirs[] = {99};
    plan->ref = plan->victims = theirs, plan->op = nullptr, plan->tokens = plan->drafts = nullptr;
    plan->capacity = plan->victim_capacity = UINT32_MAX;
    return code;
  };
  model_ = std::make_unique<MockModel>(host_, TestConfig{{"script", "count"}, {"eos_token", "-1"}}, limits(), "greedy");
  auto engine = Engine::create(model_->parts(&slow_), limits(), 20);
  ASSERT_TRUE(engine);
  engine_ = std::move(*engine);
  const auto request = watched_request(1, 5);
  ASSERT_TRUE(engine_->submit(request));
  EXPECT_EQ(wait(*request).finish, FinishReason::kLength);
  EXPECT_EQ(engine_->stats().plan_fallbacks, 0u) << "what it wrote into our arrays was a good plan";
}

TEST_F(WatchTest, AnExplanationThatThrowsDamagesTheModelAndNotTheProcess) {
  auto limits = testing::limits();
  limits.explain_after_ns = 1;
  fcfs = load_plugin(host_, "scheduler", "fcfs")->scheduler;
  slow_ = *fcfs;
  slow_.explain = [](const sluice_scheduler *, sluice_seq_ref, char *, uint32_t) -> uint32_t {
    throw std::runtime_error("no words");
  };
  model_ = std::make_unique<MockModel>(host_, TestConfig{{"script", "count"}, {"eos_token", "-1"}}, limits, "greedy");
  auto engine = Engine::create(model_->parts(&slow_), limits, 20);
  ASSERT_TRUE(engine);
  engine_ = std::move(*engine);
  const auto request = watched_request(1, 5);
  ASSERT_TRUE(engine_->submit(request));
  EXPECT_EQ(wait(*request).finish, FinishReason::kError);
  EXPECT_TRUE(eventually([&] { return engine_->stats().damaged; }));
  EXPECT_EQ(engine_->stats().culprit, "scheduler under test");
}

TEST_F(WatchTest, StoppingDoesNotWaitForACallThatNeverReturns) {
  make();
  gate.shut();
  const auto request = watched_request(1, 5);
  ASSERT_TRUE(engine_->submit(request));
  std::this_thread::sleep_for(20ms);
  const auto begin = std::chrono::steady_clock::now();
  engine_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  EXPECT_TRUE(engine_->stuck());
  EXPECT_EQ(wait(*request).finish, FinishReason::kCancelled);
  gate.open();
  EXPECT_TRUE(eventually([&] { return !engine_->stuck(); }));
  std::this_thread::sleep_for(100ms);  // it has left its last lock; nobody but a test would take it back
}

}  // namespace
}  // namespace sluice::engine::testing

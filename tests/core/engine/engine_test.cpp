// The engine thread under callers from many threads. Run under ThreadSanitizer too.
#include "core/engine/engine.hpp"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::engine::testing {
namespace {

using request::CancelCause;
using request::FinishReason;

EngineLimits small_limits() {
  EngineLimits limits;
  limits.max_seqs = 8;
  limits.token_budget = 64;
  limits.max_live = 32;
  limits.max_context = 256;
  limits.block_size = 8;
  limits.kv_blocks = 48;
  limits.plan_ahead = true;
  return limits;
}

std::shared_ptr<request::Request> short_request(uint64_t id, uint32_t max_new, std::function<void()> wake = nullptr) {
  auto request = std::make_shared<request::Request>();
  request->id = id;
  request->prompt = {static_cast<int32_t>(20 + id % 100), 21, 22};
  request->max_new = max_new;
  request->n_answers = id % 5 == 0 ? 2 : 1;
  request->events = std::make_shared<request::EventChannel>(std::move(wake));
  return request;
}

/// Answers that have ended; every event before the end must come before it.
uint32_t count_ends(const request::Request &request, std::vector<bool> &ended) {
  std::vector<request::Event> events;
  request.events->drain(events);
  uint32_t n = 0;
  for (const auto &event : events) {
    EXPECT_FALSE(ended.at(event.answer)) << "an event after the end";
    if (event.finish == FinishReason::kNone) continue;
    ended[event.answer] = true;
    ++n;
  }
  return n;
}

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() : model_(host_, {{"script", "count"}, {"eos_token", "-1"}, {"step_us", "150"}}, small_limits(), "greedy") {
    auto engine = Engine::create(model_.parts(load_plugin(host_, "scheduler", "fcfs")->scheduler), small_limits(), 20);
    EXPECT_TRUE(engine.has_value());
    if (engine) engine_ = std::move(*engine);
  }

  TestHost host_{true};  // or the mock's steps would never end
  MockModel model_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, EveryRequestOfManyThreadsEndsOnce) {
  std::atomic<uint32_t> n_full{0};
  const auto client = [&](uint64_t thread) {
    std::mt19937_64 random(thread);
    for (uint64_t i = 0; i < 150; ++i) {
      const uint64_t id = thread * 1000 + i;
      std::atomic<int> rings{0};
      auto request = short_request(id, static_cast<uint32_t>(1 + random() % 60), [&rings] {
        ++rings;
        rings.notify_one();
      });
      if (auto r = engine_->submit(request); !r) {
        EXPECT_EQ(r.error().code, Code::kResourceExhausted);
        ++n_full;
        std::this_thread::yield();
        continue;
      }
      const bool cancels = random() % 3 == 0;
      const bool hangs_up = !cancels && random() % 3 == 0;
      if (cancels) engine_->cancel(id, CancelCause::kClient);
      if (hangs_up) {
        request->events->close();
        engine_->cancel(id, CancelCause::kDisconnect);
        // Nobody reads any more; the engine lets go of the request, and with it of the channel that rings here.
        while (request.use_count() > 1) std::this_thread::yield();
        continue;
      }
      std::vector<bool> ended(request->n_answers, false);
      for (uint32_t n = 0; n < request->n_answers;) {
        const int before = rings.load();
        n += count_ends(*request, ended);
        if (n < request->n_answers) rings.wait(before);
      }
      while (request.use_count() > 1) std::this_thread::yield();
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t t = 1; t <= 4; ++t) threads.emplace_back(client, t);
  for (auto &thread : threads) thread.join();
  engine_->stop();
  const auto stats = engine_->stats();
  EXPECT_EQ(stats.running + stats.waiting, 0U);
  EXPECT_EQ(stats.kv_blocks_used, 0U);
  EXPECT_GT(stats.output_tokens, 1000U);
}

TEST_F(EngineTest, StoppingEndsWhatRunsAndRefusesWhatComes) {
  std::vector<std::shared_ptr<request::Request>> requests;
  for (uint64_t id = 1; id <= 12; ++id) {
    requests.push_back(short_request(id, 250));
    ASSERT_TRUE(engine_->submit(requests.back()).has_value());
  }
  engine_->stop();
  for (const auto &request : requests) {
    std::vector<bool> ended(request->n_answers, false);
    EXPECT_EQ(count_ends(*request, ended), request->n_answers);
  }
  EXPECT_EQ(engine_->submit(short_request(99, 5)).error().code, Code::kUnavailable);
  engine_->stop();  // once more does nothing
}

TEST_F(EngineTest, RefusesWhatCanNeverFitAtOnce) {
  auto request = short_request(1, 253);  // 3 + 253 tokens: as long as the context
  EXPECT_TRUE(engine_->submit(request).has_value());
  auto longer = short_request(2, 254);
  EXPECT_EQ(engine_->submit(longer).error().code, Code::kInvalidArgument);
  auto wild = short_request(3, 5);
  wild->prompt[1] = 512;
  EXPECT_NE(engine_->submit(wild).error().message.find("token 512"), std::string::npos);
  auto empty = short_request(4, 5);
  empty->prompt.clear();
  EXPECT_EQ(engine_->submit(empty).error().param, "prompt");
}

}  // namespace
}  // namespace sluice::engine::testing

// What equal prompts cost: their common beginning is computed once, whoever asks and whenever they come.
#include <gtest/gtest.h>

#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::engine::testing {
namespace {

struct World {
  explicit World(uint32_t token_budget = 512) {
    limits.max_seqs = 32;
    limits.token_budget = token_budget;
    limits.max_live = 64;
    limits.max_context = 256;
    limits.block_size = 8;
    limits.kv_blocks = 600;
    model = std::make_unique<MockModel>(host, TestConfig{{"script", "count"}, {"eos_token", "-1"}}, limits, "greedy");
    auto made = EngineCore::create(model->parts(load_plugin(host, "scheduler", "fcfs")->scheduler), limits);
    EXPECT_TRUE(made.has_value());
    core = std::move(*made);
  }
  std::shared_ptr<request::Request> ask(uint32_t n_prompt, uint32_t n_answers, int32_t last, uint32_t client = 0) {
    auto request = std::make_shared<request::Request>();
    request->id = ++next_id;
    for (uint32_t i = 0; i < n_prompt; ++i) request->prompt.push_back(static_cast<int32_t>(10 + i % 300));
    request->prompt.back() = last;
    request->n_answers = n_answers;
    request->client = client;
    request->events = std::make_shared<request::EventChannel>(nullptr);
    EXPECT_TRUE(core->submit(request).has_value());
    return request;
  }
  void finish() {
    for (int i = 0; i < 10'000 && core->live() > 0; ++i) core->step(0);
    EXPECT_EQ(core->live(), 0U);
    EXPECT_EQ(core->audit(), "");
  }
  TestHost host;
  EngineLimits limits;
  std::unique_ptr<MockModel> model;
  std::unique_ptr<EngineCore> core;
  uint64_t next_id = 0;
};

TEST(EqualPrompts, ComputeTheirFullBlocksOnceThoughTheyComeTogether) {
  for (const uint32_t budget : {512U, 40U}) {  // at once, and in chunks
    World world(budget);
    for (int i = 0; i < 4; ++i) world.ask(100, 8, 7);
    world.finish();
    // 12 full blocks are shared; each but the first computes the 4 tokens behind them.
    EXPECT_EQ(world.core->stats().computed_tokens, 100U + 31 * 4) << "budget " << budget;
    EXPECT_EQ(world.core->stats().cached_tokens, 31U * 96);
  }
}

TEST(EqualPrompts, ShareWhatTheyHaveInCommonAndNoMore) {
  World world;
  for (int32_t i = 0; i < 16; ++i) world.ask(100, 1, 400 + i);  // the last token differs, in a block that is not full
  world.finish();
  EXPECT_EQ(world.core->stats().computed_tokens, 100U + 15 * 4);
}

TEST(EqualPrompts, OfOthersAreNotShared) {
  World world;
  for (uint32_t client = 0; client < 4; ++client) world.ask(100, 1, 7, client);
  world.finish();
  EXPECT_EQ(world.core->stats().computed_tokens, 400U);
}

}  // namespace
}  // namespace sluice::engine::testing

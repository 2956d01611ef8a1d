// A seeded request gives the same tokens alone and in any company: batch, chunking, preemption and scheduler change
// when a token comes, never which.
#include <gtest/gtest.h>

#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::engine::testing {
namespace {

using Answers = std::vector<std::vector<int32_t>>;

std::shared_ptr<request::Request> seeded_request(uint64_t id) {
  auto request = std::make_shared<request::Request>();
  request->id = id;
  // Every third shares a beginning of three blocks with its like.
  if (id % 3 == 0)
    for (int32_t i = 0; i < 24; ++i) request->prompt.push_back(i * 7 % 500);
  for (uint64_t i = 0; i < 5 + id * 7 % 40; ++i) request->prompt.push_back(static_cast<int32_t>((id * 31 + i * 17) % 500));
  request->max_new = 40;
  request->seed = id * 1000;
  request->n_answers = id % 4 == 0 ? 2 : 1;
  request->events = std::make_shared<request::EventChannel>(nullptr);
  return request;
}

enum class SampleOn { kBackend, kHost };
enum class PrefixCache { kOff, kOn };

struct Policy {
  std::string scheduler = "fcfs";
  TestConfig options = {};
  uint32_t host_blocks = 0;
  bool plan_ahead = false;
};

/// company = how many run at once.
Answers run(const std::string &sampler, uint32_t company, uint32_t kv_blocks, uint32_t token_budget,
            request::GeneratorStats *stats = nullptr, SampleOn sample_on = SampleOn::kBackend,
            PrefixCache prefix_cache = PrefixCache::kOn, const Policy &policy = {}) {
  TestHost host;
  EngineLimits limits;
  limits.max_seqs = 16;
  limits.token_budget = token_budget;
  limits.max_live = 64;
  limits.max_context = 256;
  limits.block_size = 8;
  limits.kv_blocks = kv_blocks;
  limits.prefix_cache = prefix_cache == PrefixCache::kOn;
  limits.host_blocks = policy.host_blocks;
  limits.plan_ahead = policy.plan_ahead;
  limits.bytes_per_block = 8192;
  TestConfig mock = {{"script", "hash"}, {"vocab_size", "512"}, {"eos_token", "-1"}, {"spread", "2"}};
  // Computing takes time and copies take less, so whoever yields is swapped if that is possible.
  if (policy.host_blocks > 0) mock.insert({{"step_us", "100"}, {"token_us", "50"}, {"swap_block_us", "20"}});
  MockModel model(host, mock, limits, sampler);
  if (sample_on == SampleOn::kHost) model.forbid_device_sampling();
  auto parts = model.parts(load_plugin(host, "scheduler", policy.scheduler)->scheduler);
  parts.scheduler_options = handle(policy.options);
  auto core = EngineCore::create(std::move(parts), limits);
  EXPECT_TRUE(core.has_value());
  Answers answers;
  for (uint64_t first = 1; first <= 16; first += company) {
    std::vector<std::shared_ptr<request::Request>> requests;
    for (uint64_t id = first; id < first + company; ++id) {
      requests.push_back(seeded_request(id));
      EXPECT_TRUE((*core)->submit(requests.back()).has_value());
    }
    for (int i = 0; i < 100'000 && (*core)->live() > 0; ++i)
      if ((*core)->step(0) != StepOutcome::kCommitted) host.clock.advance_ns(20'000);
    for (const auto &request : requests) {
      std::vector<request::Event> events;
      request->events->drain(events);
      std::vector<std::vector<int32_t>> own(request->n_answers);
      for (const auto &event : events) own[event.answer].push_back(event.token);
      for (auto &tokens : own) {
        EXPECT_EQ(tokens.size(), request->max_new);
        answers.push_back(std::move(tokens));
      }
    }
  }
  EXPECT_EQ((*core)->audit(), "");
  if (stats != nullptr) *stats = (*core)->stats();
  return answers;
}

TEST(Seed, CompanyChunkingAndPreemptionChangeNoToken) {
  request::GeneratorStats stats;
  const Answers alone = run("chain", 1, 512, 512, &stats, SampleOn::kBackend, PrefixCache::kOff);
  EXPECT_EQ(stats.cached_tokens, 0U);
  EXPECT_EQ(run("chain", 1, 512, 512, &stats), alone) << "with prefixes from the cache";
  EXPECT_GT(stats.cached_tokens, 0U);
  EXPECT_EQ(run("chain", 16, 512, 512), alone) << "in a batch";
  EXPECT_EQ(run("chain", 4, 512, 16), alone) << "with prompts in chunks";
  EXPECT_EQ(run("chain", 16, 24, 64, &stats), alone) << "with too little memory";
  EXPECT_GT(stats.preemptions, 0U);
}

TEST(Seed, PoliciesSwapsAndRecomputesChangeNoToken) {
  for (const char *sampler : {"chain", "greedy"}) {
    const Answers alone = run(sampler, 1, 512, 512, nullptr, SampleOn::kBackend, PrefixCache::kOff);
    for (const auto prefix : {PrefixCache::kOff, PrefixCache::kOn})
      for (const uint32_t host_blocks : {0U, 64U})
        for (const char *scheduler : {"fcfs", "mlfq"}) {
          SCOPED_TRACE(std::string(sampler) + " " + scheduler + (host_blocks > 0 ? " with" : " without") + " swap space");
          request::GeneratorStats stats;
          // Quanta of a step or two, so that mlfq has somebody to put behind.
          const TestConfig options = std::string(scheduler) == "mlfq" ? TestConfig{{"quantum_ms", "0.2"}} : TestConfig{};
          EXPECT_EQ(run(sampler, 16, 40, 64, nullptr, SampleOn::kBackend, prefix, {scheduler, options, host_blocks, true}),
                    alone) << "planned ahead";
          EXPECT_EQ(run(sampler, 16, 40, 64, &stats, SampleOn::kBackend, prefix, {scheduler, options, host_blocks}), alone);
          EXPECT_GT(stats.preemptions + stats.swaps_out, 0U) << "somebody had to yield";
          if (host_blocks > 0) {
            EXPECT_GT(stats.swaps_in, 0U);
          }
        }
  }
}

TEST(Seed, RowsThatComeToTheHostGiveTheTokensOfTheBackend) {
  for (const char *sampler : {"chain", "greedy"})
    EXPECT_EQ(run(sampler, 16, 24, 64, nullptr, SampleOn::kHost), run(sampler, 16, 512, 512)) << sampler;
}

TEST(Seed, TheDrawIsNoArgmaxAndAnswersDiffer) {
  const Answers drawn = run("chain", 16, 512, 512);
  EXPECT_NE(drawn, run("greedy", 16, 512, 512));
  // Requests 4, 8, ... have two answers, which stand side by side.
  EXPECT_NE(drawn[3], drawn[4]);
}

}  // namespace
}  // namespace sluice::engine::testing

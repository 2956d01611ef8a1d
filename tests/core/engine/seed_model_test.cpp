// On the model that ships, a policy, a preemption, a swap, a recompute and a prefix from the cache change when a token
// comes, never which. The same on the mock, in more company, is in seed_test.cpp.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::engine::testing {
namespace {

const std::string kShippedModel = SLUICE_SOURCE_DIR "/examples/model/sluice-tiny-q8_0.gguf";

enum class Memory { kRoomy, kSwap, kRecompute };

struct Shipped {
  std::string scheduler = "fcfs";
  Memory memory = Memory::kRoomy;
  bool prefix_cache = false;
  uint32_t company = 1;
};

struct Told {
  std::vector<std::vector<int32_t>> tokens;
  request::GeneratorStats stats;
};

/// A model with one sampler, and one engine after the other over it; whatever one left in the cache the next overwrites.
class ShippedModel {
 public:
  explicit ShippedModel(const std::string &sampler)
      : model_(host_, TestConfig{}, limits(), MockModel::Use{sampler}, MockModel::Use{"plain"}, "cpu", kShippedModel) {}

  Told tell(const Shipped &how) {
    auto limits = ShippedModel::limits();
    limits.prefix_cache = how.prefix_cache;
    if (how.memory != Memory::kRoomy) limits.kv_blocks = 24;  // four or five of twelve
    if (how.memory != Memory::kSwap) limits.host_blocks = 0;
    auto parts = model_.parts(load_plugin(host_, "scheduler", how.scheduler)->scheduler);
    const TestConfig options = how.scheduler == "mlfq" ? TestConfig{{"quantum_ms", "1"}} : TestConfig{};
    parts.scheduler_options = handle(options);
    auto core = EngineCore::create(std::move(parts), limits);
    EXPECT_TRUE(core.has_value()) << (core ? "" : core.error().message);
    Told told;
    if (!core) return told;
    for (uint64_t first = 0; first < kRequests; first += how.company) {
      std::vector<std::shared_ptr<request::Request>> requests;
      for (uint64_t id = first; id < first + how.company; ++id) {
        requests.push_back(request_of(id));
        EXPECT_TRUE((*core)->submit(requests.back()).has_value());
      }
      for (int i = 0; i < 20'000 && (*core)->live() > 0; ++i) {
        if ((*core)->step(1'000'000'000) == StepOutcome::kIdle) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      EXPECT_EQ((*core)->live(), 0U);
      EXPECT_EQ((*core)->audit(), "");
      for (const auto &request : requests) {
        std::vector<request::Event> events;
        request->events->drain(events);
        EXPECT_EQ(events.size(), request->max_new);
        told.tokens.emplace_back();
        for (const auto &event : events) told.tokens.back().push_back(event.token);
      }
    }
    told.stats = (*core)->stats();
    return told;
  }

 private:
  static constexpr uint64_t kRequests = 12;

  static EngineLimits limits() {
    EngineLimits limits;
    limits.max_seqs = 16;
    limits.token_budget = 128;
    limits.max_live = 16;
    limits.max_context = 128;
    limits.block_size = 16;
    limits.kv_blocks = 128;
    limits.host_blocks = 64;
    limits.bytes_per_block = 1;
    limits.swap_rates = {1e12, 1e12};  // whoever can be swapped is
    limits.plan_ahead = true;
    return limits;
  }

  /// Every other prompt begins with the same two blocks.
  static std::shared_ptr<request::Request> request_of(uint64_t id) {
    auto request = std::make_shared<request::Request>();
    request->id = id + 1;
    request->prompt = {1};
    if (id % 2 == 0)
      for (int32_t i = 0; i < 35; ++i) request->prompt.push_back(300 + i * 7 % 200);
    for (uint64_t i = 0; i < 8 + id * 5 % 23; ++i) request->prompt.push_back(static_cast<int32_t>(300 + (id * 31 + i * 17) % 500));
    request->max_new = 32;
    request->seed = id * 1000;
    request->events = std::make_shared<request::EventChannel>(nullptr);
    return request;
  }

  TestHost host_{true};  // what computing takes decides whether somebody is swapped
  MockModel model_;
};

TEST(SeedModel, PoliciesSwapsRecomputesAndPrefixesChangeNoToken) {
  ASSERT_TRUE(std::filesystem::exists(kShippedModel));
  std::vector<std::vector<std::vector<int32_t>>> all;
  for (const char *sampler : {"greedy", "chain"}) {
    ShippedModel model(sampler);
    const auto alone = model.tell({});
    all.push_back(alone.tokens);
    for (const char *scheduler : {"fcfs", "mlfq"})
      for (const auto memory : {Memory::kRoomy, Memory::kSwap, Memory::kRecompute})
        for (const bool prefix_cache : {false, true}) {
          SCOPED_TRACE(std::string(sampler) + " " + scheduler + (memory == Memory::kRoomy ? " roomy" : "") +
                       (memory == Memory::kSwap ? " swap" : "") + (memory == Memory::kRecompute ? " recompute" : "") +
                       (prefix_cache ? " with" : " without") + " the prefix cache");
          const auto told = model.tell({scheduler, memory, prefix_cache, 12});
          EXPECT_EQ(told.tokens, alone.tokens);
          const auto &s = told.stats;
          EXPECT_EQ(s.plan_fallbacks + s.plugin_errors, 0U);
          EXPECT_EQ(s.cached_tokens > 0, prefix_cache);
          EXPECT_EQ(s.swaps_out > 0, memory == Memory::kSwap);
          EXPECT_EQ(s.swaps_in > 0, memory == Memory::kSwap);
          if (memory != Memory::kSwap) {
            EXPECT_EQ(s.preemptions > 0, memory == Memory::kRecompute);
            EXPECT_EQ(s.recomputed_tokens > 0, memory == Memory::kRecompute);
          }
        }
  }
  EXPECT_NE(all[0], all[1]) << "draws are no argmax";
}

}  // namespace
}  // namespace sluice::engine::testing

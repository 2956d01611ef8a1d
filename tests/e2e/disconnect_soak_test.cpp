// Ten thousand clients that go away at every stage: nobody reads a wrong character, and nothing stays behind.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/e2e/disconnect_client.hpp"
#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::e2e {
namespace {

// Room for all sixteen sequences, but not for more; every step takes a while, and a long prompt several of them.
support::ServerSetup setup() {
  support::ServerSetup s;
  s.server = "log_level = \"error\"\n";
  s.backend = R"({ use = "mock", script = "echo", step_us = 200, token_us = 2, jitter = 1, kv_tokens = 16384 })";
  s.model = "max_seqs = 16\ntoken_budget = 256\n";
  return s;
}

struct Gauges {
  double running, waiting, kv_blocks_used;
  bool idle() const { return running == 0 && waiting == 0 && kv_blocks_used == 0; }
};

Gauges read_gauges(uint16_t port) {
  const std::string text = support::get(port, "/metrics").body;
  return {support::metric(text, "sluice_requests_running"), support::metric(text, "sluice_requests_waiting"),
          support::metric(text, "sluice_kv_blocks_used")};
}

TEST(DisconnectSoak, ReceivedTextIsAPrefixAndNothingStaysBehind) {
  support::ServerProcess server(setup());
  SoakOptions options;
  const SoakResult result = run_soak(server.port(), options);
  for (const std::string &problem : result.problems) ADD_FAILURE() << problem;
  ASSERT_TRUE(result.problems.empty()) << server.log();
  for (size_t stage = 0; stage < kStages; ++stage)
    EXPECT_GT(result.attempts.at(static_cast<Stage>(stage)), options.attempts / kStages / 2)
        << stage_name(static_cast<Stage>(stage));
  EXPECT_GT(result.cut_streams, options.attempts / 20)
      << "too few clients left in the middle for the test to say anything";

  Gauges gauges = read_gauges(server.port());
  for (int i = 0; i < 100 && !gauges.idle(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    gauges = read_gauges(server.port());
  }
  EXPECT_EQ(gauges.running, 0);
  EXPECT_EQ(gauges.waiting, 0);
  EXPECT_EQ(gauges.kv_blocks_used, 0);
  const std::string metrics = support::get(server.port(), "/metrics").body;
  EXPECT_GT(support::metric(metrics, "sluice_cancelled_total"), options.attempts / 20);
  EXPECT_EQ(support::metric(metrics, "sluice_plugin_errors_total"), 0);

  const auto canary = support::post(
      server.port(), "/v1/completions",
      R"({"model":"test","prompt":)" + support::tiny_ids("canary") + R"(,"temperature":0,"max_tokens":9})");
  ASSERT_EQ(canary.status, 200) << canary.body;
  EXPECT_NE(canary.body.find("\"canarycan\""), std::string::npos) << canary.body;
  const support::Exit end = server.terminate();
  EXPECT_EQ(end.code, 0) << server.log();
  std::printf("%u disconnects, %u of them inside a text, %llu characters checked\n", options.attempts,
              result.cut_streams, static_cast<unsigned long long>(result.characters));
}

}  // namespace
}  // namespace sluice::e2e

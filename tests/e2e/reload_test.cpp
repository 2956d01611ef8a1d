// Policies and their options change under a running server, and chats go on where they were.
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <csignal>
#include <thread>

#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::e2e {
namespace {

namespace json = boost::json;
using std::chrono::steady_clock;

class ReloadTest : public ::testing::Test {
 protected:
  std::string configure(const std::string &scheduler, const std::string &more = "") {
    return files_.write("server.toml", "[server]\nport = 0\nlog_format = \"text\"\n" + more +
                                           "[models.test]\npath = \"" + support::tiny_model() +
                                           "\"\nbackend = { use = \"mock\", script = \"count\", eos_token = -1, "
                                           "step_us = 2000.0 }\nsamplers = [\"greedy\"]\nmax_seqs = 2\n"
                                           "scheduler = " + scheduler + "\n");
  }
  /// Waits until the log says so.
  static bool says(const support::ServerProcess &server, const std::string &text) {
    for (const auto end = steady_clock::now() + std::chrono::seconds(20); steady_clock::now() < end;) {
      if (server.log().find(text) != std::string::npos) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  support::TempDir files_;
};

TEST_F(ReloadTest, APolicyIsSwitchedUnderLiveRequestsAndNobodyIsLost) {
  support::ServerProcess server(std::vector<std::string>{configure("\"fcfs\"")});
  std::vector<std::string> texts(8);
  std::vector<std::thread> clients;
  for (size_t i = 0; i < texts.size(); ++i)
    clients.emplace_back([&, i] {
      const auto answer = support::post(server.port(), "/v1/completions",
                                        R"({"model":"test","prompt":"a","max_tokens":120,"priority":)" + std::to_string(i) + "}");
      EXPECT_EQ(answer.status, 200) << answer.body;
      if (answer.status == 200) texts[i] = json::parse(answer.body).at("choices").at(0).at("text").as_string();
    });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const std::string names[] = {"mlfq", "fcfs"};
  for (const auto &name : names) {
    configure("\"" + name + "\"");
    EXPECT_EQ(::kill(server.process().pid(), SIGHUP), 0);
    EXPECT_TRUE(says(server, "models.test.scheduler is now \"" + name + "\"")) << server.log();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  for (auto &client : clients) client.join();
  for (const auto &text : texts) EXPECT_EQ(text, texts[0]);
  EXPECT_GT(texts[0].size(), 100U);
  EXPECT_EQ(support::metric(support::get(server.port(), "/metrics").body, "sluice_plan_fallbacks_total"), 0);
  EXPECT_EQ(server.terminate().code, 0);
}

TEST_F(ReloadTest, ABadFileChangesNothingAndAGoodOneSaysWhatNeedsARestart) {
  support::ServerProcess server(std::vector<std::string>{configure("{ use = \"fcfs\", max_chunk = 64 }")});
  const auto success = [&] {
    return support::metric(support::get(server.port(), "/metrics").body, "sluice_config_reload_success");
  };
  EXPECT_EQ(success(), 1);
  configure("{ use = \"fcfs\", max_chunck = 32 }");
  ASSERT_EQ(::kill(server.process().pid(), SIGHUP), 0);
  ASSERT_TRUE(says(server, "everything stays as it was")) << server.log();
  EXPECT_NE(server.log().find("max_chunk"), std::string::npos) << "with the nearest name";
  EXPECT_EQ(success(), 0);
  configure("{ use = \"fcfs\", max_chunk = 32 }", "max_n = 3\n");
  const auto reload = support::run({SLUICE_BINARY, "reload", std::to_string(server.process().pid())});
  EXPECT_EQ(reload.exit.code, 0) << reload.err;
  ASSERT_TRUE(says(server, "models.test.scheduler is now { use = \"fcfs\", max_chunk = 32 }")) << server.log();
  EXPECT_EQ(server.log().find("new instance"), std::string::npos) << "a hot option needs none";
  ASSERT_TRUE(says(server, "server.max_n has changed; that needs a restart")) << server.log();
  EXPECT_EQ(success(), 1);
  EXPECT_EQ(server.terminate().code, 0);
}

TEST(Reload, OnlyAServerIsAskedToReload) {
  const auto reload = support::run({SLUICE_BINARY, "reload", std::to_string(::getpid())});
  EXPECT_EQ(reload.exit.code, 1);
  EXPECT_NE(reload.err.find("is no `sluice serve`"), std::string::npos) << reload.err;
}

}  // namespace
}  // namespace sluice::e2e

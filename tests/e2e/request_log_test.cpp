// What the log says of a request, and what it must never say.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <sstream>
#include <thread>

#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::e2e {
namespace {

namespace json = boost::json;

std::vector<json::object> request_lines(const std::string &log) {
  std::vector<json::object> out;
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    boost::system::error_code ec;
    const auto value = json::parse(line, ec);
    EXPECT_FALSE(ec) << "not a JSON line: " << line;
    if (!ec && value.is_object() && value.as_object().contains("event")) out.push_back(value.as_object());
  }
  return out;
}

TEST(RequestLog, OneLinePerRequestWithoutWords) {
  support::ServerSetup setup;
  setup.server = "api_keys = [\"sesame-open-up\"]\n";
  setup.backend = R"({ use = "mock", script = "echo", step_us = 2000 })";
  support::ServerProcess server(setup);
  const auto with = [](const std::string &id) {
    return support::Headers{{"X-Request-Id", id}, {"Authorization", "Bearer sesame-open-up"}};
  };
  const std::string body = R"({"prompt":"unspeakable words","max_tokens":4,"ignore_eos":true)";
  EXPECT_EQ(support::post(server.port(), "/v1/completions", body + "}", with("whole-1")).status, 200);
  support::EventStream stream(server.port(), "/v1/completions", body + R"(,"stream":true})", with("stream-1"));
  EXPECT_TRUE(stream.read_all().done);
  {
    support::EventStream gone(server.port(), "/v1/completions",
                              R"({"prompt":"unspeakable words","max_tokens":2000,"stream":true})", with("gone-1"));
    std::string event;
    ASSERT_TRUE(gone.next(event));
  }
  EXPECT_EQ(server.terminate().code, 0);

  const std::string log = server.log();
  for (const char *secret : {"unspeakable", "words", "sesame"})
    EXPECT_EQ(log.find(secret), std::string::npos) << secret << " is in the log:\n" << log;
  const auto lines = request_lines(log);
  ASSERT_EQ(lines.size(), 3u) << log;
  const char *expected[][2] = {{"whole-1", "ok"}, {"stream-1", "ok"}, {"gone-1", "cancelled"}};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(lines[i].at("request_id"), expected[i][0]);
    EXPECT_EQ(lines[i].at("status"), expected[i][1]);
    EXPECT_EQ(lines[i].at("model"), "test");
    EXPECT_EQ(lines[i].at("route"), "/v1/completions");
    EXPECT_GT(lines[i].at("ts").to_number<double>(), 1.6e9);
    EXPECT_GT(lines[i].at("e2e_ms").to_number<double>(), 0);
    EXPECT_GT(lines[i].at("prompt_tokens").to_number<int>(), 0);
  }
  EXPECT_EQ(lines[0].at("completion_tokens").to_number<int>(), 4);
  EXPECT_EQ(lines[2].at("cancel_cause"), "disconnect");
}

}  // namespace
}  // namespace sluice::e2e

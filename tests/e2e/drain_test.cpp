// SIGTERM: what runs finishes, what comes is refused, and the process ends by itself with code 0.
#include <gtest/gtest.h>
#include <signal.h>

#include <boost/json.hpp>

#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"
#include "tests/support/websocket.hpp"

namespace sluice::e2e {
namespace {

using namespace std::chrono_literals;

support::ServerSetup slow_setup(const std::string &server = {}) {
  support::ServerSetup s;
  s.server = "log_level = \"error\"\n" + server;
  s.backend = R"({ use = "mock", script = "echo", step_us = 20000 })";
  return s;
}

std::string request(const std::string &prompt, uint32_t max_tokens, bool stream = true) {
  return R"({"model":"test","prompt":)" + support::tiny_ids(prompt) +
         R"(,"temperature":0,"ignore_eos":true,"max_tokens":)" + std::to_string(max_tokens) +
         (stream ? R"(,"stream":true})" : "}");
}

/// The status of /health/ready; 0 when the connection was closed as an idle one before its request was read.
int readiness(uint16_t port) {
  try {
    return support::get(port, "/health/ready").status;
  } catch (const std::runtime_error &) {
    return 0;
  }
}

/// Sends SIGTERM and waits until the server says that it drains.
void begin_drain(support::ServerProcess &server) {
  server.process().send(SIGTERM);
  for (int i = 0; i < 400; ++i) {
    if (readiness(server.port()) == 503) return;
    std::this_thread::sleep_for(5ms);
  }
  FAIL() << "/health/ready did not turn 503 within 2 s of SIGTERM";
}

TEST(Drain, FinishesWhatRunsAndRefusesWhatComes) {
  support::ServerProcess server(slow_setup());
  support::EventStream stream(server.port(), "/v1/completions", request("drainage", 160));
  std::string event;
  ASSERT_TRUE(stream.next(event));
  begin_drain(server);

  const auto refused = support::post(server.port(), "/v1/completions", request("late", 4));
  EXPECT_EQ(refused.status, 503) << refused.body;
  const auto error = boost::json::parse(refused.body).at("error");
  EXPECT_EQ(error.at("code"), "shutting_down");
  EXPECT_FALSE(refused.header("retry-after").empty());
  EXPECT_EQ(refused.header("connection"), "close");
  EXPECT_EQ(support::get(server.port(), "/health").status, 200) << "alive until the end";

  support::StreamEvent first;
  ASSERT_TRUE(support::parse_stream_event(event, first));
  const auto rest = stream.read_all();
  EXPECT_TRUE(rest.done);
  EXPECT_FALSE(rest.error);
  std::string expected;
  while (expected.size() < 160) expected += "drainage";
  EXPECT_EQ(first.text + rest.text.at(0), expected);
  EXPECT_EQ(rest.finish.at(0), "length");
  const auto exit = server.process().wait(10s);
  ASSERT_TRUE(exit.has_value()) << "still runs 10 s after the last answer";
  EXPECT_EQ(exit->code, 0) << server.log();
}

TEST(Drain, PendingAnswersWithoutStreamFinishToo) {
  support::ServerProcess server(slow_setup());
  support::TcpClient client(server.port());
  client.send(support::request_bytes("POST", "/v1/completions", request("whole", 120, false)));
  std::this_thread::sleep_for(150ms);
  begin_drain(server);
  std::string left;
  const auto response = support::read_response(client, left);
  EXPECT_EQ(response.status, 200) << response.body;
  std::string expected;
  while (expected.size() < 120) expected += "whole";
  EXPECT_NE(response.body.find('"' + expected + '"'), std::string::npos) << response.body;
  EXPECT_EQ(server.process().wait(10s).value_or(support::Exit{}).code, 0) << server.log();
}

TEST(Drain, SocketsHearOfItAndFinish) {
  support::ServerProcess server(slow_setup());
  support::WsClient socket(server.port());
  socket.send(R"({"type":"request","id":"a","method":"POST","path":"/v1/completions","body":)" +
              request("socket", 120) + "}");
  std::string text;
  bool goaway = false, done = false, refused = false;
  uint16_t code = 0;
  while (const auto frame = socket.receive()) {
    if (frame->opcode == support::kClose) {
      code = support::close_code_of(*frame);
      break;
    }
    const auto message = boost::json::parse(frame->payload).as_object();
    const auto &type = message.at("type");
    if (type == "event") {
      if (text.empty()) server.process().send(SIGTERM);
      support::StreamEvent event;
      ASSERT_TRUE(support::parse_stream_event(boost::json::serialize(message.at("data")), event));
      text += event.text;
    } else if (type == "goaway") {
      goaway = true;
      socket.send(R"({"type":"request","id":"b","method":"POST","path":"/v1/completions","body":)" +
                  request("late", 4) + "}");
    } else if (type == "error") {
      refused = message.at("id") == "b" && message.at("status") == 503;
    } else if (type == "done") {
      done = true;
    }
  }
  EXPECT_TRUE(goaway);
  EXPECT_TRUE(refused);
  EXPECT_TRUE(done);
  std::string expected;
  while (expected.size() < 120) expected += "socket";
  EXPECT_EQ(text, expected);
  EXPECT_EQ(code, 1001);
  EXPECT_EQ(server.process().wait(10s).value_or(support::Exit{}).code, 0) << server.log();
}

TEST(Drain, CutsWhatOutlivesTheTimeoutWithAnError) {
  support::ServerProcess server(slow_setup("drain_timeout = \"300ms\"\n"));
  support::EventStream stream(server.port(), "/v1/completions", request("endless", 3000));
  std::string event;
  ASSERT_TRUE(stream.next(event));
  const auto begin = std::chrono::steady_clock::now();
  server.process().send(SIGTERM);
  const auto rest = stream.read_all();
  EXPECT_TRUE(rest.error) << "a stream that is cut must say so";
  EXPECT_FALSE(rest.done) << "[DONE] would say that the answer is whole";
  EXPECT_EQ(server.process().wait(10s).value_or(support::Exit{}).code, 0) << server.log();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 8s);
}

TEST(Drain, ASecondSignalEndsItAtOnce) {
  support::ServerProcess server(slow_setup());
  support::EventStream stream(server.port(), "/v1/completions", request("endless", 3000));
  std::string event;
  ASSERT_TRUE(stream.next(event));
  begin_drain(server);
  server.process().send(SIGTERM);
  EXPECT_TRUE(server.process().wait(5s).has_value()) << "still runs 5 s after the second signal";
}

TEST(Drain, AnIdleServerEndsAtOnce) {
  support::ServerProcess server(slow_setup());
  const support::TcpClient idle(server.port());
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(server.terminate().code, 0) << server.log();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
}

}  // namespace
}  // namespace sluice::e2e

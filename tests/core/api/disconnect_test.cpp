// A client that goes away costs nothing more, whatever its request was doing.
#include <gtest/gtest.h>

#include <random>

#include "tests/core/api/api_server.hpp"
#include "tests/core/net/ws_client.hpp"

namespace sluice {
namespace {

using request::CancelCause;
using test::ApiServer;
using test::post;
using test::RawClient;

std::string request(bool stream, const std::string &prompt, int max_tokens) {
  return post("/v1/completions", R"({"max_tokens":)" + std::to_string(max_tokens) + R"(,"stream":)" + (stream ? "true" : "false") +
                                     R"(,"prompt":")" + prompt + "\"}");
}

TEST(Disconnect, BeforeTheFirstTokenCancels) {
  ApiServer s;
  for (const bool stream : {false, true}) {
    for (const bool abrupt : {false, true}) {
      const size_t before = s.generator->cancelled().size();
      RawClient client(s.port());
      client.send(request(stream, "x", 100));
      ASSERT_TRUE(s.generator->wait_open(1));
      abrupt ? client.reset() : client.close();
      ASSERT_TRUE(ApiServer::eventually([&] { return s.generator->cancelled().size() == before + 1; })) << stream << abrupt;
      EXPECT_EQ(s.generator->cancelled().back().second, CancelCause::kDisconnect);
      EXPECT_TRUE(ApiServer::eventually([&] { return s.service.inflight() == 0; }));
      s.generator->step();
      EXPECT_EQ(s.generator->open(), 0u);
    }
  }
}

TEST(Disconnect, AmidTheAnswerCancels) {
  ApiServer s;
  for (const bool stream : {false, true}) {
    const size_t before = s.generator->cancelled().size();
    RawClient client(s.port());
    client.send(request(stream, "x", 100));
    ASSERT_TRUE(s.generator->wait_open(1));
    s.generator->steps(5);
    if (stream) {
      ASSERT_TRUE(client.until("\"e\""));
    }
    client.close();
    ASSERT_TRUE(ApiServer::eventually([&] { return s.generator->cancelled().size() == before + 1; }));
    s.generator->step();
    EXPECT_EQ(s.generator->open(), 0u);
  }
}

TEST(Disconnect, WhileTokenisingSubmitsNothing) {
  lifecycle::ServiceOptions options;
  options.worker_threads = 1;
  ApiServer s({}, options);
  s.generator->limits_.max_context = 10'000'000;
  std::atomic<bool> go{false};
  s.service.workers().run([&] { while (!go) std::this_thread::yield(); });  // the workers are busy
  RawClient client(s.port());
  client.send(request(false, std::string(20'000, 'x'), 5));
  ASSERT_TRUE(ApiServer::eventually([&] { return s.service.inflight() == 1; }));
  client.close();
  EXPECT_TRUE(ApiServer::eventually([&] { return s.service.inflight() == 0; }));
  go = true;
  std::atomic<bool> passed{false};
  s.service.workers().run([&] { passed = true; });
  EXPECT_TRUE(ApiServer::eventually([&] { return passed.load(); }));
  EXPECT_TRUE(s.generator->submitted().empty());
}

TEST(Disconnect, OfAllAnswersOfARequest) {
  ApiServer s;
  RawClient client(s.port());
  client.send(post("/v1/completions", R"({"prompt":["a","b"],"n":3,"max_tokens":100})"));
  ASSERT_TRUE(s.generator->wait_open(6));
  client.close();
  EXPECT_TRUE(ApiServer::eventually([&] { return s.generator->cancelled().size() == 6; }));
}

TEST(Disconnect, OfASocketCancelsEverythingOnIt) {
  ApiServer s;
  test::WsClient client(s.port(), "/v1/ws");
  for (int i = 0; i < 4; ++i) {
    client.text(R"({"type":"request","id":"r)" + std::to_string(i) + R"(","path":"/v1/completions","body":{"prompt":"x","max_tokens":100}})");
  }
  ASSERT_TRUE(s.generator->wait_open(4));
  client.raw().reset();
  EXPECT_TRUE(ApiServer::eventually([&] { return s.generator->cancelled().size() == 4 && s.service.inflight() == 0; }));
}

TEST(Disconnect, AStalledReaderIsCancelledAsSlow) {
  net::ServerOptions options;
  options.limits.stall_timeout = std::chrono::milliseconds(300);
  options.limits.stream_queue_bytes = 16 * 1024;
  ApiServer s(options);
  s.generator->limits_.max_context = 10'000'000;
  RawClient client(s.port(), 4096);
  client.send(request(true, "x", 1'000'000));
  ASSERT_TRUE(s.generator->wait_open(1));
  s.generator->run(std::chrono::microseconds(1));
  ASSERT_TRUE(ApiServer::eventually([&] { return !s.generator->cancelled().empty(); }));
  EXPECT_EQ(s.generator->cancelled().front().second, CancelCause::kSlowConsumer);
  EXPECT_TRUE(ApiServer::eventually([&] { return s.service.inflight() == 0; }));
}

TEST(Disconnect, AStormLeavesNothingBehindAndEveryTextIsAPrefix) {
  ApiServer s;
  s.generator->run(std::chrono::microseconds(50));
  std::string reference;
  for (int i = 0; i < 400; ++i) reference += static_cast<char>('a' + i % 26);
  std::mt19937 random(11);
  for (int i = 0; i < 400; ++i) {
    RawClient client(s.port());
    const std::string bytes = request(random() % 4 != 0, "x", 400);
    client.send(std::string_view(bytes).substr(0, random() % 8 == 0 ? random() % bytes.size() : bytes.size()));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
    client.closed(std::chrono::milliseconds(0));  // takes what has come
    std::string text;
    const std::string got = client.buffered();
    for (size_t at = 0; (at = got.find("\"text\":\"", at)) != std::string::npos; ++at) {
      const size_t end = got.find('"', at + 8);
      if (end != std::string::npos) text += got.substr(at + 8, end - at - 8);
    }
    EXPECT_TRUE(reference.starts_with(text)) << text;
    random() % 2 ? client.reset() : client.close();
  }
  EXPECT_TRUE(ApiServer::eventually([&] { return s.service.inflight() == 0; }));
  EXPECT_TRUE(s.generator->wait_open(0));
}

}  // namespace
}  // namespace sluice

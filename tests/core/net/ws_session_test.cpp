// RFC 6455 as this server is configured, and what it refuses.
#include <gtest/gtest.h>

#include "tests/core/net/test_server.hpp"
#include "tests/core/net/ws_client.hpp"

namespace sluice {
namespace {

using std::chrono::milliseconds;
using test::TestServer;
using test::one_thread;
using test::WsClient;

uint16_t close_code(WsClient &client) {
  while (const auto frame = client.next()) {
    if (frame->opcode == 8) return frame->close_code();
  }
  return 0;
}

TEST(WsSession, UpgradesAndEchoes) {
  TestServer server;
  WsClient client(server.port(), "/ws", "Sec-WebSocket-Protocol: other, sluice.v1\r\n");
  ASSERT_EQ(client.handshake().status, 101);
  EXPECT_EQ(client.handshake().headers.at("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  EXPECT_EQ(client.handshake().headers.at("sec-websocket-protocol"), "sluice.v1");
  EXPECT_TRUE(client.handshake().headers.contains("x-request-id"));
  client.text("hi");
  EXPECT_EQ(client.next()->payload, "echo:hi");
}

TEST(WsSession, TakesFragmentsWithControlFramesBetween) {
  TestServer server;
  WsClient client(server.port(), "/ws");
  client.frame(0x01, "one ");
  client.frame(0x89, "are you there");
  client.frame(0x00, "two ");
  client.frame(0x80, "three");
  const auto pong = client.next();
  EXPECT_EQ(pong->opcode, 10);
  EXPECT_EQ(pong->payload, "are you there");
  EXPECT_EQ(client.next()->payload, "echo:one two three");
}

TEST(WsSession, TakesACharacterSplitOverFragments) {
  TestServer server;
  WsClient client(server.port(), "/ws");
  client.frame(0x01, "\xe2\x82");
  client.frame(0x80, "\xac");
  EXPECT_EQ(client.next()->payload, "echo:\xe2\x82\xac");
}

struct Broken {
  const char *name;
  int first_byte;
  std::string payload;
  bool masked;
  uint16_t code;
};

TEST(WsSession, ClosesWithTheRightCode) {
  TestServer server(one_thread());
  const Broken cases[] = {
      {"binary", 0x82, "x", true, 1003},
      {"bad utf-8", 0x81, "\xff\xfe", true, 1007},
      {"half a character", 0x81, "\xe2\x82", true, 1007},
      {"surrogate", 0x81, "\xed\xa0\x80", true, 1007},
      {"oversize", 0x81, std::string(1024 * 1024 + 1, 'x'), true, 1009},
      {"unmasked", 0x81, "x", false, 1002},
      {"reserved bit", 0xc1, "x", true, 1002},
      {"reserved opcode", 0x83, "x", true, 1002},
      {"reserved control", 0x8b, "x", true, 1002},
      {"continuation of nothing", 0x80, "x", true, 1002},
      {"fragmented ping", 0x09, "x", true, 1002},
      {"long ping", 0x89, std::string(126, 'x'), true, 1002},
      {"close with one byte", 0x88, "x", true, 1002},
      {"close with a bad code", 0x88, std::string("\x03\xed", 2), true, 1002},
  };
  for (const auto &c : cases) {
    SCOPED_TRACE(c.name);
    WsClient client(server.port(), "/ws");
    client.frame(c.first_byte, c.payload, c.masked);
    EXPECT_EQ(close_code(client), c.code);
  }
}

TEST(WsSession, AnswersAClose) {
  TestServer server;
  WsClient client(server.port(), "/ws");
  client.frame(0x88, std::string("\x03\xe8", 2));
  EXPECT_EQ(close_code(client), 1000);
  EXPECT_TRUE(TestServer::eventually([&] { return server.gone == 1; }));
}

TEST(WsSession, ClosesAsTheProtocolWants) {
  TestServer server;
  WsClient client(server.port(), "/ws");
  client.text("close");
  EXPECT_EQ(close_code(client), 4000);
}

TEST(WsSession, NoticesAnAbruptEnd) {
  TestServer server;
  WsClient client(server.port(), "/ws");
  client.text("x");
  ASSERT_TRUE(client.next());
  client.raw().reset();
  EXPECT_TRUE(TestServer::eventually([&] { return server.gone == 1; }));
}

TEST(WsSession, PingsASilentPeerAndDropsADeadOne) {
  auto options = one_thread();
  options.limits.ws_ping_interval = milliseconds(50);
  TestServer server(options);
  WsClient client(server.port(), "/ws");
  const auto ping = client.next();
  ASSERT_TRUE(ping);
  EXPECT_EQ(ping->opcode, 9);
  EXPECT_TRUE(TestServer::eventually([&] { return server.gone == 1; })) << "no pong came";
}

TEST(WsSession, KeepsAPeerThatOnlyPings) {
  auto options = one_thread();
  options.limits.ws_ping_interval = milliseconds(100);
  TestServer server(options);
  WsClient client(server.port(), "/ws");
  for (int i = 0; i < 20; ++i) {
    client.frame(0x89, "");
    std::this_thread::sleep_for(milliseconds(20));
  }
  EXPECT_EQ(server.gone, 0);
}

TEST(WsSession, CutsOffAPeerThatNeverReads) {
  auto options = one_thread();
  options.limits.stall_timeout = milliseconds(200);
  TestServer server(options);
  WsClient client(server.port(), "/ws", "", 4096);
  client.text("flood");
  EXPECT_TRUE(TestServer::eventually([&] { return server.stalled == 1; }));
}

TEST(WsSession, RefusesBadHandshakes) {
  TestServer server;
  const auto status = [&](const std::string &fields) {
    test::RawClient client(server.port());
    client.send("GET /ws HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n");
    const auto response = client.response();
    return response ? response->status : 0;
  };
  const std::string key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
  const std::string upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
  EXPECT_EQ(status(""), 426);
  EXPECT_EQ(status(upgrade + key), 426) << "no version";
  EXPECT_EQ(status(upgrade + key + "Sec-WebSocket-Version: 8\r\n"), 426);
  EXPECT_EQ(status("Upgrade: websocket\r\n" + key + "Sec-WebSocket-Version: 13\r\n"), 426);
  EXPECT_EQ(status(upgrade + "Sec-WebSocket-Version: 13\r\n"), 400) << "no key";
  EXPECT_EQ(status(upgrade + key + "Sec-WebSocket-Version: 13\r\nContent-Length: 1\r\n"), 400);
  EXPECT_EQ(status(upgrade + key + "Sec-WebSocket-Version: 13\r\nOrigin: https://evil.example\r\n"), 403);
  EXPECT_EQ(status(upgrade + key + "Sec-WebSocket-Version: 13\r\nOrigin: null\r\n"), 403);
  test::RawClient post(server.port());
  post.send("POST /ws HTTP/1.1\r\nHost: localhost\r\n" + upgrade + "\r\n");
  EXPECT_EQ(post.response()->status, 405);
}

TEST(WsSession, TakesTheKeyFromASubprotocolAndNeverEchoesIt) {
  auto options = one_thread();
  options.access.api_keys = {"secret"};
  TestServer server(options);
  WsClient good(server.port(), "/ws", "Sec-WebSocket-Protocol: sluice.v1, openai-insecure-api-key.secret\r\n");
  ASSERT_EQ(good.handshake().status, 101);
  EXPECT_EQ(good.handshake().headers.at("sec-websocket-protocol"), "sluice.v1");
  WsClient bearer(server.port(), "/ws", "Authorization: Bearer secret\r\n");
  EXPECT_EQ(bearer.handshake().status, 101);
  EXPECT_FALSE(bearer.handshake().headers.contains("sec-websocket-protocol"));
  EXPECT_EQ(WsClient(server.port(), "/ws").handshake().status, 401);
  EXPECT_EQ(WsClient(server.port(), "/ws", "Sec-WebSocket-Protocol: openai-insecure-api-key.wrong\r\n").handshake().status, 401);
  EXPECT_EQ(WsClient(server.port(), "/ws?key=secret").handshake().status, 401);
}

TEST(WsSession, DrainAndStopSayGoodbye) {
  TestServer server;
  WsClient drained(server.port(), "/ws");
  drained.text("x");
  ASSERT_TRUE(drained.next());
  server.server->drain();
  EXPECT_EQ(close_code(drained), 1001);
}

TEST(WsSession, StopSaysGoodbye) {
  TestServer server;
  WsClient client(server.port(), "/ws");
  client.text("x");
  ASSERT_TRUE(client.next());
  std::thread stopper([&] { server.server->stop(); });
  EXPECT_EQ(close_code(client), 1001);
  client.raw().close();
  stopper.join();
  EXPECT_EQ(server.gone, 1);
}

}  // namespace
}  // namespace sluice

// Server-sent events: framing, coalescing, keep-alive comments and backpressure.
#include <gtest/gtest.h>

#include "tests/core/net/test_server.hpp"

namespace sluice {
namespace {

using std::chrono::milliseconds;
using test::get;
using test::RawClient;
using test::TestServer;

net::ServerOptions quiet() {
  net::ServerOptions options;
  options.io_threads = 1;
  options.limits.sse_keepalive = milliseconds(0);
  return options;
}

TEST(Stream, SendsEventsAsTheyComeAndEndsOnce) {
  TestServer server(quiet());
  RawClient client(server.port());
  client.send(get("/stream"));
  const auto exchange = server.kept();
  ASSERT_TRUE(exchange);
  server.on_io(*exchange, [&] {
    exchange->out() += "data: 1\n\n";
    exchange->flush();
  });
  const auto head = client.response(milliseconds(5000), true);
  ASSERT_TRUE(head);
  EXPECT_EQ(head->status, 200);
  EXPECT_EQ(head->headers.at("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(head->headers.at("transfer-encoding"), "chunked");
  EXPECT_EQ(head->headers.at("x-accel-buffering"), "no");
  EXPECT_EQ(*client.until("\n\n\r\n"), "9\r\ndata: 1\n\n\r\n");
  server.on_io(*exchange, [&] {
    exchange->out() += "data: 2\n\n";
    exchange->out() += "data: 3\n\n";
    exchange->finish(net::Exchange::End::kComplete);
    exchange->finish(net::Exchange::End::kComplete);
  });
  EXPECT_EQ(*client.until("0\r\n\r\n"), "12\r\ndata: 2\n\ndata: 3\n\n\r\n0\r\n\r\n");
  client.send(get("/ok"));
  EXPECT_EQ(client.response()->body, "ok") << "the connection is kept";
  EXPECT_EQ(server.gone, 0);
}

TEST(Stream, FillsSilenceWithComments) {
  auto options = quiet();
  options.limits.sse_keepalive = milliseconds(40);
  TestServer server(options);
  RawClient client(server.port());
  client.send(get("/stream"));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(client.until(": ping\n\n"));
}

TEST(Stream, CloseEndsTheConnection) {
  TestServer server(quiet());
  RawClient client(server.port());
  client.send(get("/stream"));
  const auto exchange = server.kept();
  server.on_io(*exchange, [&] {
    exchange->out() += "data: error\n\n";
    exchange->finish(net::Exchange::End::kClose);
  });
  EXPECT_EQ(client.response()->body, "data: error\n\n");
  EXPECT_TRUE(client.closed());
}

TEST(Stream, OverHttp10IsEndedByTheClose) {
  TestServer server(quiet());
  RawClient client(server.port());
  client.send("GET /stream HTTP/1.0\r\nHost: localhost\r\n\r\n");
  const auto exchange = server.kept();
  server.on_io(*exchange, [&] {
    exchange->out() += "data: 1\n\n";
    exchange->finish(net::Exchange::End::kComplete);
  });
  const auto response = client.response();
  ASSERT_TRUE(response);
  EXPECT_FALSE(response->headers.contains("transfer-encoding"));
  EXPECT_EQ(response->body, "data: 1\n\n");
}

TEST(Stream, NoticesADisconnectBetweenEvents) {
  TestServer server(quiet());
  RawClient client(server.port());
  client.send(get("/stream"));
  ASSERT_TRUE(server.kept());
  client.reset();
  EXPECT_TRUE(TestServer::eventually([&] { return server.gone == 1; }));
}

TEST(Stream, BacksUpWhenThePeerDoesNotReadAndGoesOnWhenItDoes) {
  auto options = quiet();
  options.limits.stream_queue_bytes = 64 * 1024;
  TestServer server(options);
  RawClient client(server.port(), 4096);
  client.send(get("/stream"));
  const auto exchange = server.kept();
  ASSERT_TRUE(exchange);
  std::atomic<int> resumed{0};
  size_t produced = 0;
  server.on_io(*exchange, [&] {
    exchange->on_writable([&] { ++resumed; });
    for (; exchange->writable() && produced < 100'000'000; produced += 1000) {
      exchange->out() += std::string(1000, 'x');
      exchange->flush();
    }
  });
  ASSERT_LT(produced, 50'000'000u) << "nothing stopped the producer";
  EXPECT_EQ(resumed, 0);
  ASSERT_TRUE(client.response(milliseconds(5000), true));
  server.on_io(*exchange, [&] { EXPECT_EQ(server.stalled, 0); });
  std::string seen;
  while (resumed == 0) {
    const auto more = client.until("\r\n");
    ASSERT_TRUE(more);
  }
  server.on_io(*exchange, [&] { EXPECT_TRUE(exchange->writable()); });
}

TEST(Stream, CutsOffAPeerThatNeverReads) {
  auto options = quiet();
  options.limits.stream_queue_bytes = 16 * 1024;
  options.limits.stall_timeout = milliseconds(200);
  TestServer server(options);
  RawClient client(server.port(), 4096);
  client.send(get("/stream"));
  const auto exchange = server.kept();
  ASSERT_TRUE(exchange);
  server.on_io(*exchange, [&] {
    while (exchange->writable()) {
      exchange->out() += std::string(1000, 'x');
      exchange->flush();
    }
  });
  EXPECT_TRUE(TestServer::eventually([&] { return server.stalled == 1; }));
  EXPECT_EQ(server.gone, 0);
}

}  // namespace
}  // namespace sluice

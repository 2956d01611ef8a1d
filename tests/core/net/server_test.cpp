#include <gtest/gtest.h>

#include "tests/core/net/test_server.hpp"

namespace sluice {
namespace {

using std::chrono::milliseconds;
using test::get;
using test::post;
using test::RawClient;
using test::TestServer;
using test::one_thread;

TEST(Server, AnswersPipelinedRequestsInOrder) {
  TestServer server;
  RawClient client(server.port());
  client.send(get("/item/1") + post("/echo", "two") + get("/item/3") + get("/nope") + get("/item/5"));
  EXPECT_EQ(client.response()->body, "1");
  EXPECT_EQ(client.response()->body, "two");
  EXPECT_EQ(client.response()->body, "3");
  EXPECT_EQ(client.response()->status, 404);
  EXPECT_EQ(client.response()->body, "5");
}

TEST(Server, ServesThePipelineAfterASlowAnswer) {
  TestServer server;
  RawClient client(server.port());
  client.send(get("/pending") + get("/item/2"));
  const auto exchange = server.kept();
  ASSERT_TRUE(exchange);
  EXPECT_FALSE(client.response(milliseconds(50)));
  server.on_io(*exchange, [&] { exchange->respond({200, "text/plain", "1", {}}); });
  EXPECT_EQ(client.response()->body, "1");
  EXPECT_EQ(client.response()->body, "2");
}

TEST(Server, ClosesWhenAsked) {
  TestServer server;
  RawClient client(server.port());
  client.send(get("/ok", "Connection: close\r\n") + get("/ok"));
  EXPECT_EQ(client.response()->headers.at("connection"), "close");
  EXPECT_TRUE(client.closed());
  EXPECT_EQ(client.buffered(), "");
}

TEST(Server, HeadOptionsAndMethods) {
  TestServer server;
  RawClient client(server.port());
  client.send("HEAD /ok HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const auto head = client.response(milliseconds(5000), true);
  ASSERT_TRUE(head);
  EXPECT_EQ(head->headers.at("content-length"), "2");
  client.send("OPTIONS /ok HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const auto options = client.response();
  EXPECT_EQ(options->status, 204);
  EXPECT_EQ(options->headers.at("allow"), "GET, HEAD, OPTIONS");
  client.send("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(client.response()->status, 204);
  for (const char *method : {"POST", "DELETE", "PUT", "TRACE", "PATCH", "get", "BREW"}) {
    client.send(std::string(method) + " /ok HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const auto response = client.response();
    ASSERT_TRUE(response) << method;
    EXPECT_EQ(response->status, 405) << method;
    EXPECT_EQ(response->headers.at("allow"), "GET, HEAD, OPTIONS");
  }
  client.send("GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(client.response()->headers.at("allow"), "POST, OPTIONS");
}

TEST(Server, WantsJson) {
  TestServer server;
  for (const char *type : {"", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n",
                           "Content-Type: application/jsonx\r\n"}) {
    RawClient client(server.port());
    client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\n" + std::string(type) + "Content-Length: 2\r\n\r\n{}");
    EXPECT_EQ(client.response()->status, 415) << type;
    EXPECT_TRUE(client.closed()) << "the body was not read";
  }
  RawClient client(server.port());
  client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}");
  EXPECT_EQ(client.response()->status, 200);
}

TEST(Server, ContinuesOnlyWhatItWillTake) {
  TestServer server;
  const std::string fields = "Host: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: ";
  RawClient good(server.port());
  good.send("POST /echo HTTP/1.1\r\n" + fields + "2\r\n\r\n");
  EXPECT_EQ(good.response()->status, 100);
  good.send("{}");
  EXPECT_EQ(good.response()->body, "{}");
  RawClient big(server.port());
  big.send("POST /echo HTTP/1.1\r\n" + fields + "999999999\r\n\r\n");
  EXPECT_EQ(big.response()->status, 413);
  EXPECT_TRUE(big.closed());
}

TEST(Server, DecodesPathParameters) {
  TestServer server;
  RawClient client(server.port());
  client.send(get("/item/a%2Fb%20c"));
  EXPECT_EQ(client.response()->body, "a/b c");
  client.send(get("/item/"));
  EXPECT_EQ(client.response()->status, 404);
}

TEST(Server, EchoesPlainRequestIdsAndReplacesOthers) {
  TestServer server;
  RawClient client(server.port());
  client.send(get("/ok", "X-Request-Id: abc-1.2_3\r\n"));
  EXPECT_EQ(client.response()->headers.at("x-request-id"), "abc-1.2_3");
  for (const std::string &bad : {std::string(""), std::string("a b"), std::string("a\"b"), std::string(200, 'a'), std::string("\xc3\xa9")}) {
    client.send(get("/ok", "X-Request-Id: " + bad + "\r\n"));
    const auto id = client.response()->headers.at("x-request-id");
    EXPECT_NE(id, bad);
    EXPECT_TRUE(id.starts_with("req_")) << id;
  }
}

// ---- who may ----------------------------------------------------------------------------------------------------

TEST(Server, EveryRouteNeedsTheKeyButThePublicOnes) {
  auto options = one_thread();
  options.access.api_keys = {"secret"};
  TestServer server(options);
  for (const char *path : {"/ok", "/pending", "/stream", "/item/1", "/ws", "/nope", "/"}) {
    for (const char *header : {"", "Authorization: Bearer wrong\r\n", "Authorization: Basic secret\r\n", "X-Api-Key: secret\r\n"}) {
      RawClient client(server.port());
      client.send(get(path, header));
      const auto response = client.response();
      ASSERT_TRUE(response) << path;
      EXPECT_EQ(response->status, 401) << path << " " << header;
      EXPECT_EQ(response->headers.at("www-authenticate"), "Bearer");
      EXPECT_NE(response->body.find("invalid_api_key"), std::string::npos);
    }
  }
  RawClient client(server.port());
  client.send(post("/echo?key=secret", "{}"));
  EXPECT_EQ(client.response()->status, 401) << "a key in the query is no key";
  RawClient open(server.port());
  open.send(get("/public") + get("/ok", "Authorization: Bearer secret\r\n"));
  EXPECT_EQ(open.response()->body, "public");
  EXPECT_EQ(open.response()->body, "ok");
  EXPECT_EQ(server.handled, 1);
}

TEST(Server, RefusesForeignHostsAndOrigins) {
  auto options = one_thread();
  options.access.allowed_hosts = {"chat.example"};
  options.access.allowed_origins = {"https://ui.example"};
  TestServer server(options);
  const auto status = [&](const std::string &host, const std::string &origin) {
    RawClient client(server.port());
    client.send("GET /ok HTTP/1.1\r\nHost: " + host + "\r\n" + (origin.empty() ? "" : "Origin: " + origin + "\r\n") + "\r\n");
    const auto response = client.response();
    return response ? response->status : 0;
  };
  for (const char *host : {"localhost", "127.0.0.1:80", "[::1]", "chat.example"}) EXPECT_EQ(status(host, ""), 200) << host;
  for (const char *host : {"evil.example", "localhost.evil", "10.0.0.1", "a.local"}) EXPECT_EQ(status(host, ""), 421) << host;
  EXPECT_EQ(status("localhost:80", "http://localhost:80"), 200);
  EXPECT_EQ(status("localhost", "https://ui.example"), 200);
  for (const char *origin : {"null", "https://evil.example", "http://localhost:81", "http://ui.example"}) {
    EXPECT_EQ(status("localhost:80", origin), 403) << origin;
  }
}

TEST(Server, SendsCorsHeadersToListedOriginsOnly) {
  auto options = one_thread();
  options.access.allowed_origins = {"https://ui.example"};
  options.access.api_keys = {"secret"};
  TestServer server(options);
  RawClient client(server.port());
  client.send("OPTIONS /echo HTTP/1.1\r\nHost: localhost\r\nOrigin: https://ui.example\r\nAccess-Control-Request-Method: POST\r\n\r\n");
  const auto preflight = client.response();
  EXPECT_EQ(preflight->status, 204);
  EXPECT_EQ(preflight->headers.at("access-control-allow-origin"), "https://ui.example");
  EXPECT_NE(preflight->headers.at("access-control-allow-headers").find("authorization"), std::string::npos);
  client.send(get("/ok", "Origin: https://ui.example\r\nAuthorization: Bearer secret\r\n"));
  EXPECT_EQ(client.response()->headers.at("access-control-allow-origin"), "https://ui.example");
  client.send(get("/ok", "Authorization: Bearer secret\r\n"));
  EXPECT_FALSE(client.response()->headers.contains("access-control-allow-origin"));
}

TEST(Server, RefusesAPublicBindWithoutAKey) {
  metrics::Registry metrics;
  net::ServerOptions options;
  options.host = "0.0.0.0";
  options.port = 0;
  net::Server open(options, {}, metrics);
  const auto refused = open.start();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().param, "server.host");
  options.access.api_keys = {"secret"};
  net::Server guarded(options, {}, metrics);
  EXPECT_TRUE(guarded.start());
}

TEST(Server, SaysWhenThePortIsTaken) {
  TestServer server;
  metrics::Registry metrics;
  net::ServerOptions options;
  options.port = server.port();
  net::Server second(options, {}, metrics);
  const auto refused = second.start();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().param, "server.port");
}

// ---- time and room ----------------------------------------------------------------------------------------------

TEST(Server, CutsOffSlowHeads) {
  auto options = one_thread();
  options.limits.head_timeout = milliseconds(200);
  TestServer server(options);
  RawClient silent(server.port()), slow(server.port());
  const auto begin = std::chrono::steady_clock::now();
  slow.send("GET /ok HTTP/1.1\r\nHost: loc");
  for (int i = 0; i < 4; ++i) {  // a byte now and then does not extend the deadline
    std::this_thread::sleep_for(milliseconds(40));
    slow.send("a");
  }
  EXPECT_EQ(slow.response()->status, 408);
  EXPECT_TRUE(slow.closed());
  EXPECT_TRUE(silent.closed());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(4));
}

TEST(Server, CutsOffSlowBodies) {
  auto options = one_thread();
  options.limits.body_timeout = milliseconds(100);
  TestServer server(options);
  RawClient client(server.port());
  client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n12345");
  EXPECT_EQ(client.response()->status, 408);
  EXPECT_TRUE(client.closed());
}

TEST(Server, ClosesIdleConnectionsQuietly) {
  auto options = one_thread();
  options.limits.idle_timeout = milliseconds(100);
  TestServer server(options);
  RawClient client(server.port());
  client.send(get("/ok"));
  EXPECT_EQ(client.response()->status, 200);
  EXPECT_TRUE(client.closed());
  EXPECT_EQ(client.buffered(), "");
}

TEST(Server, TurnsAwayWhatIsTooMany) {
  auto options = one_thread();
  options.limits.max_connections = 2;
  TestServer server(options);
  RawClient a(server.port()), b(server.port());
  a.send(get("/ok"));
  b.send(get("/ok"));
  EXPECT_EQ(a.response()->status, 200);
  EXPECT_EQ(b.response()->status, 200);
  RawClient c(server.port());
  const auto response = c.response();
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 503);
  EXPECT_TRUE(c.closed());
  a.close();
  EXPECT_TRUE(TestServer::eventually([&] {
    RawClient d(server.port());
    d.send(get("/ok"));
    const auto r = d.response();
    return r && r->status == 200;
  }));
}

TEST(Server, LargeBodiesArriveWhole) {
  TestServer server(one_thread());
  std::string body(3'000'000, 'x');
  for (size_t i = 0; i < body.size(); i += 4096) body[i] = static_cast<char>('a' + i / 4096 % 26);
  RawClient client(server.port());
  std::thread sender([&] { client.send(post("/echo", body)); });
  const auto response = client.response(std::chrono::seconds(20));
  sender.join();
  ASSERT_TRUE(response);
  EXPECT_TRUE(response->body == body);
}

// ---- going away -------------------------------------------------------------------------------------------------

TEST(Server, NoticesADisconnectWhileAHandlerWorks) {
  TestServer server;
  for (const bool abrupt : {false, true}) {
    const int before = server.gone;
    RawClient client(server.port());
    client.send(get("/pending"));
    const auto exchange = server.kept(abrupt ? 2 : 1);
    ASSERT_TRUE(exchange);
    abrupt ? client.reset() : client.close();
    EXPECT_TRUE(TestServer::eventually([&] { return server.gone == before + 1; }));
    server.on_io(*exchange, [&] {
      EXPECT_FALSE(exchange->open());
      exchange->respond({200, "text/plain", "too late", {}});
    });
  }
  EXPECT_NE(server.metrics.text().find("code=\"499\",route=\"/pending\"} 2"), std::string::npos) << server.metrics.text();
}

TEST(Server, NoticesADisconnectBehindAFullPipeline) {
  TestServer server(one_thread());
  RawClient client(server.port());
  client.send(get("/pending"));
  ASSERT_TRUE(server.kept());
  client.send(std::string(100'000, 'x'));  // more than is read ahead, less than the kernel holds
  client.close();
  EXPECT_TRUE(TestServer::eventually([&] { return server.gone == 1; }));
}

TEST(Server, StopEndsEverything) {
  auto server = std::make_unique<TestServer>();
  RawClient pending(server->port()), idle(server->port());
  pending.send(get("/pending"));
  idle.send(get("/ok"));
  ASSERT_TRUE(server->kept());
  EXPECT_EQ(idle.response()->status, 200);
  server->server->stop();
  server->server->stop();
  EXPECT_EQ(server->gone, 1);
  EXPECT_TRUE(pending.closed());
  EXPECT_TRUE(idle.closed());
}

TEST(Server, DrainClosesIdleAndFinishesTheRest) {
  TestServer server(one_thread());
  RawClient idle(server.port()), busy(server.port());
  idle.send(get("/ok"));
  EXPECT_EQ(idle.response()->status, 200);
  busy.send(get("/pending"));
  const auto exchange = server.kept();
  server.server->drain();
  EXPECT_TRUE(idle.closed());
  RawClient late(server.port());
  late.send(get("/ok"));
  EXPECT_EQ(late.response()->headers.at("connection"), "close");
  server.on_io(*exchange, [&] { exchange->respond({200, "text/plain", "done", {}}); });
  EXPECT_EQ(busy.response()->body, "done");
  EXPECT_TRUE(busy.closed());
}

TEST(Server, SurvivesAStormOfBrokenClients) {
  TestServer server;
  for (int i = 0; i < 300; ++i) {
    RawClient client(server.port());
    client.send(i % 3 == 0 ? get("/ok") : i % 3 == 1 ? get("/stream") : "GET /o");
    client.reset();
  }
  RawClient client(server.port());
  client.send(get("/ok"));
  EXPECT_EQ(client.response()->body, "ok");
}

}  // namespace
}  // namespace sluice

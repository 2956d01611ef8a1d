// What a client sees when something is wrong: status, the four keys, the code and the field.
#include <gtest/gtest.h>

#include "tests/core/api/api_server.hpp"

namespace sluice {
namespace {

namespace json = boost::json;
using test::ApiServer;
using test::get;
using test::post;
using test::RawClient;

struct ErrorCase {
  std::string name, bytes;
  int status;
  const char *type, *code, *param;
};

TEST(Errors, HaveTheirStatusTypeCodeAndParam) {
  lifecycle::ServiceOptions service;
  service.max_inflight = 4;
  ApiServer s({}, service);
  s.generator->limits_.max_context = 20;
  const std::string c = "/v1/completions";
  const ErrorCase cases[] = {
      {"bad json", post(c, "{"), 400, "invalid_request_error", nullptr, nullptr},
      {"bad field", post(c, R"({"prompt":"x","temperature":3})"), 400, "invalid_request_error", nullptr, "temperature"},
      {"unsupported", post(c, R"({"prompt":"x","tools":[{}]})"), 400, "invalid_request_error", "unsupported_parameter", "tools"},
      {"context", post(c, R"({"prompt":"0123456789","max_tokens":11})"), 400, "invalid_request_error", "context_length_exceeded", "max_tokens"},
      {"prompt too long", post(c, R"({"prompt":"01234567890123456789"})"), 400, "invalid_request_error", "context_length_exceeded", "prompt"},
      {"unknown model", post(c, R"({"prompt":"x","model":"gpt-9"})"), 404, "not_found_error", "model_not_found", "model"},
      {"unknown route", get("/v2/models"), 404, "not_found_error", nullptr, nullptr},
      {"method", get(c), 405, "invalid_request_error", nullptr, nullptr},
      {"too many", post(c, R"({"prompt":"x","n":5})"), 429, "rate_limit_error", "queue_full", nullptr},
      {"content type", "POST " + c + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415,
       "invalid_request_error", nullptr, nullptr},
      {"too large", "POST " + c + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n", 413,
       "invalid_request_error", "request_too_large", nullptr},
  };
  for (const auto &e : cases) {
    SCOPED_TRACE(e.name);
    const auto response = s.call(e.bytes);
    EXPECT_EQ(response.status, e.status);
    boost::system::error_code ec;
    const auto body = json::parse(response.body, ec);
    ASSERT_FALSE(ec) << response.body;
    const auto &error = body.at("error").as_object();
    EXPECT_EQ(error.size(), 4u);
    EXPECT_FALSE(error.at("message").as_string().empty());
    EXPECT_EQ(error.at("type").as_string(), e.type);
    EXPECT_EQ(error.at("code"), e.code == nullptr ? json::value(nullptr) : json::value(e.code));
    EXPECT_EQ(error.at("param"), e.param == nullptr ? json::value(nullptr) : json::value(e.param));
    EXPECT_TRUE(response.headers.contains("x-request-id"));
    EXPECT_EQ(response.headers.contains("retry-after"), e.status == 429);
  }
  EXPECT_EQ(s.service.inflight(), 0u);
}

TEST(Errors, BeforeTheFirstByteKeepTheirStatusAlsoWithStream) {
  ApiServer s;
  for (const char *body : {R"({"prompt":"x","stream":true,"temperature":3})", R"({"prompt":"x","stream":true,"max_tokens":99999})"}) {
    const auto response = s.call(post("/v1/completions", body));
    EXPECT_EQ(response.status, 400);
    EXPECT_EQ(response.headers.at("content-type"), "application/json");
  }
  s.generator->refuse_with(Error{Code::kResourceExhausted, "full", ""});
  EXPECT_EQ(s.call(post("/v1/completions", R"({"prompt":"x","stream":true})")).status, 429);
}

TEST(Errors, AfterTheFirstByteComeAsAnEventWithoutDone) {
  ApiServer s;
  RawClient client(s.port());
  client.send(post("/v1/completions", R"({"prompt":"x","stream":true,"max_tokens":50})"));
  ASSERT_TRUE(s.generator->wait_open(1));
  s.generator->steps(2);
  s.generator->fail_next_step({Code::kDeviceLost, "the device is gone", ""});
  s.generator->step();
  const auto response = client.response();
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  const auto events = test::sse_events(response->body);
  const auto last = json::parse(events.back());
  EXPECT_EQ(last.at("error").at("message").as_string(), "the device is gone");
  EXPECT_EQ(last.at("error").at("code").as_string(), "engine_error");
  EXPECT_EQ(response->body.find("[DONE]"), std::string::npos);
  EXPECT_TRUE(client.closed());
}

TEST(Errors, EngineErrorWithoutStreamIsA500) {
  ApiServer s;
  RawClient client(s.port());
  client.send(post("/v1/completions", R"({"prompt":"x","max_tokens":50})"));
  ASSERT_TRUE(s.generator->wait_open(1));
  s.generator->fail_next_step({Code::kInternal, "broken", ""});
  s.generator->step();
  EXPECT_EQ(client.response()->status, 500);
}

TEST(Errors, EveryRegisteredRouteNeedsTheKey) {
  net::ServerOptions options;
  options.access.api_keys = {"secret"};
  ApiServer s(options);
  int guarded = 0;
  const auto router = api::make_router(s.context);
  for (const auto &route : router.routes()) {
    std::string path = route.pattern;
    if (path.ends_with("{}")) path.replace(path.size() - 2, 2, "x");
    const auto response = s.call(route.method == "GET" ? get(path) : post(path, "{}"));
    if (path.starts_with("/health")) {
      EXPECT_EQ(response.status, 200) << path;
    } else {
      EXPECT_EQ(response.status, 401) << path;
      ++guarded;
    }
  }
  EXPECT_GE(guarded, 9);
  EXPECT_EQ(s.call(get("/v1/models", "Authorization: Bearer secret\r\n")).status, 200);
}

}  // namespace
}  // namespace sluice

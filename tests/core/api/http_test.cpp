#include <gtest/gtest.h>

#include "tests/core/api/api_server.hpp"

namespace sluice {
namespace {

namespace json = boost::json;
using std::chrono::microseconds;
using test::ApiServer;
using test::get;
using test::post;
using test::RawClient;
using test::sse_events;

constexpr const char *kChat = "/v1/chat/completions";
constexpr const char *kCompletions = "/v1/completions";

TEST(Http, CompletionWhole) {
  ApiServer s;
  s.generator->run(microseconds(100));
  const auto r = s.json(kCompletions, R"({"model":"tiny","prompt":"hi","max_tokens":4})");
  EXPECT_EQ(r.at("status").as_int64(), 200);
  EXPECT_TRUE(r.at("id").as_string().starts_with("cmpl-"));
  EXPECT_EQ(r.at("choices").at(0).at("text").as_string(), "abcd");
  EXPECT_EQ(r.at("choices").at(0).at("finish_reason").as_string(), "length");
  EXPECT_EQ(json::serialize(r.at("usage")),
            R"({"prompt_tokens":2,"completion_tokens":4,"total_tokens":6,"prompt_tokens_details":{"cached_tokens":0}})");
}

TEST(Http, ChatGoesThroughTheTemplate) {
  ApiServer s;
  s.generator->run(microseconds(100));
  const auto r = s.json(kChat, R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"max_tokens":3})");
  EXPECT_EQ(r.at("choices").at(0).at("message").at("content").as_string(), "abc");
  std::string prompt;
  for (const int32_t token : s.generator->submitted().at(0)->prompt) prompt += test::tiny_tokenizer()->piece(token);
  EXPECT_EQ(prompt, "[system]s[user]u[assistant]");
}

TEST(Http, ChatStream) {
  ApiServer s;
  s.generator->run(microseconds(100));
  const auto response = s.call(post(kChat, R"({"messages":[{"role":"user","content":"u"}],"max_tokens":5,"stream":true,
    "stream_options":{"include_usage":true},"logprobs":true,"top_logprobs":1})"));
  EXPECT_EQ(response.status, 200);
  EXPECT_TRUE(response.headers.at("content-type").starts_with("text/event-stream"));
  auto events = sse_events(response.body);
  ASSERT_EQ(events.size(), 9u) << response.body;
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(json::serialize(json::parse(events[0]).at("choices").at(0).at("delta")), R"({"role":"assistant","content":""})");
  std::string content, tokens;
  const auto id = json::parse(events[0]).at("id");
  for (size_t i = 1; i <= 5; ++i) {
    const auto chunk = json::parse(events[i]);
    EXPECT_EQ(chunk.at("id"), id);
    EXPECT_TRUE(chunk.at("usage").is_null());
    const auto &choice = chunk.at("choices").at(0);
    content += choice.at("delta").at("content").as_string();
    for (const auto &entry : choice.at("logprobs").at("content").as_array()) tokens += entry.at("token").as_string();
  }
  EXPECT_EQ(content, "abcde");
  EXPECT_EQ(tokens, content);
  EXPECT_EQ(json::parse(events[6]).at("choices").at(0).at("finish_reason").as_string(), "length");
  EXPECT_TRUE(json::parse(events[7]).at("choices").as_array().empty());
  EXPECT_EQ(json::parse(events[7]).at("usage").at("completion_tokens").as_int64(), 5);
}

TEST(Http, SeveralAnswersInterleave) {
  ApiServer s;
  s.generator->run(microseconds(100));
  const auto response = s.call(post(kCompletions, R"({"prompt":["x","yy"],"n":2,"max_tokens":3,"stream":true,"seed":5})"));
  std::map<int64_t, std::string> texts;
  std::map<int64_t, int> ends;
  auto events = sse_events(response.body);
  ASSERT_EQ(events.back(), "[DONE]");
  events.pop_back();
  for (const auto &event : events) {
    const auto chunk = json::parse(event);
    const auto &choice = chunk.at("choices").at(0);
    texts[choice.at("index").as_int64()] += choice.at("text").as_string();
    if (!choice.at("finish_reason").is_null()) ++ends[choice.at("index").as_int64()];
  }
  EXPECT_EQ(texts, (std::map<int64_t, std::string>{{0, "abc"}, {1, "abc"}, {2, "abc"}, {3, "abc"}}));
  EXPECT_EQ(ends, (std::map<int64_t, int>{{0, 1}, {1, 1}, {2, 1}, {3, 1}}));
}

TEST(Http, StopStringsEndUsageAndLogprobsToo) {
  ApiServer s;
  s.generator->run(microseconds(50));
  for (const bool stream : {false, true}) {
    const std::string body = R"({"prompt":"x","max_tokens":50,"stop":["ef"],"logprobs":0,"stream":)" + std::string(stream ? "true" : "false") +
                             (stream ? R"(,"stream_options":{"include_usage":true}})" : "}");
    const auto response = s.call(post(kCompletions, body));
    std::string text, tokens;
    int64_t usage = 0;
    const auto take = [&](const json::value &choice) {
      text += choice.at("text").as_string();
      if (choice.at("logprobs").is_object()) {
        for (const auto &token : choice.at("logprobs").at("tokens").as_array()) tokens += token.as_string();
      }
    };
    if (stream) {
      for (const auto &event : sse_events(response.body)) {
        if (event == "[DONE]") continue;
        const auto chunk = json::parse(event);
        for (const auto &choice : chunk.at("choices").as_array()) take(choice);
        if (chunk.at("usage").is_object()) usage = chunk.at("usage").at("completion_tokens").as_int64();
      }
    } else {
      const auto whole = json::parse(response.body);
      take(whole.at("choices").at(0));
      usage = whole.at("usage").at("completion_tokens").as_int64();
    }
    EXPECT_EQ(text, "abcd");
    EXPECT_EQ(tokens, "abcdef");
    EXPECT_EQ(usage, 6);
  }
}

TEST(Http, SilenceBeforeTheFirstTokenIsFilled) {
  net::ServerOptions options;
  options.limits.sse_keepalive = std::chrono::milliseconds(30);
  ApiServer s(options);
  RawClient client(s.port());
  client.send(post(kCompletions, R"({"prompt":"x","max_tokens":2,"stream":true})"));
  EXPECT_TRUE(client.until(": ping\n\n"));
  s.generator->steps(2);
  EXPECT_TRUE(client.until("data: [DONE]"));
}

TEST(Http, BigBodiesAreParsedElsewhereAndWork) {
  ApiServer s;
  s.generator->limits_.max_context = 1'000'000;
  s.generator->run(microseconds(100));
  const auto r = s.json(kCompletions, R"({"max_tokens":2,"prompt":")" + std::string(300'000, 'x') + "\"}");
  ASSERT_EQ(r.at("status").as_int64(), 200) << json::serialize(r);
  EXPECT_EQ(r.at("usage").at("prompt_tokens").as_int64(), 300'000);
}

TEST(Http, IgnoredFieldsAreNamedInAHeader) {
  ApiServer s;
  s.generator->run(microseconds(100));
  const auto response = s.call(post(kCompletions, R"({"prompt":"x","max_tokens":1,"foo":1,"bar":2})"));
  EXPECT_EQ(response.headers.at("x-sluice-ignored-fields"), "foo, bar");
}

TEST(Http, ModelsHealthVersionMetrics) {
  ApiServer s;
  const auto models = json::parse(s.call(get("/v1/models")).body);
  EXPECT_EQ(models.at("object").as_string(), "list");
  EXPECT_EQ(models.at("data").at(0).at("id").as_string(), "tiny");
  EXPECT_EQ(json::parse(s.call(get("/v1/models/tiny")).body).at("max_model_len").as_int64(), 4096);
  const auto unknown = s.call(get("/v1/models/other"));
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(json::parse(unknown.body).at("error").at("code").as_string(), "model_not_found");
  EXPECT_EQ(s.call(get("/health")).status, 200);
  EXPECT_EQ(s.call(get("/health/ready")).status, 200);
  EXPECT_EQ(json::parse(s.call(get("/version")).body).at("version").as_string(), "1.2.3");
  const auto metrics = s.call(get("/metrics"));
  EXPECT_TRUE(metrics.headers.at("content-type").starts_with("text/plain; version=0.0.4"));
  EXPECT_NE(metrics.body.find("sluice_http_requests_total{code=\"200\",route=\"/version\"} 1"), std::string::npos) << metrics.body;
}

TEST(Http, MetricsShowWhatTheGeneratorDoes) {
  ApiServer s;
  RawClient client(s.port());
  client.send(post(kCompletions, R"({"prompt":"x","n":2,"max_tokens":3})"));
  ASSERT_TRUE(s.generator->wait_open(2));
  EXPECT_NE(s.call(get("/metrics")).body.find("sluice_requests_running{model=\"tiny\"} 2"), std::string::npos);
  s.generator->steps(3);
  ASSERT_TRUE(client.response());
  const auto text = s.call(get("/metrics")).body;
  EXPECT_NE(text.find("sluice_requests_running{model=\"tiny\"} 0"), std::string::npos);
  EXPECT_NE(text.find("sluice_requests_finished_total{model=\"tiny\",reason=\"length\"} 2"), std::string::npos);
  EXPECT_NE(text.find("sluice_generation_tokens_total{model=\"tiny\"} 6"), std::string::npos);
}

TEST(Http, ReadinessFollowsTheModel) {
  ApiServer s;
  auto slow = std::make_shared<lifecycle::ServedModel>();
  slow->name = "slow";
  slow->state.loading("weights", 10, 100);
  ASSERT_TRUE(s.service.add(slow));
  auto response = s.call(get("/health/ready"));
  EXPECT_EQ(response.status, 503);
  EXPECT_TRUE(response.headers.contains("retry-after"));
  const auto body = json::parse(response.body);
  EXPECT_EQ(body.at("models").at(1).at("done").as_int64(), 10);
  EXPECT_EQ(s.call(get("/health")).status, 200);
  const auto refused = s.json(kCompletions, R"({"model":"slow","prompt":"x"})");
  EXPECT_EQ(refused.at("status").as_int64(), 503);
  EXPECT_EQ(refused.at("error").at("code").as_string(), "model_loading");
}

TEST(Http, TokenizeAndBack) {
  ApiServer s;
  const auto tokens = s.json("/tokenize", R"({"prompt":"ab"})");
  EXPECT_EQ(json::serialize(tokens.at("tokens")), "[" + std::to_string(test::byte_token('a')) + "," + std::to_string(test::byte_token('b')) + "]");
  EXPECT_EQ(tokens.at("count").as_int64(), 2);
  const auto text = s.json("/detokenize", R"({"tokens":)" + json::serialize(tokens.at("tokens")) + "}");
  EXPECT_EQ(text.at("prompt").as_string(), "ab");
  EXPECT_EQ(s.json("/tokenize", R"({"content":"abc"})").at("count").as_int64(), 3);
  EXPECT_EQ(s.json("/tokenize", R"({"prompt":")" + std::string(50'000, 'x') + "\"}").at("count").as_int64(), 50'000);
  for (const char *bad : {R"({})", R"({"prompt":1})"}) EXPECT_EQ(s.json("/tokenize", bad).at("error").at("param").as_string(), "prompt");
  for (const char *bad : {R"({})", R"({"tokens":1})", R"({"tokens":[-1]})", R"({"tokens":[1.5]})", R"({"tokens":[99999]})", R"({"tokens":["a"]})"}) {
    const auto r = s.json("/detokenize", bad);
    EXPECT_EQ(r.at("status").as_int64(), 400) << bad;
    EXPECT_EQ(r.at("error").at("param").as_string(), "tokens") << bad;
  }
}

TEST(Http, DrainRefusesNewWorkAndFinishesTheOld) {
  ApiServer s;
  RawClient client(s.port());
  client.send(post(kCompletions, R"({"prompt":"x","max_tokens":3,"stream":true})"));
  ASSERT_TRUE(s.generator->wait_open(1));
  s.service.begin_drain();
  const auto ready = s.call(get("/health/ready"));
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(s.call(get("/health")).status, 200);
  const auto refused = s.call(post(kCompletions, R"({"prompt":"x"})"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(refused.headers.contains("retry-after"));
  EXPECT_EQ(json::parse(refused.body).at("error").at("code").as_string(), "shutting_down");
  s.generator->steps(3);
  EXPECT_TRUE(s.service.drain(std::chrono::seconds(20)));
  EXPECT_EQ(sse_events(client.response()->body).back(), "[DONE]");
}

TEST(Http, DrainTellsTheRestWhy) {
  ApiServer s;
  RawClient streaming(s.port()), whole(s.port());
  streaming.send(post(kCompletions, R"({"prompt":"x","max_tokens":300,"stream":true})"));
  whole.send(post(kCompletions, R"({"prompt":"x","max_tokens":300})"));
  ASSERT_TRUE(s.generator->wait_open(2));
  s.generator->steps(3);
  EXPECT_FALSE(s.service.drain(std::chrono::milliseconds(10)));
  const auto events = sse_events(streaming.response()->body);
  EXPECT_EQ(json::parse(events.back()).at("error").at("code").as_string(), "shutting_down");
  EXPECT_EQ(whole.response()->status, 503);
  s.generator->step();
  EXPECT_EQ(s.generator->open(), 0u);
}

}  // namespace
}  // namespace sluice

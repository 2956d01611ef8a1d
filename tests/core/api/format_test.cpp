#include "core/api/openai_format.hpp"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "core/net/error_reply.hpp"
#include "tests/core/lifecycle/world.hpp"

namespace sluice::api {
namespace {

namespace json = boost::json;
using lifecycle::AnswerEnd;
using lifecycle::ChosenToken;

json::object parsed(const std::string &text) {
  boost::system::error_code ec;
  auto value = json::parse(text, ec);
  EXPECT_FALSE(ec) << text;
  return value.is_object() ? value.get_object() : json::object{};
}

struct Format {
  explicit Format(Dialect dialect, bool usage = false, bool logprobs = false) {
    request.spec = world.spec();
    request.spec.model->name = "m\"odel";
    request.include_usage = usage;
    request.spec.logprobs = logprobs;
    format.emplace(dialect, request, "fp_1", 12);
  }
  template <class Write> json::object write(Write &&w) {
    std::string out;
    w(out);
    return parsed(out);
  }
  test::World world;
  ParsedRequest request;
  std::optional<ReplyFormat> format;
};

const std::string kNasty = "quote\" back\\slash \n\r\t\b\f\x01 \x7f </script> \xe2\x82\xac \xf0\x9f\x98\x80 \xe2\x80\xa8";

TEST(Format, ChatChunks) {
  Format f(Dialect::kChat);
  const auto first = f.write([&](std::string &o) { f.format->append_first(o, 11); });
  EXPECT_EQ(first.at("object").as_string(), "chat.completion.chunk");
  EXPECT_EQ(first.at("model").as_string(), "m\"odel");
  const auto &choice = first.at("choices").at(0);
  EXPECT_EQ(choice.at("index").as_int64(), 11);
  EXPECT_EQ(json::serialize(choice.at("delta")), R"({"role":"assistant","content":""})");
  EXPECT_TRUE(choice.at("finish_reason").is_null());
  EXPECT_FALSE(first.contains("usage"));
  const auto delta = f.write([&](std::string &o) { f.format->append_delta(o, 3, kNasty, nullptr); });
  EXPECT_EQ(delta.at("choices").at(0).at("delta").at("content").as_string(), kNasty);
  EXPECT_FALSE(delta.at("choices").at(0).at("delta").as_object().contains("role"));
  EXPECT_TRUE(delta.at("choices").at(0).at("logprobs").is_null());
  EXPECT_EQ(delta.at("id"), first.at("id"));
  const auto end = f.write([&](std::string &o) { f.format->append_end(o, 0, AnswerEnd::kLength); });
  EXPECT_EQ(json::serialize(end.at("choices").at(0).at("delta")), "{}");
  EXPECT_EQ(end.at("choices").at(0).at("finish_reason").as_string(), "length");
}

TEST(Format, CompletionChunks) {
  Format f(Dialect::kCompletion, true);
  const auto delta = f.write([&](std::string &o) { f.format->append_delta(o, 0, kNasty, nullptr); });
  EXPECT_EQ(delta.at("object").as_string(), "text_completion");
  EXPECT_EQ(delta.at("choices").at(0).at("text").as_string(), kNasty);
  EXPECT_TRUE(delta.at("usage").is_null());
  const auto end = f.write([&](std::string &o) { f.format->append_end(o, 0, AnswerEnd::kStop); });
  EXPECT_EQ(end.at("choices").at(0).at("finish_reason").as_string(), "stop");
  EXPECT_EQ(end.at("choices").at(0).at("text").as_string(), "");
  EXPECT_TRUE(end.at("usage").is_null());
  const auto usage = f.write([&](std::string &o) { f.format->append_usage_chunk(o, {7, 3, 2}); });
  EXPECT_TRUE(usage.at("choices").as_array().empty());
  EXPECT_EQ(usage.at("usage").at("total_tokens").as_int64(), 10);
  EXPECT_EQ(usage.at("usage").at("prompt_tokens_details").at("cached_tokens").as_int64(), 2);
}

TEST(Format, ChatLogprobs) {
  Format f(Dialect::kChat, false, true);
  const std::vector<request::TokenLogprob> top{{test::byte_token('a'), -0.25f}, {test::byte_token('\xe2'), -INFINITY}};
  ChosenToken chosen{test::byte_token('a'), -0.25f, "a", &top};
  const auto delta = f.write([&](std::string &o) { f.format->append_delta(o, 0, "a", &chosen); });
  const auto &entry = delta.at("choices").at(0).at("logprobs").at("content").at(0);
  EXPECT_EQ(entry.at("token").as_string(), "a");
  EXPECT_EQ(entry.at("logprob").as_double(), -0.25);
  EXPECT_EQ(json::serialize(entry.at("bytes")), "[97]");
  EXPECT_EQ(entry.at("top_logprobs").at(1).at("token").as_string(), "\xef\xbf\xbd") << "half a character";
  EXPECT_EQ(json::serialize(entry.at("top_logprobs").at(1).at("bytes")), "[226]");
  EXPECT_EQ(entry.at("top_logprobs").at(1).at("logprob").to_number<double>(), -9999.0);
  chosen.top = nullptr;
  const auto next = f.write([&](std::string &o) { f.format->append_delta(o, 0, "a", &chosen); });
  EXPECT_EQ(next.at("choices").at(0).at("logprobs").at("content").as_array().size(), 1u) << "only the new token";
}

TEST(Format, WholeRepliesAndLegacyLogprobs) {
  Format f(Dialect::kCompletion, false, true);
  const std::vector<request::TokenLogprob> top{{test::byte_token('h'), -0.5f}};
  f.format->collect_logprobs(0, {1, -0.5f, "h\xc3\xa9", &top});
  f.format->collect_logprobs(0, {1, -1.0f, "y", &top});
  const auto whole = f.write([&](std::string &o) { f.format->append_whole(o, {{"h\xc3\xa9y", AnswerEnd::kLength}}, {2, 2, 0}); });
  EXPECT_EQ(whole.at("choices").at(0).at("text").as_string(), "h\xc3\xa9y");
  EXPECT_EQ(json::serialize(whole.at("choices").at(0).at("logprobs")),
            "{\"tokens\":[\"h\xc3\xa9\",\"y\"],\"token_logprobs\":[-5E-1,-1],\"top_logprobs\":[{\"h\":-5E-1},{\"h\":-5E-1}],\"text_offset\":[0,2]}");
  EXPECT_EQ(whole.at("usage").at("total_tokens").as_int64(), 4);
  Format c(Dialect::kChat);
  const auto chat = c.write([&](std::string &o) { c.format->append_whole(o, {{"a", AnswerEnd::kStop}, {kNasty, AnswerEnd::kLength}}, {}); });
  EXPECT_EQ(chat.at("object").as_string(), "chat.completion");
  EXPECT_EQ(chat.at("choices").at(1).at("message").at("content").as_string(), kNasty);
  EXPECT_EQ(chat.at("choices").at(1).at("index").as_int64(), 1);
}

TEST(Format, ErrorBodiesHaveAllFourKeys) {
  const auto body = parsed(net::error_body({404, kNasty, "", "model", {}}));
  const auto &error = body.at("error").as_object();
  EXPECT_EQ(error.size(), 4u);
  EXPECT_EQ(error.at("message").as_string(), kNasty);
  EXPECT_EQ(error.at("type").as_string(), "not_found_error");
  EXPECT_EQ(error.at("param").as_string(), "model");
  EXPECT_TRUE(error.at("code").is_null());
}

}  // namespace
}  // namespace sluice::api

#include "core/api/openai_parse.hpp"

#include <gtest/gtest.h>

#include "core/api/fields.hpp"
#include "tests/core/api/api_server.hpp"

namespace sluice::api {
namespace {

using lifecycle::FailureKind;
using test::World;

struct ParseWorld : World {
  ParseWorld() {
    model->samplers.push_back(test::fake_chain(sampling));
    test::add_chat_template(*model);
  }
  boost::system::result<ParsedRequest, lifecycle::Failure> parse(Dialect dialect, const std::string &fields) {
    const std::string base = dialect == Dialect::kChat ? R"("messages":[{"role":"user","content":"hi"}])" : R"("prompt":"hi")";
    auto object = parse_object("{" + base + (fields.empty() ? "" : "," + fields) + "}");
    if (!object) return object.error();
    return parse_request(dialect, *object, service);
  }
  boost::system::result<ParsedRequest, lifecycle::Failure> parse_body(Dialect dialect, const std::string &body) {
    auto object = parse_object(body);
    if (!object) return object.error();
    return parse_request(dialect, *object, service);
  }
  std::shared_ptr<boost::json::object> sampling = std::make_shared<boost::json::object>();
};

struct NumberRow {
  const char *field;
  std::vector<const char *> bad, good;
  const char *with = "";
};

TEST(Parse, NumbersAreTypedAndRanged) {
  ParseWorld w;
  const std::vector<NumberRow> rows = {
      {"max_tokens", {"-1", "0", "4294967296", "1e308", "1.5", "18446744073709551616"}, {"1", "4294967295"}},
      {"max_completion_tokens", {"-1", "0", "4294967296", "1e308", "1.5"}, {"1"}},
      {"n", {"-1", "0", "9", "1e308", "2147483648", "1.5"}, {"1", "8"}},
      {"seed", {"1e308", "9223372036854775808", "1.5"}, {"0", "-1", "9223372036854775807"}},
      {"temperature", {"-1", "-0.01", "2.01", "1e308"}, {"0", "1", "2", "0.7"}},
      {"top_p", {"-1", "1.01", "1e308"}, {"0", "1", "0.9"}},
      {"min_p", {"-1", "1.01", "1e308"}, {"0", "1"}},
      {"top_k", {"-2", "2147483648", "1e308", "1.5"}, {"-1", "0", "40"}},
      {"presence_penalty", {"-2.1", "2.1", "1e308"}, {"-2", "2"}},
      {"frequency_penalty", {"-2.1", "2.1", "1e308"}, {"-2", "2"}},
      {"repetition_penalty", {"-1", "0", "10.1", "1e308"}, {"1", "1.1"}},
      {"top_logprobs", {"-1", "21", "1e308", "1.5"}, {"0", "20"}, R"("logprobs":true,)"},
  };
  for (const auto &row : rows) {
    auto bad = row.bad;
    for (const char *value : {"\"NaN\"", "\"1\"", "true", "[]", "{}", "[1]"}) bad.push_back(value);
    for (const char *value : bad) {
      const auto parsed = w.parse(Dialect::kChat, std::string(row.with) + "\"" + row.field + "\":" + value);
      ASSERT_FALSE(parsed) << row.field << "=" << value;
      EXPECT_EQ(static_cast<int>(parsed.error().kind), static_cast<int>(FailureKind::kBadRequest));
      EXPECT_EQ(parsed.error().param, row.field) << value;
      EXPECT_NE(parsed.error().message.find(row.field), std::string::npos);
    }
    for (const char *value : row.good) {
      const auto parsed = w.parse(Dialect::kChat, std::string(row.with) + "\"" + row.field + "\":" + value);
      EXPECT_TRUE(parsed) << row.field << "=" << value << ": " << (parsed ? "" : parsed.error().message);
    }
    EXPECT_TRUE(w.parse(Dialect::kChat, std::string(row.with) + "\"" + row.field + "\":null")) << "null is absent";
  }
}

TEST(Parse, CompletionLogprobsIsANumber) {
  ParseWorld w;
  for (const char *bad : {"-1", "21", "1e308", "\"NaN\"", "true"}) {
    const auto parsed = w.parse(Dialect::kCompletion, std::string("\"logprobs\":") + bad);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_EQ(parsed.error().param, "logprobs");
  }
  const auto parsed = w.parse(Dialect::kCompletion, "\"logprobs\":0");
  ASSERT_TRUE(parsed);
  EXPECT_TRUE(parsed->spec.logprobs);
  EXPECT_EQ(parsed->spec.top_logprobs, 0u);
}

TEST(Parse, FlagsAndTextsAreTyped) {
  ParseWorld w;
  for (const char *field : {"stream", "logprobs", "ignore_eos"}) {
    for (const char *bad : {"1", "0", "\"true\"", "[]"}) {
      const auto parsed = w.parse(Dialect::kChat, std::string("\"") + field + "\":" + bad);
      ASSERT_FALSE(parsed) << field << "=" << bad;
      EXPECT_EQ(parsed.error().param, field);
    }
  }
  for (const char *bad : {"1", "[]", "true"}) {
    const auto parsed = w.parse(Dialect::kChat, std::string("\"model\":") + bad);
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().param, "model");
  }
}

TEST(Parse, TopLogprobsNeedsLogprobs) {
  ParseWorld w;
  const auto parsed = w.parse(Dialect::kChat, "\"top_logprobs\":2");
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().param, "top_logprobs");
  EXPECT_TRUE(w.parse(Dialect::kChat, "\"logprobs\":true,\"top_logprobs\":2"));
}

TEST(Parse, MaxCompletionTokensWins) {
  ParseWorld w;
  EXPECT_EQ(w.parse(Dialect::kChat, "\"max_tokens\":5,\"max_completion_tokens\":7")->spec.max_tokens, 7u);
  EXPECT_EQ(w.parse(Dialect::kChat, "\"max_tokens\":5")->spec.max_tokens, 5u);
  EXPECT_FALSE(w.parse(Dialect::kChat, "")->spec.max_tokens);
  EXPECT_EQ(w.parse(Dialect::kCompletion, "")->spec.default_max_tokens, 16u);
}

TEST(Parse, StopIsATextOrAListOfThem) {
  ParseWorld w;
  EXPECT_EQ(w.parse(Dialect::kChat, R"("stop":"x")")->spec.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(w.parse(Dialect::kChat, R"("stop":["x","yy"])")->spec.stop, (std::vector<std::string>{"x", "yy"}));
  EXPECT_TRUE(w.parse(Dialect::kChat, R"("stop":[])")->spec.stop.empty());
  const std::string many = [] {
    std::string s = "\"stop\":[";
    for (int i = 0; i < 17; ++i) s += (i ? ",\"a\"" : "\"a\"");
    return s + "]";
  }();
  for (const std::string &bad : {std::string(R"("stop":"")"), std::string(R"("stop":1)"), std::string(R"("stop":[""])"),
                                 std::string(R"("stop":["a",1])"), std::string(R"("stop":{})"), many,
                                 "\"stop\":\"" + std::string(300, 'x') + "\""}) {
    const auto parsed = w.parse(Dialect::kChat, bad);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_EQ(parsed.error().param, "stop");
  }
}

TEST(Parse, StreamOptionsGoWithStreaming) {
  ParseWorld w;
  EXPECT_TRUE(w.parse(Dialect::kChat, R"("stream":true,"stream_options":{"include_usage":true})")->include_usage);
  EXPECT_FALSE(w.parse(Dialect::kChat, R"("stream":true,"stream_options":{})")->include_usage);
  for (const char *bad : {R"("stream_options":{"include_usage":true})", R"("stream":true,"stream_options":1)"}) {
    const auto parsed = w.parse(Dialect::kChat, bad);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_EQ(parsed.error().param, "stream_options");
  }
  EXPECT_EQ(w.parse(Dialect::kChat, R"("stream":true,"stream_options":{"include_usage":1})").error().param,
            "stream_options.include_usage");
}

// ---- prompts ----------------------------------------------------------------------------------------------------

TEST(Parse, MessagesAreChecked) {
  ParseWorld w;
  const std::pair<const char *, const char *> bad[] = {
      {R"({})", "messages"},
      {R"({"messages":null})", "messages"},
      {R"({"messages":"hi"})", "messages"},
      {R"({"messages":[]})", "messages"},
      {R"({"messages":[123]})", "messages[0]"},
      {R"({"messages":[{}]})", "messages[0].role"},
      {R"({"messages":[{"role":123,"content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"wizard","content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":123}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":null}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[]}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"user","content":[{"type":"text"}]}]})", "messages[1].content"},
  };
  for (const auto &[body, param] : bad) {
    const auto parsed = w.parse_body(Dialect::kChat, body);
    ASSERT_FALSE(parsed) << body;
    EXPECT_EQ(parsed.error().param, param) << body;
  }
  const auto good = w.parse_body(Dialect::kChat, R"({"messages":[{"role":"developer","content":"be brief"},
    {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},{"role":"assistant","content":null}]})");
  ASSERT_TRUE(good);
  const auto &messages = *std::get<lifecycle::ChatPrompt>(good->spec.prompts.at(0)).messages;
  EXPECT_EQ(messages.at(0).at("role").as_string(), "system");
  EXPECT_EQ(messages.at(1).at("content").as_string(), "ab");
  EXPECT_EQ(messages.at(2).at("content").as_string(), "");
}

TEST(Parse, PromptsInEveryShape) {
  ParseWorld w;
  const auto count = [&](const char *prompt) {
    const auto parsed = w.parse_body(Dialect::kCompletion, std::string("{\"prompt\":") + prompt + "}");
    return parsed ? static_cast<int>(parsed->spec.prompts.size()) : -1;
  };
  EXPECT_EQ(count("\"a\""), 1);
  EXPECT_EQ(count("[\"a\",\"b\"]"), 2);
  EXPECT_EQ(count("[1,2,3]"), 1);
  EXPECT_EQ(count("[[1],[2,3]]"), 2);
  for (const char *bad : {"null", "\"\"", "[]", "1", "{}", "[\"\"]", "[1,\"a\"]", "[\"a\",1]", "[-1]", "[1.5]", "[99999999999]", "[[]]",
                          "[[\"a\"]]", "[true]", "[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\"]"}) {
    const auto parsed = w.parse_body(Dialect::kCompletion, std::string("{\"prompt\":") + bad + "}");
    ASSERT_FALSE(parsed) << bad;
    EXPECT_EQ(parsed.error().param, "prompt") << bad;
  }
}

// ---- bodies -----------------------------------------------------------------------------------------------------

TEST(Parse, BodiesThatAreNoObjects) {
  for (const char *bad : {"", "{", "[]", "1", "null", "\"x\"", "{\"a\":}", "{} {}", "{\"a\":1,}", "{'a':1}", "{\"a\":\"\xff\"}",
                          "{\"a\":NaN}", "\xef\xbb\xbf{}"}) {
    const auto parsed = parse_object(bad);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_EQ(static_cast<int>(parsed.error().kind), static_cast<int>(FailureKind::kBadRequest));
  }
}

TEST(Parse, DepthIsBounded) {
  const auto nested = [](int depth) {
    std::string s = "{\"a\":";
    for (int i = 1; i < depth; ++i) s += "[";
    s += "1";
    for (int i = 1; i < depth; ++i) s += "]";
    return s + "}";
  };
  EXPECT_TRUE(parse_object(nested(32)));
  const auto deep = parse_object(nested(33));
  ASSERT_FALSE(deep);
  EXPECT_NE(deep.error().message.find("32"), std::string::npos);
  EXPECT_FALSE(parse_object(nested(100'000)));
}

// ---- what is not supported --------------------------------------------------------------------------------------

TEST(Parse, RefusesWhatItWouldHaveToIgnore) {
  ParseWorld w;
  const std::pair<const char *, const char *> bad[] = {
      {"tools", R"([{"type":"function"}])"},  {"functions", R"([{"name":"f"}])"},  {"tool_choice", R"("required")"},
      {"tool_choice", R"({"type":"function"})"}, {"function_call", R"("auto")"},   {"response_format", R"({"type":"json_object"})"},
      {"response_format", R"({"type":"json_schema"})"}, {"response_format", "1"}, {"best_of", "2"},
      {"suffix", R"("x")"},                   {"echo", "true"},                    {"audio", "{}"},
      {"modalities", R"(["text","audio"])"},  {"prediction", "{}"},                {"min_tokens", "1"},
      {"stop_token_ids", "[1]"},              {"guided_json", "{}"},               {"use_beam_search", "true"},
  };
  for (const auto &[field, value] : bad) {
    const auto parsed = w.parse(Dialect::kCompletion, std::string("\"") + field + "\":" + value);
    ASSERT_FALSE(parsed) << field;
    EXPECT_EQ(static_cast<int>(parsed.error().kind), static_cast<int>(FailureKind::kUnsupportedParameter)) << field;
    EXPECT_EQ(parsed.error().param, field);
  }
  for (const char *harmless : {R"("tools":[])", R"("tool_choice":"none")", R"("tool_choice":"auto")", R"("response_format":{"type":"text"})",
                               R"("best_of":1)", R"("echo":false)", R"("suffix":null)", R"("modalities":["text"])", R"("min_tokens":0)"}) {
    EXPECT_TRUE(w.parse(Dialect::kCompletion, harmless)) << harmless;
  }
}

TEST(Parse, UnknownFieldsAreNamedAndIgnored) {
  ParseWorld w;
  const auto parsed = w.parse(Dialect::kChat, R"("foo":1,"user":"u","bar_baz":[],"bad\r\nname":1)");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->ignored_fields, "foo, bar_baz");
}

// ---- sampling ---------------------------------------------------------------------------------------------------

TEST(Parse, SamplersGetTheKeysTheyDeclare) {
  ParseWorld w;
  const auto parsed = w.parse(Dialect::kChat, R"("temperature":0.5,"top_k":-1,"logit_bias":{"5":-100},"extra_knob":true)");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(boost::json::serialize(*w.sampling),
            R"({"temperature":5E-1,"top_k":0,"logit_bias":{"5":-100},"extra_knob":true})");
  EXPECT_EQ(parsed->spec.sampler_options.size(), 1u);
}

TEST(Parse, ThePluginsOwnRefusalNamesTheField) {
  ParseWorld w;
  const auto parsed = w.parse(Dialect::kChat, R"("extra_knob":7)");
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().param, "extra_knob");
}

TEST(Parse, ModelDefaultsFillWhatTheRequestLeavesOut) {
  ParseWorld w;
  w.model->defaults.temperature = 0.6;
  w.model->defaults.top_k = 20;
  ASSERT_TRUE(w.parse(Dialect::kChat, R"("top_k":5)"));
  EXPECT_EQ(w.sampling->at("temperature").as_double(), 0.6);
  EXPECT_EQ(w.sampling->at("top_k").as_int64(), 5);
}

TEST(Parse, WithoutASamplerOnlyNeutralValuesPass) {
  ParseWorld w;
  w.model->samplers = {{"greedy", {}, [](const boost::json::object &) -> Result<std::shared_ptr<const plugin::Options>> {
                          return std::shared_ptr<const plugin::Options>();
                        }}};
  for (const char *neutral : {"\"temperature\":1", "\"temperature\":0", "\"top_p\":1", "\"top_k\":0", "\"top_k\":-1", "\"min_p\":0",
                              "\"presence_penalty\":0", "\"frequency_penalty\":0", "\"repetition_penalty\":1", "\"logit_bias\":{}"}) {
    EXPECT_TRUE(w.parse(Dialect::kChat, neutral)) << neutral;
  }
  for (const char *field : {"temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"}) {
    const auto parsed = w.parse(Dialect::kChat, std::string("\"") + field + "\":0.5");
    ASSERT_FALSE(parsed) << field;
    EXPECT_EQ(static_cast<int>(parsed.error().kind), static_cast<int>(FailureKind::kUnsupportedParameter));
    EXPECT_EQ(parsed.error().param, field);
    EXPECT_NE(parsed.error().message.find("greedy"), std::string::npos);
  }
  EXPECT_EQ(w.parse(Dialect::kChat, R"("logit_bias":{"1":1})").error().param, "logit_bias");
  EXPECT_EQ(w.parse(Dialect::kChat, R"("top_k":7)").error().param, "top_k");
}

TEST(Parse, GreedyAloneIsNotGivenTheModelsTemperature) {
  ParseWorld w;
  w.model->defaults.temperature = 0.7;
  boost::json::object seen;
  w.model->samplers = {{"greedy", {"temperature"},
                        [&](const boost::json::object &table) -> Result<std::shared_ptr<const plugin::Options>> {
                          seen = table;
                          return std::shared_ptr<const plugin::Options>();
                        }}};
  EXPECT_TRUE(w.parse(Dialect::kChat, ""));
  EXPECT_FALSE(seen.contains("temperature"));
  EXPECT_TRUE(w.parse(Dialect::kChat, R"("temperature":0)"));
  EXPECT_TRUE(seen.contains("temperature"));
}

TEST(Parse, LogitBiasIsChecked) {
  ParseWorld w;
  const std::string past = std::to_string(test::kVocabSize);
  for (const std::string &bad : {std::string("1"), std::string("[]"), std::string("{\"a\":1}"), std::string("{\"\":1}"),
                                 std::string("{\"-1\":1}"), std::string("{\"1.0\":1}"), std::string("{\" 1\":1}"),
                                 "{\"" + past + "\":1}", std::string("{\"99999999999999999999\":1}"),
                                 std::string("{\"1\":101}"), std::string("{\"1\":\"x\"}"), std::string("{\"1\":1e308}")}) {
    const auto parsed = w.parse(Dialect::kChat, "\"logit_bias\":" + bad);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_EQ(parsed.error().param, "logit_bias");
  }
}

}  // namespace
}  // namespace sluice::api

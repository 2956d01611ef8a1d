#include "core/text/chat_template.hpp"

#include "core/model_file/gguf_writer.hpp"

#include "tests/core/text/small_vocabulary.hpp"

#include <gtest/gtest.h>
#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

namespace sluice::text {
namespace {

namespace json = boost::json;

constexpr std::chrono::sys_seconds kNow{std::chrono::seconds(1'700'000'000)};

const std::filesystem::path kFolder = std::filesystem::path(SLUICE_SOURCE_DIR) / "tests/core/text/templates";

TEST(ChatTemplate, RendersAsPythonsJinjaDoes) {
  const json::value conversations = json::parse(testing::read_file(kFolder / "conversations.json"));
  const json::value expected = json::parse(testing::read_file(kFolder / "expected.json"));
  size_t compared = 0;
  for (const auto &[name, outcomes] : expected.as_object()) {
    const auto compiled = ChatTemplate::compile(testing::read_file(kFolder / (std::string(name) + ".jinja")));
    ASSERT_TRUE(compiled) << name << ": " << compiled.error().message;
    for (const json::value &conversation : conversations.as_array()) {
      const json::object &c = conversation.as_object();
      RenderOptions options;
      options.add_generation_prompt = c.at("add_generation_prompt").as_bool();
      options.bos_token = "<s>";
      options.eos_token = "</s>";
      options.extra = &c.at("extra").as_object();
      options.now = kNow;
      const auto text = compiled->render(c.at("messages").as_array(), options);
      const json::object &want = outcomes.at(c.at("name").as_string()).as_object();
      if (want.contains("text")) {
        ASSERT_TRUE(text) << name << ": " << text.error().message;
        EXPECT_EQ(*text, want.at("text").as_string()) << name << ", " << c.at("name");
      } else {
        ASSERT_FALSE(text) << name;
        EXPECT_EQ(text.error().code, Code::kInvalidArgument);
        EXPECT_EQ(text.error().message, want.at("error").as_string());
      }
      ++compared;
    }
  }
  EXPECT_EQ(compared, 33u);
}

Result<std::string> render(std::string_view source, std::string_view extra = "{}") {
  const auto compiled = ChatTemplate::compile(std::string(source));
  if (!compiled) return compiled.error();
  const json::value variables = json::parse(extra);
  RenderOptions options;
  options.extra = &variables.as_object();
  options.now = kNow;
  return compiled->render(json::array{{{"role", "user"}, {"content", "Hi"}}}, options);
}

void expect_text(std::string_view source, std::string_view want, std::string_view extra = "{}") {
  const auto text = render(source, extra);
  ASSERT_TRUE(text) << source << ": " << text.error().message;
  EXPECT_EQ(*text, want) << source;
}

void expect_error(std::string_view source, std::string_view reason, Code code = Code::kInvalidArgument) {
  const auto text = render(source);
  ASSERT_FALSE(text) << source << " gave " << text->substr(0, 200);
  EXPECT_EQ(text.error().code, code) << text.error().message;
  EXPECT_NE(text.error().message.find(reason), std::string::npos) << text.error().message;
}

TEST(ChatTemplate, DefaultsToChatMl) {
  std::ostringstream out;
  model_file::GgufWriter w(out);
  w.string("general.architecture", "llama");
  ASSERT_TRUE(w.begin());
  const std::string bytes = out.str();
  const auto file = model_file::Gguf::parse(std::as_bytes(std::span(bytes)), "f");
  const auto compiled = ChatTemplate::from_gguf(*file);
  ASSERT_TRUE(compiled);
  EXPECT_EQ(*compiled->render(json::array{{{"role", "user"}, {"content", "Hi"}}}, {}),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, WhiteSpaceIsTrimmedAsTransformersSetsItUp) {
  expect_text("a\n{% if true %}\nb\n{% endif %}\nc\n", "a\nb\nc");
  expect_text("a\n   {% if true %}  \n   b\n   {%- endif %}   c", "a\n  \n   b   c");
  expect_text("a\n  {{- 1 -}}  \n b", "a1b");
  expect_text("  {%+ if true %}x{% endif %}\n\n y", "  x\n y");
  expect_text("a {# note #}\nb", "a b");
  expect_text("{% raw %}{{ x }}{% endraw %}!", "{{ x }}!");
}

TEST(ChatTemplate, OperatorsBindAsInPython) {
  expect_text("{{ 1 + 2 * 3 - 4 // 3 % 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }}", "6 -4 2 3.5 1024");
  expect_text("{{ 'a' ~ 1 ~ none ~ true }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ not 1 == 2 }}",
              "a1NoneTrue True False True");
  expect_text(
      "{{ 'x' ~ 'y' | upper }} {{ 'a' if 0 else 'b' ~ 'c' }} {{ '>' if 0 }}|{{ 'b' in 'abc' and 'd' not in 'abc' }}",
      "xY bc |True");
}

TEST(ChatTemplate, PositionsCountCharacters) {
  expect_text(
      "{{ 'aé中🦙z'[1] }}{{ 'aé中🦙z'[-2] }} {{ 'aé中🦙z'[1:4] }} {{ 'aé中🦙z'[:-1] }} {{ 'aé中🦙z'[::-2] }} "
      "{{ 'ab'[1:0] }}",
      "é🦙 é中🦙 aé中🦙 z中a ");
  expect_text(
      "{{ 'aé中🦙z'|length }} {{ 'aé中🦙z'.find('z') }} {{ [1, 2, 3][-2:] }} {{ (1, 2)[:1] }} {{ 'ab'[5:] }}|",
      "5 4 [2, 3] (1,) |");
  expect_text("{{ s[:-1]|length }}", "3000000", R"({"s": ")" + std::string(3000001, 'x') + R"("})");
}

TEST(ChatTemplate, ErrorsNameTheLine) {
  expect_error("a\nb {{ 1 + }}", "line 2: a value expected");
  expect_error("{% if x %}\n", "'endif' is missing");
  expect_error("{% endfor %}", "the block 'endfor' is not supported");
  expect_error("{% include 'x' %}", "the block 'include' is not supported");
  expect_error("{{ 'abc }}", "a string is not closed");
  expect_error("x\n\n{{ messages[0].content.foo.bar }}", "line 3");
  expect_error("{{ y.z }}", "'y' is undefined");
  expect_error("{{ none + 'a' }}", "'+' is not possible between a none and a string");
  expect_error("{{ 'a' | shout }}", "there is no filter 'shout'");
  expect_error("{{ 'a' is loud }}", "there is no test 'loud'");
  expect_error("{{ 'a'.format(1) }}", "a string has no method 'format'");
  expect_error("{{ f(1) }}", "there is no function 'f'");
  expect_error("{% break %}", "'break' outside a loop");
  expect_error("{{ 99999999999999999999 }}", "no number that fits");
  expect_error("{{ 9223372036854775807 + 1 }}", "64 bits");
  expect_error("{{ 1 // 0 }}", "division by zero");
}

TEST(ChatTemplate, TheTemplatesOwnRefusalIsPassedOnAsItIs) {
  const auto text = render("{{ raise_exception('System role not supported') }}");
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, Code::kInvalidArgument);
  EXPECT_EQ(text.error().message, "System role not supported");
  EXPECT_EQ(text.error().param, "messages");
}

TEST(ChatTemplate, CallersVariablesDoNotReplaceOurs) {
  expect_text("{{ messages|length }}{{ x }}", "17", R"({"messages": [], "x": 7})");
}

std::string repeated(std::string_view unit, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += unit;
  return out;
}

TEST(ChatTemplate, NestedSourcesAreRefusedNotCrashedOn) {
  expect_error("{{ " + repeated("(", 6000) + "1" + repeated(")", 6000) + " }}", "nested more than 64 deep");
  expect_error("{{ " + repeated("[", 6000) + repeated("]", 6000) + " }}", "nested more than 64 deep");
  expect_error("{{ " + repeated("{'a':", 6000) + "1" + repeated("}", 6000) + " }}", "nested more than 64 deep");
  expect_error("{{ " + repeated("not ", 60000) + "1 }}", "nested more than 64 deep");
  expect_error("{{ " + repeated("-", 60000) + "1 }}", "nested more than 64 deep");
  expect_error("{{ " + repeated("1 if 1 else ", 6000) + "1 }}", "nested more than 64 deep");
  expect_error(repeated("{% if 1 %}", 6000), "nested more than 64 deep");
  expect_error(repeated("{% for x in y %}", 6000), "nested more than 64 deep");
  expect_error("{{ x" + repeated("|trim", 60000) + " }}", "more than 200 deep");
  expect_error("{{ x" + repeated(".a", 60000) + " }}", "more than 200 deep");
  expect_error("{{ x" + repeated("[0]", 60000) + " }}", "more than 200 deep");
  expect_error("{{ x" + repeated("()", 60000) + " }}", "more than 200 deep");
  expect_error("{{ " + repeated("f(", 6000) + repeated(")", 6000) + " }}", "nested more than 64 deep");
  expect_error(repeated("x", ChatTemplate::kMaxSourceBytes + 1), "the limit is");
}

TEST(ChatTemplate, LongSourcesThatAreNotNestedAreFine) {
  expect_text("{{ 0" + repeated(" + 1", 20000) + " }}", "20000");
  expect_text("{% if 0 %}" + repeated("{% elif 0 %}", 5000) + "{% else %}x{% endif %}", "x");
  expect_text("{{ " + repeated("'ab' ", 1000) + "}}", repeated("ab", 1000));
}

TEST(ChatTemplate, BombsRunIntoALimit) {
  constexpr Code kLimit = Code::kResourceExhausted;
  expect_error("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps", kLimit);
  expect_error("{{ range(1000000000)|length }}", "steps", kLimit);
  expect_error("{{ 'a' * 1000000000 }}", "", kLimit);
  expect_error("{{ ('a' * 500000) * 500000 }}", "", kLimit);
  expect_error("{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
               "", kLimit);
  expect_error(
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(64) %}{% set ns.s = ns.s.replace('a', 'aaaaaaaaaa') "
      "%}{% endfor %}",
      "", kLimit);
  expect_error("{% set ns = namespace(l=[1,2,3,4]) %}{% for i in range(64) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
               "steps", kLimit);
  expect_error("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "deep", kLimit);
  expect_error("{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(0) }}", "deep", kLimit);
  expect_error("{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = [ns.l] %}{% endfor %}", "nested");
  expect_error("{% set ns = namespace(l={}) %}{% for i in range(1000) %}{% set ns.l = {'a': ns.l} %}{% endfor %}",
               "nested");
  expect_error(
      "{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% for x in [ns.l] %}{% set ns.l = loop %}{% endfor "
      "%}{% endfor %}",
      "nested");
  expect_error("{% set s = 'aaaaaaaaaaaaaaaa' * 60000 %}{% for i in range(10000) %}{{ s }}{% endfor %}", "", kLimit);
  expect_error("{% set s = 'a,' * 400000 %}{% for i in range(100) %}{% set x = s.split(',') %}{% endfor %}", "steps",
               kLimit);
  expect_error("{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set x = s[0] %}{% endfor %}", "steps",
               kLimit);
  expect_error("{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set x = s|upper %}{% endfor %}", "steps",
               kLimit);
  expect_error("{% set l = range(100000)|list %}{% for i in l %}{{ i in l }}{% endfor %}", "steps", kLimit);
  expect_error("{% set l = range(100000)|list %}{% for i in l %}{% set x = l|sort %}{% endfor %}", "steps", kLimit);
  expect_error("{{ range(100000)|list|unique|list|length }}", "steps", kLimit);
  expect_error(
      "{% set s = ('a' * 1000 + '\n') * 1000 %}{% for i in range(1000) %}{% set s = s|indent(64) %}{% set x = s %}{% "
      "endfor %}",
      "", kLimit);
}

TEST(ChatTemplate, ANamespaceThatHoldsItselfIsNoLeakAndNoLoop) {
  expect_text("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns] %}{{ ns.me.me.l|length }}{{ ns }}",
              "1<namespace>");
}

TEST(ChatTemplate, OutputIsBounded) {
  const auto compiled = ChatTemplate::compile("{% for i in range(100) %}0123456789{% endfor %}");
  RenderOptions options;
  options.max_output_bytes = 1000;
  EXPECT_TRUE(compiled->render({}, options));
  options.max_output_bytes = 999;
  const auto text = compiled->render({}, options);
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, Code::kResourceExhausted);
}

TEST(ChatTemplate, StrftimeIsUtcAndTakesOnlyKnownLetters) {
  expect_text("{{ strftime_now('%d %b %Y %H:%M') }}", "14 Nov 2023 22:13");
  expect_error("{{ strftime_now('%9999999d') }}", "strftime_now has no '%9'");
}

TEST(ChatTemplate, ALongPromptIsFarFromTheLimits) {
  const auto compiled = ChatTemplate::compile(testing::read_file(kFolder / "qwen3_thinking.jinja"));
  json::array messages;
  for (int i = 0; i < 400; ++i)
    messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", std::string(10'000, 'x')}});
  const auto text = compiled->render(messages, {});
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_GT(text->size(), 4'000'000u);
}

}  // namespace
}  // namespace sluice::text

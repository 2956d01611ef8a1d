#include "core/text/tokenizer.hpp"
#include "core/text/pretokenize.hpp"

#include "tests/core/text/small_vocabulary.hpp"

#include <algorithm>

namespace sluice::text {
namespace {

using testing::small_bpe;
using testing::small_spm;
using testing::SmallVocabulary;

std::vector<std::string> spelled(const Tokenizer &tokenizer, std::string_view text, EncodeOptions options = {}) {
  const auto ids = tokenizer.encode(text, options);
  EXPECT_TRUE(ids) << ids.error().message;
  std::vector<std::string> out;
  for (const int32_t id : *ids) out.emplace_back(tokenizer.token_text(id));
  return out;
}

using Spelled = std::vector<std::string>;

TEST(Tokenizer, JoinsByScoreAndSpellsTheRestInBytes) {
  const auto t = *small_spm().load();
  EXPECT_EQ(spelled(*t, "hello"), Spelled{"▁hello"});
  EXPECT_EQ(spelled(*t, " hello"), (Spelled{"▁", "▁hello"}));
  EXPECT_EQ(spelled(*t, "abc"), (Spelled{"▁", "ab", "c"}));
  EXPECT_EQ(spelled(*t, "é"), (Spelled{"▁", "<0xC3>", "<0xA9>"}));
  EXPECT_EQ(spelled(*t, ""), Spelled{});
  EXPECT_EQ(spelled(*t, "a", {.add_bos = true, .parse_special = false}), (Spelled{"<s>", "▁", "a"}));
  EXPECT_EQ(spelled(*t, "a\xFFz"), (Spelled{"▁", "a", "<0xEF>", "<0xBF>", "<0xBD>", "<0x7A>"}));
}

TEST(Tokenizer, ControlTokensAreParsedOnlyWhenAskedFor) {
  const auto t = *small_spm().load();
  EXPECT_EQ(spelled(*t, "a<|im_end|>a", {.add_bos = false, .parse_special = true}),
            (Spelled{"▁", "a", "<|im_end|>", "▁", "a"}));
  for (const std::string &token : spelled(*t, "a<|im_end|></s>"))
    EXPECT_NE(token[0] == '<' && token[1] != '0', true) << token;
  EXPECT_EQ(spelled(*t, "a<note>"), (Spelled{"▁", "a", "<note>"}));  // user-defined: always
}

TEST(Tokenizer, KnowsItsSpecialTokens) {
  const auto t = *small_spm().load();
  EXPECT_EQ(t->bos(), 1);
  EXPECT_EQ(t->eos(), 2);
  EXPECT_TRUE(t->adds_bos());
  EXPECT_TRUE(t->adds_space_prefix());
  EXPECT_TRUE(t->is_control(1));
  const auto &ends = t->end_tokens();
  ASSERT_EQ(ends.size(), 2u);
  EXPECT_EQ(ends[0], 2);
  EXPECT_EQ(t->token_text(ends[1]), "<|im_end|>");
  EXPECT_TRUE(t->is_end(ends[1]));
  EXPECT_FALSE(t->is_end(1));
  EXPECT_EQ(t->piece(2), "");
  EXPECT_EQ(t->piece(0), "\xEF\xBF\xBD");
  EXPECT_EQ(t->piece(3 + 'A'), "A");
  EXPECT_FALSE(t->is_whole(3 + 0xC3));
}

TEST(Tokenizer, AWordThatLooksLikeAnEndIsNone) {
  auto v = small_spm();
  v.add("<|endoftext|>", 1);
  EXPECT_EQ((*v.load())->end_tokens().size(), 2u);
}

TEST(Tokenizer, MetadataDecidesBosAndSpace) {
  auto v = small_spm();
  v.more = [](model_file::GgufWriter &w) {
    w.boolean("tokenizer.ggml.add_bos_token", false);
    w.boolean("tokenizer.ggml.add_space_prefix", false);
    w.u32("tokenizer.ggml.eot_token_id", 1);
  };
  const auto t = *v.load();
  EXPECT_FALSE(t->adds_bos());
  EXPECT_EQ(spelled(*t, "hello"), Spelled{"hello"});
  EXPECT_TRUE(t->is_end(1));
}

TEST(Tokenizer, Phi3KeepsNoSpaceBehindASpecialToken) {
  auto v = small_spm();
  v.more = [](model_file::GgufWriter &w) { w.string("general.name", "Phi3"); };
  EXPECT_EQ(spelled(**v.load(), "<|im_end|>\n hello", {.add_bos = false, .parse_special = true}),
            (Spelled{"<|im_end|>", "▁hello"}));
}

TEST(Tokenizer, ByteLevelMergesByRank) {
  const auto t = *small_bpe().load();
  EXPECT_EQ(spelled(*t, " test et"), (Spelled{"Ġt", "es", "t", "Ġe", "t"}));
  EXPECT_EQ(spelled(*t, "a\n\xF0\x9F\xA6\x99"), (Spelled{"a", "Ċ", "ð", "Ł", "¦", "Ļ"}));
  EXPECT_FALSE(t->adds_space_prefix());
  EXPECT_FALSE(t->adds_bos());
}

/// Merging by definition: again and again the best pair, the leftmost of equals.
Spelled merge_slowly(const SmallVocabulary &v, Spelled symbols) {
  while (true) {
    size_t best = SIZE_MAX, at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = std::find(v.merges.begin(), v.merges.end(), symbols[i] + " " + symbols[i + 1]);
      const auto rank = static_cast<size_t>(found - v.merges.begin());
      if (found != v.merges.end() && rank < best) {
        best = rank;
        at = i;
      }
    }
    if (best == SIZE_MAX) return symbols;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(Tokenizer, MergesAsTheDefinitionDoes) {
  const auto v = small_bpe();
  const auto t = *v.load();
  uint32_t state = 1;
  for (int round = 0; round < 200; ++round) {
    std::string word;
    Spelled letters;
    for (int i = 0; i < 1 + round % 40; ++i) {
      state = state * 1664525u + 1013904223u;
      word += "etaoin"[(state >> 16) % 6];
      letters.emplace_back(1, word.back());
    }
    ASSERT_EQ(spelled(*t, word), merge_slowly(v, letters)) << word;
  }
}

TEST(Tokenizer, UnknownPretokenizersAreRefusedByName) {
  auto v = small_bpe();
  v.pre = "somebody-else";
  const auto t = v.load();
  ASSERT_FALSE(t);
  EXPECT_EQ(t.error().code, Code::kUnsupported);
  EXPECT_NE(t.error().message.find("somebody-else"), std::string::npos);
  EXPECT_NE(t.error().message.find("qwen2"), std::string::npos);
}

TEST(Tokenizer, EveryKnownPretokenizerKeepsTheWholeText) {
  const std::string text = "I'll've 12345 WORDS and wörds,  \n\n 中文かな \t!!! don'T\r\n   x";
  for (const char *pre : {"gpt-2", "llama-bpe", "qwen2", "starcoder", "tekken", "gpt-4o", "deepseek-v3", "glm4"}) {
    const auto kind = find_pre_kind(pre);
    ASSERT_TRUE(kind) << pre;
    const auto words = Pretokenizer::compile(*kind);
    ASSERT_TRUE(words) << words.error().message;
    Pretokenizer::Scratch scratch;
    std::vector<std::string_view> out;
    ASSERT_TRUE(words->split(text, scratch, out));
    std::string joined;
    for (const std::string_view word : out) joined += word;
    EXPECT_EQ(joined, text) << pre;
    EXPECT_GT(out.size(), 10u) << pre;
  }
}

void expect_refused(const SmallVocabulary &v, std::string_view reason) {
  const auto t = v.load();
  ASSERT_FALSE(t) << reason;
  EXPECT_NE(t.error().message.find(reason), std::string::npos) << t.error().message;
}

TEST(Tokenizer, RefusesVocabulariesThatContradictThemselves) {
  auto v = small_spm();
  v.bos = 100000;
  expect_refused(v, "tokenizer.ggml.bos_token_id is 100000");
  v = small_spm();
  v.scores.pop_back();
  expect_refused(v, "scores has");
  v = small_spm();
  v.scores[5] = std::numeric_limits<float>::quiet_NaN();
  expect_refused(v, "scores[5] is not a finite number");
  v = small_spm();
  v.types.pop_back();
  expect_refused(v, "token_type has");
  v = small_spm();
  v.types[4] = 9;
  expect_refused(v, "token_type[4] is 9");
  v = small_spm();
  v.tokens[3] = "<0x-1>";
  expect_refused(v, "token 3: '<0x-1>'");
  v.tokens[3] = "<0x0G>";
  expect_refused(v, "token 3: '<0x0G>'");
  v.tokens[3] = "<0x000>";
  expect_refused(v, "token 3");
  v = small_spm();
  v.tokens.clear();
  v.types.clear();
  expect_refused(v, "tokens is empty");
  v = small_spm();
  v.tokens[10].assign(Vocabulary::kMaxTokenBytes + 1, 'x');
  expect_refused(v, "token 10 has");
  v = small_spm();
  v.model = "unigram";
  expect_refused(v, "'unigram'");
  v = small_bpe();
  v.merges[7] = "ab";
  expect_refused(v, "merges[7] 'ab' is not two tokens");
  v.merges[7] = "~ ~";
  expect_refused(v, "merges[7] '~ ~' joins what the vocabulary does not have");
}

TEST(Tokenizer, AByteWithoutATokenIsNamed) {
  auto v = small_bpe();
  v.types[3 + '#'] = 3;  // a control token now, which no text becomes
  const auto t = v.load();
  ASSERT_TRUE(t) << t.error().message;
  EXPECT_TRUE((*t)->encode("!"));
  const auto ids = (*t)->encode("#");
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().message, "the model's vocabulary has no token for byte 0x23");
}

}  // namespace
}  // namespace sluice::text

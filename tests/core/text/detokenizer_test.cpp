#include "core/text/detokenizer.hpp"

#include "core/text/utf8.hpp"
#include "tests/core/text/small_vocabulary.hpp"

#include <chrono>
#include <random>

namespace sluice::text {
namespace {

using testing::small_spm;

constexpr int32_t kByte0 = 3;  // of small_spm()

std::vector<int32_t> as_bytes(std::string_view text) {
  std::vector<int32_t> out;
  for (const char c : text) out.push_back(kByte0 + static_cast<unsigned char>(c));
  return out;
}

TEST(Detokenizer, EmitsOnlyWholeCharacters) {
  const auto t = *small_spm().load();
  Detokenizer d(*t);
  std::string out;
  const std::vector<std::string> after = {"", "", "", "🦙", "🦙", "🦙é"};
  const auto ids = as_bytes("🦙é");
  for (size_t i = 0; i < ids.size(); ++i) {
    d.push(ids[i], out);
    EXPECT_EQ(out, after[i]);
  }
  d.flush(out);
  EXPECT_EQ(out, "🦙é");
}

TEST(Detokenizer, WrongBytesBecomeReplacementCharacters) {
  const auto t = *small_spm().load();
  const auto shown = [&](std::string_view bytes) {
    Detokenizer d(*t);
    std::string out;
    for (const int32_t id : as_bytes(bytes)) d.push(id, out);
    d.flush(out);
    return out;
  };
  EXPECT_EQ(shown("a\xFFz"), "a\uFFFDz");
  EXPECT_EQ(shown("\xF0\x9F\xA6"), "\uFFFD");
  EXPECT_EQ(shown("\xF0\x9F\xA6z"), "\uFFFDz");
  EXPECT_EQ(shown("\xC0\x80"), "\uFFFD\uFFFD");            // overlong
  EXPECT_EQ(shown("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(shown("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(shown("\xE2\x82\xE2\x82\xAC"), "\uFFFD€");
}

TEST(Detokenizer, StripsTheTokenizersSpaceOnlyFromATextOfItsOwn) {
  const auto t = *small_spm().load();
  const auto ids = t->encode("hello hello", {.add_bos = true, .parse_special = false});
  std::string own, continued;
  Detokenizer first(*t, FirstSpace::kStrip), second(*t);
  for (const int32_t id : *ids) {
    first.push(id, own);
    second.push(id, continued);
  }
  EXPECT_EQ(own, "hello hello");
  EXPECT_EQ(continued, " hello hello");
}

/// Any bytes, cut at any places into tokens: the output is valid at every moment and in the end the repaired text.
TEST(Detokenizer, AnyBytesInAnyPieces) {
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    while (bytes.size() < 40) {
      if (random() % 3 == 0)
        bytes += static_cast<char>(random());
      else
        append_utf8(bytes, std::array<char32_t, 5>{'x', 0xe9, 0x20ac, 0x1f999, 0x4e2d}[random() % 5]);
    }
    auto v = small_spm();
    std::vector<int32_t> ids;
    for (size_t at = 0; at < bytes.size();) {  // a control token as well, which must not matter
      if (random() % 4 == 0) ids.push_back(1);
      ids.push_back(kByte0 + static_cast<unsigned char>(bytes[at++]));
    }
    const auto t = *v.load();
    Detokenizer d(*t);
    std::string out;
    for (const int32_t id : ids) {
      d.push(id, out);
      ASSERT_TRUE(is_utf8(out));
    }
    d.flush(out);
    ASSERT_EQ(out, repair_utf8(bytes));
  }
}

/// Pieces longer than a byte, as byte-level vocabularies have them, ending and beginning inside characters.
TEST(Detokenizer, PiecesThatCutCharacters) {
  auto v = testing::small_bpe();
  const auto t0 = *v.load();
  const std::string text = "中文🦙é and so on 中";
  std::mt19937 random(6);
  for (int round = 0; round < 50; ++round) {
    auto cut = v;
    std::vector<int32_t> ids;
    for (size_t at = 0; at < text.size();) {
      const size_t n = std::min<size_t>(1 + random() % 6, text.size() - at);
      std::string spelling;
      for (const char c : text.substr(at, n)) spelling += v.tokens[3 + static_cast<unsigned char>(c)];
      ids.push_back(static_cast<int32_t>(cut.tokens.size()));
      cut.add(spelling);
      at += n;
    }
    const auto t = *cut.load();
    Detokenizer d(*t);
    std::string out;
    for (const int32_t id : ids) {
      d.push(id, out);
      ASSERT_TRUE(is_utf8(out));
      ASSERT_EQ(out, text.substr(0, out.size()));
    }
    ASSERT_EQ(out, text);
  }
}

TEST(Detokenizer, CostOfAToken) {
  const auto t = *testing::small_bpe().load();
  const auto ids = *t->encode("the rain in spain stays mainly in the plain, they say, at the end of the season ");
  std::string out;
  Detokenizer d(*t);
  constexpr int kRounds = 20000;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kRounds; ++i) {
    out.clear();
    for (const int32_t id : ids) d.push(id, out);
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  std::printf("  %.1f ns a token\n", took.count() / kRounds / static_cast<double>(ids.size()));
  EXPECT_FALSE(out.empty());
}

TEST(Utf8, StepsOverEveryCharacter) {
  for (char32_t c = 0; c <= 0x10ffff; c += c < 0x3000 ? 1 : 97) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string text;
    append_utf8(text, c);
    const Utf8Step step = utf8_step(text);
    ASSERT_EQ(step.status, Utf8Status::kValid) << std::hex << uint32_t{c};
    ASSERT_EQ(step.character, c);
    ASSERT_EQ(step.bytes, text.size());
    ASSERT_EQ(utf8_bytes_of(text[0]), text.size());
    for (size_t n = 1; n < text.size(); ++n) ASSERT_EQ(utf8_step(text.substr(0, n)).status, Utf8Status::kIncomplete);
  }
}

}  // namespace
}  // namespace sluice::text

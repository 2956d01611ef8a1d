// No text takes long, no vocabulary breaks the tokenizer.
#include "core/text/tokenizer.hpp"
#include "core/text/utf8.hpp"
#include "tests/core/text/small_vocabulary.hpp"

#include <gtest/gtest.h>
#include <algorithm>
#include <ctime>
#include <filesystem>
#include <functional>
#include <random>

namespace sluice::text {
namespace {

std::string random_utf8(size_t size_bytes) {
  std::mt19937 random(1);
  std::string out;
  while (out.size() < size_bytes) {
    const unsigned kind = random() % 4;
    const char32_t c = kind == 0   ? random() % 0x80
                       : kind == 1 ? 0x80 + random() % 0x780
                       : kind == 2 ? 0x4e00 + random() % 0x5000
                                   : 0x1f300 + random() % 0x300;
    append_utf8(out, c);
  }
  return out;
}

std::string random_bytes(size_t size_bytes) {
  std::mt19937 random(2);
  std::string out(size_bytes, '\0');
  for (char &c : out) c = static_cast<char>(random());
  return out;
}

std::string filled_with(std::string_view unit, size_t size_bytes) {
  std::string out;
  while (out.size() < size_bytes) out += unit;
  return out;
}

struct Bomb {
  const char *name;
  std::function<std::string(size_t)> make;
};

const Bomb kBombs[] = {
    {"one letter", [](size_t n) { return std::string(n, 'a'); }},
    {"one capital", [](size_t n) { return std::string(n, 'A'); }},
    {"one digit", [](size_t n) { return std::string(n, '7'); }},
    {"one sign", [](size_t n) { return std::string(n, '-'); }},
    {"spaces", [](size_t n) { return std::string(n, ' '); }},
    {"spaces, then a word", [](size_t n) { return std::string(n, ' ') + "x"; }},
    {"line feeds", [](size_t n) { return std::string(n, '\n'); }},
    {"tabs and line feeds", [](size_t n) { return filled_with("\t\n ", n); }},
    {"apostrophes", [](size_t n) { return filled_with("'s'", n); }},
    {"two letters", [](size_t n) { return filled_with("ab", n); }},
    {"llamas", [](size_t n) { return filled_with("\xF0\x9F\xA6\x99", n); }},
    {"begun special tokens", [](size_t n) { return filled_with("<|start_header_i", n); }},
    {"special tokens", [](size_t n) { return filled_with("<|eot_id|><|im_end|></s>", n); }},
    {"random UTF-8", random_utf8},
    {"random bytes", random_bytes},
    {"lone lead bytes", [](size_t n) { return std::string(n, '\xF0'); }},
    {"English", [](size_t n) { return filled_with("The quick brown fox jumps over 12 lazy dogs, isn't it? ", n); }},
};

/// Of this thread, so that a busy machine does not fail the test.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double seconds_to_encode(const Tokenizer &tokenizer, const std::string &text) {
  const double begin = cpu_seconds();
  const auto ids = tokenizer.encode(text, {.add_bos = true, .parse_special = true});
  const double took = cpu_seconds() - begin;
  EXPECT_TRUE(ids) << ids.error().message;
  return took;
}

class TokenizerHostile : public ::testing::TestWithParam<const char *> {};

TEST_P(TokenizerHostile, AMebibyteOfAnythingTakesASecond) {
  const std::filesystem::path path =
      std::filesystem::path(SLUICE_SHARED_DATA) / "tokenizers" / (std::string("ggml-vocab-") + GetParam() + ".gguf");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
  const auto file = model_file::Gguf::open(path);
  ASSERT_TRUE(file) << file.error().message;
  const double begin = cpu_seconds();
  const auto tokenizer = Tokenizer::from_gguf(*file);
  std::printf("  load: %.0f ms\n", (cpu_seconds() - begin) * 1e3);
  ASSERT_TRUE(tokenizer);
  for (const Bomb &bomb : kBombs) {
    const double took = seconds_to_encode(**tokenizer, bomb.make(1 << 20));
    std::printf("  1 MiB of %-22s %6.0f ms\n", bomb.name, took * 1e3);
    EXPECT_LT(took, testing::kSlowSeconds) << bomb.name;
    const double small = seconds_to_encode(**tokenizer, bomb.make(64 << 10));
    EXPECT_LT(took, std::max(64 * small, 0.2)) << bomb.name << ": more than four times what is linear";
  }
}

/// What a fuzzer does: change a file's bytes and, if it still loads, use every id it offers.
void use_everything(const Tokenizer &tokenizer) {
  std::string text = "Hello, hello \xF0\x9F\xA6\x99 <note> <|im_end|> etaoin\n\n  x";
  for (int32_t id = 0; tokenizer.contains(id); ++id) {
    text += tokenizer.piece(id).substr(0, 16);
    (void)tokenizer.is_end(id);
    (void)tokenizer.token_text(id);
  }
  const auto ids = tokenizer.encode(text, {.add_bos = true, .parse_special = true});
  if (!ids) return;
  for (const int32_t id : *ids) ASSERT_TRUE(tokenizer.contains(id));
}

void mutate_and_load(const std::string &whole, uint64_t seed, int rounds, int at_least) {
  std::mt19937_64 random(seed);
  int loaded = 0;
  for (int i = 0; i < rounds; ++i) {
    std::string changed = whole;
    for (uint64_t n = 1 + random() % 3; n > 0; --n) changed[random() % changed.size()] = static_cast<char>(random());
    std::vector<std::byte> bytes(changed.size());
    std::memcpy(bytes.data(), changed.data(), changed.size());
    const auto file = model_file::Gguf::parse(bytes, "changed");
    if (!file) continue;
    const auto tokenizer = Tokenizer::from_gguf(*file);
    if (!tokenizer) continue;
    ++loaded;
    use_everything(**tokenizer);
  }
  EXPECT_GT(loaded, at_least);
}

TEST(TokenizerMutated, SentencePieceVocabularies) { mutate_and_load(testing::small_spm().file(), 1, 5000, 200); }
TEST(TokenizerMutated, ByteLevelVocabularies) { mutate_and_load(testing::small_bpe().file(), 2, 5000, 20); }

INSTANTIATE_TEST_SUITE_P(Real, TokenizerHostile, ::testing::Values("llama-spm", "gpt-2", "llama-bpe", "qwen2"),
                         [](const auto &named) {
                           std::string name = named.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace sluice::text

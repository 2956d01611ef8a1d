// Ids that other implementations give for real vocabularies and awkward texts.
#include "core/text/tokenizer.hpp"

#include "tests/core/text/small_vocabulary.hpp"

#include <gtest/gtest.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

namespace sluice::text {
namespace {

constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";

std::vector<std::string> split(const std::string &text, std::string_view by) {
  std::vector<std::string> out;
  size_t begin = 0;
  for (size_t at; (at = text.find(by, begin)) != std::string::npos; begin = at + by.size())
    out.push_back(text.substr(begin, at - begin));
  return out;
}

std::vector<int32_t> numbers(const std::string &line) {
  std::istringstream in(line);
  return {std::istream_iterator<int32_t>(in), {}};
}

class TokenizerGolden : public ::testing::TestWithParam<const char *> {
 protected:
  void SetUp() override {
    stem_ =
        std::filesystem::path(SLUICE_SHARED_DATA) / "tokenizers" / (std::string("ggml-vocab-") + GetParam() + ".gguf");
    if (!std::filesystem::exists(stem_)) GTEST_SKIP() << stem_ << " is not there";
    auto file = model_file::Gguf::open(stem_);
    ASSERT_TRUE(file) << file.error().message;
    auto tokenizer = Tokenizer::from_gguf(*file);
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    tokenizer_ = std::move(*tokenizer);
  }
  std::filesystem::path stem_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(TokenizerGolden, GivesExactlyTheIds) {
  const auto texts = split(testing::read_file(stem_.string() + ".inp"), kSeparator);
  const auto lines = split(testing::read_file(stem_.string() + ".out"), "\n");
  ASSERT_GT(texts.size(), 40u);
  ASSERT_GE(lines.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto ids = tokenizer_->encode(texts[i]);
    ASSERT_TRUE(ids) << ids.error().message;
    EXPECT_EQ(*ids, numbers(lines[i])) << "text " << i << ": " << texts[i];
  }
}

TEST_P(TokenizerGolden, PiecesGiveTheTextBack) {
  const std::string text = "Hello, wörld! 🦙 3333 \n\n\t x\r\n  កាន់ 'tis  I'LL \xEF\xBF\xBD end  ";
  const auto ids = tokenizer_->encode(text, {.add_bos = true, .parse_special = false});
  ASSERT_TRUE(ids);
  std::string back;
  for (const int32_t id : *ids) back += tokenizer_->piece(id);
  EXPECT_EQ(back, (tokenizer_->adds_space_prefix() ? " " : "") + text);
}

TEST_P(TokenizerGolden, EveryIdHasAPieceAndTokenisesAgain) {
  for (int32_t id = 0; tokenizer_->contains(id); ++id) {
    const std::string_view piece = tokenizer_->piece(id);
    ASSERT_EQ(tokenizer_->is_control(id), piece.empty()) << id;
    ASSERT_TRUE(tokenizer_->encode(piece)) << id;
  }
}

INSTANTIATE_TEST_SUITE_P(Real, TokenizerGolden, ::testing::Values("llama-spm", "gpt-2", "llama-bpe", "qwen2", "phi-3"),
                         [](const auto &named) {
                           std::string name = named.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace sluice::text

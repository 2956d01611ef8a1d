#pragma once
#include "core/model_file/gguf.hpp"
#include "core/model_file/gguf_writer.hpp"
#include "core/model_file/synth_vocabulary.hpp"
#include "core/text/tokenizer.hpp"

#include <gtest/gtest.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace sluice::text::testing {

inline std::string read_file(const std::filesystem::path &path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

/// How long a hostile input may take: a second, and more where a sanitizer slows everything.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr double kSlowSeconds = 20.0;
#else
inline constexpr double kSlowSeconds = 1.0;
#endif

/// A tokenizer's metadata as lists that a test may spoil before it is written.
struct SmallVocabulary {
  std::string model = "llama";
  std::string pre = "default";
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<float> scores;
  std::vector<std::string> merges;
  uint32_t bos = 1;
  uint32_t eos = 2;
  std::function<void(model_file::GgufWriter &)> more;

  void add(std::string token, int32_t type = 1, float score = 0) {
    tokens.push_back(std::move(token));
    types.push_back(type);
    scores.push_back(score);
  }

  std::string file() const {
    std::ostringstream out;
    model_file::GgufWriter w(out);
    w.string("tokenizer.ggml.model", model);
    w.string("tokenizer.ggml.pre", pre);
    w.strings("tokenizer.ggml.tokens", tokens);
    w.ints("tokenizer.ggml.token_type", types);
    if (model == "llama") w.floats("tokenizer.ggml.scores", scores);
    if (model == "gpt2") w.strings("tokenizer.ggml.merges", merges);
    w.u32("tokenizer.ggml.bos_token_id", bos);
    w.u32("tokenizer.ggml.eos_token_id", eos);
    if (more) more(w);
    EXPECT_TRUE(w.begin());
    EXPECT_TRUE(w.finish());
    return out.str();
  }

  Result<std::unique_ptr<Tokenizer>> load() const {
    const std::string bytes = file();
    const auto gguf = model_file::Gguf::parse(std::as_bytes(std::span(bytes)), "small");
    if (!gguf) return gguf.error();
    return Tokenizer::from_gguf(*gguf);
  }
};

/// <unk> <s> </s>, the 256 bytes, a few words, one control and one user-defined token.
inline SmallVocabulary small_spm() {
  SmallVocabulary v;
  v.add("<unk>", 2);
  v.add("<s>", 3);
  v.add("</s>", 3);
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    v.add(text, 6);
  }
  const std::string mark = "\xE2\x96\x81";
  for (const char *letter : {"a", "b", "c", "e", "h", "l", "o"}) v.add(letter, 1, -20);
  v.add(mark, 1, -20);
  v.add("he", 1, -1);
  v.add("ll", 1, -2);
  v.add("hell", 1, -3);
  v.add("hello", 1, -4);
  v.add(mark + "hello", 1, -5);
  v.add("ab", 1, -6);
  v.add("bc", 1, -6);  // as good as "ab": the left one wins
  v.add("<|im_end|>", 3);
  v.add("<note>", 4);
  return v;
}

/// The byte-level vocabulary that synthetic models have.
inline SmallVocabulary small_bpe() {
  const auto made = model_file::make_synth_vocabulary(768, model_file::SynthSpecials::kSentence);
  SmallVocabulary v;
  v.model = "gpt2";
  v.pre = "gpt-2";
  v.tokens = made.tokens;
  v.types = made.types;
  v.merges = made.merges;
  v.bos = made.bos;
  v.eos = made.eos;
  return v;
}

}  // namespace sluice::text::testing

// A text: its tokens, shown again, are the text.
#include "core/model_file/gguf.hpp"
#include "core/model_file/gguf_writer.hpp"
#include "core/model_file/synth_vocabulary.hpp"
#include "core/text/detokenizer.hpp"
#include "core/text/tokenizer.hpp"
#include "core/text/utf8.hpp"
#include "tests/fuzz/fuzz_target.hpp"

#include <sstream>

using namespace sluice;

namespace {

std::unique_ptr<text::Tokenizer> load(const std::string &bytes) {
  const auto file = model_file::Gguf::parse(std::as_bytes(std::span(bytes)), "fuzz");
  FUZZ_CHECK(file);
  auto tokenizer = text::Tokenizer::from_gguf(*file);
  FUZZ_CHECK(tokenizer);
  return std::move(*tokenizer);
}

std::unique_ptr<text::Tokenizer> byte_level(std::string_view pre) {
  const auto v = model_file::make_synth_vocabulary(2048, model_file::SynthSpecials::kLlama3);
  std::ostringstream out;
  model_file::GgufWriter w(out);
  w.string("tokenizer.ggml.model", "gpt2");
  w.string("tokenizer.ggml.pre", pre);
  w.strings("tokenizer.ggml.tokens", v.tokens);
  w.ints("tokenizer.ggml.token_type", v.types);
  w.strings("tokenizer.ggml.merges", v.merges);
  (void)w.begin();
  return load(out.str());
}

std::unique_ptr<text::Tokenizer> sentence_piece() {
  std::vector<std::string> tokens = {"<unk>", "\xE2\x96\x81", "ab",  "abc",       "\xE2\x96\x81the",
                                     "th",    "he",           "the", "<|im_end|>"};
  std::vector<int32_t> types = {2, 1, 1, 1, 1, 1, 1, 1, 3};
  std::vector<float> scores = {0, -9, -1, -2, -3, -5, -5, -4, 0};
  for (int byte = 0; byte < 256; ++byte) {
    char token[8];
    std::snprintf(token, sizeof token, "<0x%02X>", byte);
    tokens.emplace_back(token);
    types.push_back(6);
    scores.push_back(0);
  }
  std::ostringstream out;
  model_file::GgufWriter w(out);
  w.string("tokenizer.ggml.model", "llama");
  w.strings("tokenizer.ggml.tokens", tokens);
  w.ints("tokenizer.ggml.token_type", types);
  w.floats("tokenizer.ggml.scores", scores);
  (void)w.begin();
  return load(out.str());
}

/// What the text should become: repaired; SentencePiece writes spaces as U+2581, so that character reads back as a
/// space.
std::string shown(const text::Tokenizer &tokenizer, std::string_view input) {
  std::string out = text::repair_utf8(input);
  if (!tokenizer.adds_space_prefix()) return out;
  constexpr std::string_view kMark = "\xE2\x96\x81";
  for (size_t at = 0; (at = out.find(kMark, at)) != std::string::npos;) out.replace(at, kMark.size(), " ");
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const std::unique_ptr<text::Tokenizer> kTokenizers[] = {
      sentence_piece(), byte_level("gpt-2"), byte_level("llama-bpe"), byte_level("qwen2"), byte_level("tekken")};
  const std::string_view input(reinterpret_cast<const char *>(data), size);
  for (const auto &tokenizer : kTokenizers) {
    FUZZ_CHECK(tokenizer->encode(input, {.add_bos = true, .parse_special = true}));
    const auto ids = tokenizer->encode(input);
    FUZZ_CHECK(ids);
    text::Detokenizer detokenizer(*tokenizer, text::FirstSpace::kStrip);
    std::string out;
    for (const int32_t id : *ids) detokenizer.push(id, out);
    detokenizer.flush(out);
    FUZZ_CHECK(out == shown(*tokenizer, input));
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  return {"Hello, the world's end  \n\n 1234 abc",
          "\xF0\x9F\xA6\x99\xE4\xB8\xAD <|im_end|> \xC3\xA4'LL",
          "\xFF\xC0\x80\xED\xA0\x80 x",
          "aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
          "   \t\r\n  \xC2\xA0\xE2\x96\x81 a",
          "<|begin_of_text|><|eot_id|>the"};
}

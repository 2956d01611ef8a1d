// A model file: load it, read all it offers, and use the tokenizer and the template it brings.
#include "core/model_file/gguf.hpp"
#include "core/model_file/gguf_writer.hpp"
#include "core/model_file/synth.hpp"
#include "core/text/chat_template.hpp"
#include "core/text/generation_defaults.hpp"
#include "core/text/tokenizer.hpp"
#include "tests/fuzz/fuzz_target.hpp"

#include <boost/json.hpp>
#include <sstream>

using namespace sluice;

namespace {

void use_tokenizer(const text::Tokenizer &tokenizer) {
  std::string all = "Hello <|im_end|> \xF0\x9F\xA6\x99 \n\n  ";
  for (int32_t id = 0; tokenizer.contains(id); ++id) all += tokenizer.piece(id).substr(0, 8);
  const auto ids = tokenizer.encode(all, {.add_bos = true, .parse_special = true});
  if (!ids) return;
  for (const int32_t id : *ids) FUZZ_CHECK(tokenizer.contains(id));
}

void use_metadata(const model_file::Gguf &file) {
  for (const std::string_view key : file.keys()) {
    (void)file.u64(key);
    (void)file.f32(key);
    (void)file.boolean(key);
    (void)file.string(key);
    (void)file.strings(key);
    (void)file.floats(key);
    (void)file.ints(key);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const auto file = model_file::Gguf::parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file) return 0;
  use_metadata(*file);
  for (const model_file::Tensor &tensor : file->tensors()) {
    if (tensor.dims[0] > 4096) continue;
    std::vector<float> row(tensor.dims[0]);
    model_file::dequantize_row(tensor.type, tensor.bytes.data(), row.data(), row.size());
  }
  (void)text::read_generation_defaults(*file);
  if (const auto chat = text::ChatTemplate::from_gguf(*file))
    (void)chat->render(boost::json::array{{{"role", "user"}, {"content", "Hi"}}}, {});
  if (const auto tokenizer = text::Tokenizer::from_gguf(*file)) use_tokenizer(**tokenizer);
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  std::ostringstream small;
  model_file::GgufWriter w(small);
  const std::vector<std::string> tokens = {"<unk>", "<s>", "</s>",         "<0x41>",    "a",
                                           "b",     "ab",  "\xE2\x96\x81", "<|im_end|>"};
  const std::vector<int32_t> types = {2, 3, 3, 6, 1, 1, 1, 1, 3};
  const std::vector<float> scores = {0, 0, 0, 0, -1, -2, -3, -4, 0};
  const uint64_t dims[] = {32, 2};
  w.string("tokenizer.ggml.model", "llama");
  w.strings("tokenizer.ggml.tokens", tokens);
  w.ints("tokenizer.ggml.token_type", types);
  w.floats("tokenizer.ggml.scores", scores);
  w.string("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}");
  w.f32("general.sampling.temp", 0.5f);
  (void)w.tensor("t", model_file::TensorType::kQ4_0, dims);
  (void)w.begin();
  (void)w.write(std::vector<std::byte>(36));
  (void)w.finish();
  std::ostringstream tokenizer;
  model_file::GgufWriter v(tokenizer);
  std::vector<std::string> letters;
  for (int c = 0x21; c < 0x7f; ++c) letters.emplace_back(1, static_cast<char>(c));
  for (const char *word : {"\xC4\xA0", "\xC4\x8A", "th", "the", "\xC4\xA0t"}) letters.emplace_back(word);
  const std::vector<std::string> merges = {"t h", "th e", "\xC4\xA0 t"};
  v.string("tokenizer.ggml.model", "gpt2");
  v.string("tokenizer.ggml.pre", "llama-bpe");
  v.strings("tokenizer.ggml.tokens", letters);
  v.strings("tokenizer.ggml.merges", merges);
  (void)v.begin();
  return {small.str(), tokenizer.str()};
}

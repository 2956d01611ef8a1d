#include "tests/core/lifecycle/tiny_tokenizer.hpp"

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/model_file/gguf.hpp"

namespace sluice::test {
namespace {

// source: the GGUF v3 layout; value types 4 u32, 5 i32, 6 f32, 7 bool, 8 string, 9 array.
class Writer {
 public:
  template <class T> void raw(T value) {
    const auto *p = reinterpret_cast<const char *>(&value);
    bytes_.append(p, sizeof value);
  }
  void string(const std::string &s) {
    raw<uint64_t>(s.size());
    bytes_ += s;
  }
  void key(const std::string &name, uint32_t type) {
    string(name);
    raw(type);
  }
  const std::string &bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

std::string model_bytes() {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"};
  std::vector<int32_t> kinds{2, 3, 3};
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    tokens.emplace_back(name);
    kinds.push_back(6);
  }
  for (const char *word : {"hello", "\xe2\x96\x81world"}) {
    tokens.emplace_back(word);
    kinds.push_back(1);
  }
  Writer w;
  w.raw<uint32_t>(0x46554747);
  w.raw<uint32_t>(3);
  w.raw<uint64_t>(0);
  w.raw<uint64_t>(9);
  w.key("general.architecture", 8);
  w.string("llama");
  w.key("tokenizer.ggml.model", 8);
  w.string("llama");
  w.key("tokenizer.ggml.tokens", 9);
  w.raw<uint32_t>(8);
  w.raw<uint64_t>(tokens.size());
  for (const auto &token : tokens) w.string(token);
  w.key("tokenizer.ggml.scores", 9);
  w.raw<uint32_t>(6);
  w.raw<uint64_t>(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) w.raw<float>(0);
  w.key("tokenizer.ggml.token_type", 9);
  w.raw<uint32_t>(5);
  w.raw<uint64_t>(kinds.size());
  for (const int32_t kind : kinds) w.raw(kind);
  w.key("tokenizer.ggml.bos_token_id", 4);
  w.raw<uint32_t>(1);
  w.key("tokenizer.ggml.eos_token_id", 4);
  w.raw<uint32_t>(kEos);
  w.key("tokenizer.ggml.add_bos_token", 7);
  w.raw<uint8_t>(0);
  w.key("tokenizer.ggml.add_space_prefix", 7);
  w.raw<uint8_t>(0);
  std::string out = w.bytes();
  out.resize((out.size() + 31) / 32 * 32);
  return out;
}

}  // namespace

std::shared_ptr<const text::Tokenizer> tiny_tokenizer() {
  static const std::shared_ptr<const text::Tokenizer> tokenizer = [] {
    static const std::string bytes = model_bytes();
    auto file = model_file::Gguf::parse(std::as_bytes(std::span(bytes)), "tiny");
    if (!file) throw std::runtime_error(file.error().message);
    auto made = text::Tokenizer::from_gguf(*file);
    if (!made) throw std::runtime_error(made.error().message);
    return std::shared_ptr<const text::Tokenizer>(std::move(*made));
  }();
  return tokenizer;
}

}  // namespace sluice::test

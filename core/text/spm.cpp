// SentencePiece's BPE as GGUF's "llama" model: start from characters, join the neighbours whose joined text is the
// token of the highest score, spell what is no token in byte tokens.
#include "core/text/text_encoder.hpp"
#include "core/text/utf8.hpp"

#include <fmt/format.h>
#include <bit>
#include <cmath>

namespace sluice::text {
namespace {


/// Orders as the score does, descending: the highest score has the smallest key. Never Merge::kNever.
uint32_t descending_key(float score) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);  // + 0: both zeros are one
  const uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return ~ascending;
}

class SpmEncoder final : public TextEncoder {
 public:
  SpmEncoder(const Vocabulary &vocabulary, std::vector<uint32_t> keys, int32_t unknown, bool space_first)
      : vocabulary_(vocabulary), keys_(std::move(keys)), unknown_(unknown), space_first_(space_first) {}

  Result<> encode(std::string_view text, EncodeScratch &scratch, std::vector<int32_t> &out) const override {
    normalize(text, scratch.normalized);
    const std::string_view whole = scratch.normalized;
    auto &symbols = scratch.queue.symbols;
    symbols.clear();
    for (size_t at = 0; at < whole.size();) {
      const size_t size = utf8_bytes_of(whole[at]);
      scratch.queue.append(static_cast<uint32_t>(at), static_cast<uint32_t>(size),
                           vocabulary_.find(whole.substr(at, size)));
      at += size;
    }
    scratch.queue.run([&](const Symbol &left, const Symbol &right) {
      const int32_t token = vocabulary_.find(whole.substr(left.begin, left.size + right.size));
      return token == kNoToken ? Merge() : Merge{keys_[static_cast<size_t>(token)], token};
    });
    for (uint32_t i = 0; i != Symbol::kEnd; i = symbols[i].next) {
      const Symbol &symbol = symbols[i];
      if (symbol.token != kNoToken)
        out.push_back(symbol.token);
      else if (auto r = spell(whole.substr(symbol.begin, symbol.size), out); !r)
        return r;
    }
    return {};
  }

 private:
  void normalize(std::string_view text, std::string &out) const {
    out.clear();
    if (space_first_) out += kSpaceMark;
    for (size_t at; (at = text.find(' ')) != std::string_view::npos; text.remove_prefix(at + 1)) {
      out += text.substr(0, at);
      out += kSpaceMark;
    }
    out += text;
  }

  Result<> spell(std::string_view character, std::vector<int32_t> &out) const {
    for (const char c : character) {
      const auto byte = static_cast<unsigned char>(c);
      const int32_t token = vocabulary_.byte_token(byte) != kNoToken ? vocabulary_.byte_token(byte) : unknown_;
      if (token == kNoToken)
        return invalid_argument(
            fmt::format("the model's vocabulary has no token for byte 0x{:02X} and none for unknown text", byte));
      out.push_back(token);
    }
    return {};
  }

  const Vocabulary &vocabulary_;
  std::vector<uint32_t> keys_;  // per token
  int32_t unknown_;
  bool space_first_;
};

}  // namespace

Result<std::unique_ptr<TextEncoder>> make_spm_encoder(const model_file::Gguf &file, const Vocabulary &vocabulary) {
  constexpr std::string_view kScores = "tokenizer.ggml.scores";
  auto scores = file.floats(kScores);
  if (!scores) return scores.error();
  if (scores->size() != vocabulary.size())
    return invalid_argument(
        fmt::format("{}: {} has {} entries for {} tokens", file.name(), kScores, scores->size(), vocabulary.size()));
  std::vector<uint32_t> keys;
  keys.reserve(scores->size());
  for (const float score : *scores) {
    if (!std::isfinite(score))
      return invalid_argument(fmt::format("{}: {}[{}] is not a finite number", file.name(), kScores, keys.size()));
    keys.push_back(descending_key(score));
  }
  auto space_first = file.boolean_or("tokenizer.ggml.add_space_prefix", true);
  if (!space_first) return space_first.error();
  int32_t unknown = kNoToken;
  for (int32_t id = 0; vocabulary.contains(id) && unknown == kNoToken; ++id)
    if (vocabulary.kind(id) == TokenKind::kUnknown) unknown = id;
  return std::unique_ptr<TextEncoder>(new SpmEncoder(vocabulary, std::move(keys), unknown, *space_first));
}

}  // namespace sluice::text

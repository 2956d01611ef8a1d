#include "core/text/vocabulary.hpp"

#include "core/model_file/byte_level.hpp"
#include "core/text/utf8.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <bit>
#include <charconv>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace sluice::text {
namespace {

constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";

uint64_t hash_of(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

std::string replace_space_marks(std::string_view text) {
  std::string out;
  for (size_t at; (at = text.find(kSpaceMark)) != std::string_view::npos; text.remove_prefix(at + kSpaceMark.size())) {
    out += text.substr(0, at);
    out += ' ';
  }
  out += text;
  return out;
}

/// "<0x0A>" and nothing else.
Result<std::string> decode_byte_token(std::string_view text) {
  unsigned byte = 0;
  const bool framed = text.size() == 6 && text.substr(0, 3) == "<0x" && text[5] == '>';
  if (framed) {
    const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
    if (error == std::errc() && end == text.data() + 5) return std::string(1, static_cast<char>(byte));
  }
  return invalid_argument(
      fmt::format("'{}' is marked as a byte token but is not <0x00>..<0xFF>", model_file::printable(text)));
}

constexpr size_t kAlphabetEnd = 0x144;

/// From a character of the byte-level alphabet to its byte; -1: not of the alphabet.
constexpr std::array<int16_t, kAlphabetEnd> byte_of_code_point() {
  std::array<int16_t, kAlphabetEnd> out{};
  out.fill(-1);
  const auto code_points = model_file::byte_level_code_points();
  for (int byte = 0; byte < 256; ++byte) out[code_points[static_cast<size_t>(byte)]] = static_cast<int16_t>(byte);
  return out;
}

}  // namespace

std::string decode_byte_level(std::string_view text) {
  static constexpr auto kBytes = byte_of_code_point();
  std::string out;
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    const bool known =
        step.status == Utf8Status::kValid && step.character < kAlphabetEnd && kBytes[step.character] >= 0;
    if (known)
      out += static_cast<char>(kBytes[step.character]);
    else
      out += text.substr(0, step.bytes);
    text.remove_prefix(step.bytes);
  }
  return out;
}

Result<Vocabulary> Vocabulary::read(const model_file::Gguf &file, Spelling spelling) {
  Vocabulary v;
  v.spelling_ = spelling;
  v.byte_tokens_.fill(kNoToken);
  if (const auto *raw = file.find(kTokensKey); raw != nullptr && raw->count > kMaxTokens)
    return invalid_argument(fmt::format("{}: {} tokens; the limit is {}", file.name(), raw->count, kMaxTokens));
  auto tokens = file.strings(kTokensKey);
  if (!tokens) return tokens.error();
  if (tokens->empty()) return invalid_argument(fmt::format("{}: {} is empty", file.name(), kTokensKey));
  if (auto r = v.read_kinds(file, tokens->size()); !r) return r.error();
  for (const std::string_view text : *tokens)
    if (auto r = v.add_token(text, file.name()); !r) return r.error();
  v.index_keys();
  return v;
}

Result<> Vocabulary::read_kinds(const model_file::Gguf &file, size_t n_tokens) {
  constexpr std::string_view kKey = "tokenizer.ggml.token_type";
  kinds_.assign(n_tokens, TokenKind::kNormal);
  if (!file.has(kKey)) return {};
  auto kinds = file.ints(kKey);
  if (!kinds) return kinds.error();
  if (kinds->size() != n_tokens)
    return invalid_argument(
        fmt::format("{}: {} has {} entries for {} tokens", file.name(), kKey, kinds->size(), n_tokens));
  for (size_t i = 0; i < n_tokens; ++i) {
    const int32_t kind = (*kinds)[i];
    if (kind < 0 || kind > 6)
      return invalid_argument(fmt::format("{}: {}[{}] is {}; it must be 0..6", file.name(), kKey, i, kind));
    if (kind != 0) kinds_[i] = static_cast<TokenKind>(kind);  // 0: not said
  }
  return {};
}

Result<> Vocabulary::add_token(std::string_view text, const std::string &file_name) {
  const auto id = static_cast<int32_t>(texts_.ends.size());
  if (text.size() > kMaxTokenBytes)
    return invalid_argument(
        fmt::format("{}: token {} has {} bytes; the limit is {}", file_name, id, text.size(), kMaxTokenBytes));
  auto piece = decode(text, kind(id));
  if (!piece) return invalid_argument(fmt::format("{}: token {}: {}", file_name, id, piece.error().message));
  texts_.add(text);
  pieces_.add(*piece);
  whole_.push_back(is_utf8(*piece) ? 1 : 0);
  const bool is_byte = spelling_ == Spelling::kSentencePiece ? kind(id) == TokenKind::kByte
                                                             : kind(id) == TokenKind::kNormal && piece->size() == 1;
  if (is_byte) {
    int32_t &slot = byte_tokens_[static_cast<unsigned char>((*piece)[0])];
    if (slot == kNoToken) slot = id;
  }
  return {};
}

Result<std::string> Vocabulary::decode(std::string_view text, TokenKind kind) const {
  switch (kind) {
    case TokenKind::kControl:
      return std::string();
    case TokenKind::kUnknown:
      return std::string(kReplacementCharacter);
    case TokenKind::kByte:
      return decode_byte_token(text);
    case TokenKind::kUserDefined:
      if (spelling_ == Spelling::kByteLevel) return std::string(text);  // added words are spelled plainly
      break;
    case TokenKind::kNormal:
    case TokenKind::kUnused:
      break;
  }
  return spelling_ == Spelling::kSentencePiece ? replace_space_marks(text) : decode_byte_level(text);
}

bool Vocabulary::is_searchable(int32_t id) const {
  const TokenKind k = kind(id);
  return (k == TokenKind::kNormal || k == TokenKind::kUserDefined || k == TokenKind::kUnused) && !key(id).empty();
}

void Vocabulary::index_keys() {
  slots_.assign(std::bit_ceil(2 * size() + 1), kNoToken);
  const size_t mask = slots_.size() - 1;
  for (int32_t id = 0; contains(id); ++id) {
    if (!is_searchable(id)) continue;
    longest_key_bytes_ = std::max(longest_key_bytes_, key(id).size());
    size_t at = hash_of(key(id)) & mask;
    while (slots_[at] != kNoToken && key(slots_[at]) != key(id)) at = (at + 1) & mask;
    if (slots_[at] == kNoToken) slots_[at] = id;  // of two equal tokens the first
  }
}

int32_t Vocabulary::find(std::string_view wanted) const {
  if (wanted.size() > longest_key_bytes_) return kNoToken;
  const size_t mask = slots_.size() - 1;
  for (size_t at = hash_of(wanted) & mask; slots_[at] != kNoToken; at = (at + 1) & mask)
    if (key(slots_[at]) == wanted) return slots_[at];
  return kNoToken;
}

}  // namespace sluice::text

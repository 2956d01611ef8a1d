#include "core/text/tokenizer.hpp"

#include "core/text/text_encoder.hpp"
#include "core/text/utf8.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <array>

namespace sluice::text {
namespace {

/// What models call the token that ends a turn, a message or a text. Only tokens marked as special count.
constexpr std::array<std::string_view, 14> kEndTexts = {
    "</s>",    "<|endoftext|>",         "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>",
    "<|end|>", "<end_of_turn>",         "<|end_of_turn|>", "<|return|>", "<|eot|>",    "<EOT>",
    "_<EOT>",  "<｜end▁of▁sentence｜>",
};

Result<int32_t> read_id(const model_file::Gguf &file, std::string_view key, const Vocabulary &vocabulary) {
  if (!file.has(key)) return kNoToken;
  auto id = file.u32(key);
  if (!id) return id.error();
  if (!vocabulary.contains(*id))
    return invalid_argument(
        fmt::format("{}: {} is {}; the vocabulary has {} tokens", file.name(), key, *id, vocabulary.size()));
  return static_cast<int32_t>(*id);
}

std::string lower_ascii(std::string_view text) {
  std::string out(text);
  for (char &c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

size_t leading_white_space(std::string_view text) {
  return std::min(text.find_first_not_of(" \t\n\r\v\f"), text.size());
}

}  // namespace

Tokenizer::Tokenizer(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_gguf(const model_file::Gguf &file) {
  auto model = file.string("tokenizer.ggml.model");
  if (!model) return model.error();
  if (*model != "llama" && *model != "gpt2")
    return Error{Code::kUnsupported,
                 fmt::format("{}: tokenizer.ggml.model is '{}'; 'llama' and 'gpt2' are supported", file.name(),
                             model_file::printable(*model)),
                 {}};
  const bool sentence_piece = *model == "llama";
  auto vocabulary = Vocabulary::read(file, sentence_piece ? Spelling::kSentencePiece : Spelling::kByteLevel);
  if (!vocabulary) return vocabulary.error();
  std::unique_ptr<Tokenizer> out(new Tokenizer(std::move(*vocabulary)));
  auto special = SpecialTokens::build(out->vocabulary_);
  if (!special) return invalid_argument(fmt::format("{}: {}", file.name(), special.error().message));
  out->special_ = std::move(*special);
  auto encoder = sentence_piece ? make_spm_encoder(file, out->vocabulary_) : make_bpe_encoder(file, out->vocabulary_);
  if (!encoder) return encoder.error();
  out->encoder_ = std::move(*encoder);
  if (auto r = out->read_special_ids(file, *model); !r) return r.error();
  return out;
}

Result<> Tokenizer::read_special_ids(const model_file::Gguf &file, std::string_view model) {
  const auto read = [&](std::string_view key, int32_t &id) -> Result<> {
    auto found = read_id(file, key, vocabulary_);
    if (!found) return found.error();
    id = *found;
    return {};
  };
  if (auto r = read("tokenizer.ggml.bos_token_id", bos_); !r) return r;
  if (auto r = read("tokenizer.ggml.eos_token_id", eos_); !r) return r;
  if (eos_ != kNoToken) end_tokens_.push_back(eos_);
  for (const std::string_view key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    int32_t id = kNoToken;
    if (auto r = read(key, id); !r) return r;
    if (id != kNoToken) end_tokens_.push_back(id);
  }
  for (const std::string_view text : kEndTexts) {
    const auto match = special_.find(text, 0, true);
    if (match.size == text.size() && vocabulary_.kind(match.token) != TokenKind::kUnknown)
      end_tokens_.push_back(match.token);
  }
  std::sort(end_tokens_.begin(), end_tokens_.end());
  end_tokens_.erase(std::unique(end_tokens_.begin(), end_tokens_.end()), end_tokens_.end());

  bool adds_bos = model == "llama";
  if (auto pre = file.string_or("tokenizer.ggml.pre", ""); model == "gpt2" && pre)
    if (auto kind = find_pre_kind(*pre)) adds_bos = kind->adds_bos;
  auto says_bos = file.boolean_or("tokenizer.ggml.add_bos_token", adds_bos);
  if (!says_bos) return says_bos.error();
  adds_bos_ = *says_bos && bos_ != kNoToken;
  if (model == "llama") {
    auto space = file.boolean_or("tokenizer.ggml.add_space_prefix", true);
    if (!space) return space.error();
    adds_space_prefix_ = *space;
  }
  auto name = file.string_or("general.name", "");
  if (!name) return name.error();
  const std::string lower = lower_ascii(*name);
  strips_after_special_ = lower.find("phi-3") != std::string::npos || lower.find("phi3") != std::string::npos;
  return {};
}

bool Tokenizer::is_end(int32_t id) const { return std::binary_search(end_tokens_.begin(), end_tokens_.end(), id); }

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  if (text.size() > kMaxTextBytes)
    return invalid_argument(fmt::format("the text has {} bytes; the limit is {}", text.size(), kMaxTextBytes));
  std::vector<int32_t> out;
  out.reserve(text.size() / 3 + 2);
  if (options.add_bos && bos_ != kNoToken) out.push_back(bos_);
  std::string repaired;
  if (!is_utf8(text)) text = repaired = repair_utf8(text);
  if (auto r = encode_stretches(text, options.parse_special, out); !r) return r.error();
  return out;
}

Result<> Tokenizer::encode_stretches(std::string_view text, bool parse_special, std::vector<int32_t> &out) const {
  EncodeScratch scratch;
  for (size_t at = 0; at < text.size();) {
    const auto special = special_.find(text, at, parse_special);
    const size_t end = special.token == kNoToken ? text.size() : special.begin;
    if (end > at)
      if (auto r = encoder_->encode(text.substr(at, end - at), scratch, out); !r) return r;
    if (special.token == kNoToken) break;
    out.push_back(special.token);
    at = special.begin + special.size;
    if (strips_after_special_ && special.token != bos_) at += leading_white_space(text.substr(at));
  }
  return {};
}

}  // namespace sluice::text

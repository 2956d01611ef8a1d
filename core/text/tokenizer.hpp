#pragma once
#include "core/base/error.hpp"
#include "core/text/special_tokens.hpp"
#include "core/text/vocabulary.hpp"

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace sluice::text {

class TextEncoder;

struct EncodeOptions {
  bool add_bos = false;        ///< put bos() first; adds_bos() says what the model wants
  bool parse_special = false;  ///< a control token written in the text becomes that token, as a chat template needs it
};

/// Text to token ids and back, as the model's own tokenizer does it. Immutable. [any]
///
/// From metadata `tokenizer.ggml.model`: "llama" (SentencePiece's BPE) or "gpt2" (byte-level BPE).
/// Every id in [0, vocab_size) may be passed to the functions that take one.
class Tokenizer {
 public:
  static constexpr size_t kMaxTextBytes = 256u << 20;

  /// errors  kUnsupported (another model, an unknown pretokenizer), kInvalidArgument, kNotFound (metadata)
  static Result<std::unique_ptr<Tokenizer>> from_gguf(const model_file::Gguf &file);
  ~Tokenizer();

  /// Takes n log n steps whatever the text. Invalid UTF-8 counts as U+FFFD.
  /// errors  kInvalidArgument (too long; a byte the vocabulary cannot spell), kResourceExhausted
  Result<std::vector<int32_t>> encode(std::string_view text, EncodeOptions options = {}) const;

  size_t vocab_size() const { return vocabulary_.size(); }
  bool contains(int64_t id) const { return vocabulary_.contains(id); }

  /// The bytes a token stands for; maybe half a character. Empty for control tokens.
  std::string_view piece(int32_t id) const { return vocabulary_.piece(id); }
  /// The piece consists of whole characters.
  bool is_whole(int32_t id) const { return vocabulary_.is_whole(id); }
  /// The token as the vocabulary spells it: "<|im_end|>", "Ġthe".
  std::string_view token_text(int32_t id) const { return vocabulary_.text(id); }
  bool is_control(int32_t id) const { return vocabulary_.kind(id) == TokenKind::kControl; }

  int32_t bos() const { return bos_; }  ///< kNoToken: none
  int32_t eos() const { return eos_; }  ///< kNoToken: none
  bool adds_bos() const { return adds_bos_; }
  /// A text's first token carries a space that is not in the text.
  bool adds_space_prefix() const { return adds_space_prefix_; }

  /// Tokens that end a generation, ascending: end of sequence, turn, message.
  const std::vector<int32_t> &end_tokens() const { return end_tokens_; }
  bool is_end(int32_t id) const;

 private:
  explicit Tokenizer(Vocabulary vocabulary);
  Tokenizer(const Tokenizer &) = delete;
  Tokenizer &operator=(const Tokenizer &) = delete;
  Result<> read_special_ids(const model_file::Gguf &file, std::string_view model);
  Result<> encode_stretches(std::string_view text, bool parse_special, std::vector<int32_t> &out) const;

  Vocabulary vocabulary_;
  SpecialTokens special_;
  std::unique_ptr<TextEncoder> encoder_;
  int32_t bos_ = kNoToken;
  int32_t eos_ = kNoToken;
  bool adds_bos_ = false;
  bool adds_space_prefix_ = false;
  bool strips_after_special_ = false;  // Phi-3: white space behind a special token belongs to it
  std::vector<int32_t> end_tokens_;
};

}  // namespace sluice::text

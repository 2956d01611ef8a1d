#pragma once
#include "core/base/error.hpp"
#include "core/text/merge_queue.hpp"
#include "core/text/pretokenize.hpp"
#include "core/text/vocabulary.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::text {

/// What one encode() call needs to remember between the stretches of its text.
struct EncodeScratch {
  MergeQueue queue;
  std::string normalized;
  std::vector<std::string_view> words;
  Pretokenizer::Scratch split;
};

/// Turns a stretch of text without special tokens into ids. Immutable. [any]
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  /// Appends to out. text is valid UTF-8 of less than 2^30 bytes.
  /// errors  kInvalidArgument    the vocabulary has no token for a byte
  ///         kResourceExhausted  the pretokenizer's patterns gave up
  virtual Result<> encode(std::string_view text, EncodeScratch &scratch, std::vector<int32_t> &out) const = 0;
};

/// "llama": SentencePiece's BPE, by scores, with byte tokens for what has no token. vocabulary outlives the result.
Result<std::unique_ptr<TextEncoder>> make_spm_encoder(const model_file::Gguf &file, const Vocabulary &vocabulary);

/// "gpt2": byte-level BPE, by merge ranks, after splitting into words. vocabulary outlives the result.
Result<std::unique_ptr<TextEncoder>> make_bpe_encoder(const model_file::Gguf &file, const Vocabulary &vocabulary);

}  // namespace sluice::text

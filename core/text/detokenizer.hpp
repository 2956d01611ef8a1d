#pragma once
#include "core/text/tokenizer.hpp"

#include <cstdint>
#include <string>

namespace sluice::text {

/// What the first token's leading space means to the one who reads the text.
enum class FirstSpace {
  kKeep,   ///< a continuation: the space separates it from the prompt
  kStrip,  ///< a text of its own: the space is the tokenizer's, when it adds one
};

/// Tokens to text, as they come. Whatever the tokens, the text is valid UTF-8: a character whose bytes are spread over
/// tokens is held back until it is whole, and bytes that are no character become U+FFFD.
/// Always: what was held back is less than one character. [any], one thread at a time
class Detokenizer {
 public:
  /// tokenizer  outlives the detokenizer
  explicit Detokenizer(const Tokenizer &tokenizer, FirstSpace first = FirstSpace::kKeep)
      : tokenizer_(tokenizer), strip_space_(first == FirstSpace::kStrip && tokenizer.adds_space_prefix()) {}

  /// Appends the whole characters that token completes. token is in the vocabulary.
  void push(int32_t token, std::string &out) {
    const std::string_view piece = tokenizer_.piece(token);
    if (held_.empty() && !strip_space_ && tokenizer_.is_whole(token)) [[likely]]
      out.append(piece);
    else
      push_slowly(piece, out);
  }

  /// Ends the text: appends U+FFFD when a character was left unfinished.
  void flush(std::string &out);

 private:
  void push_slowly(std::string_view piece, std::string &out);

  const Tokenizer &tokenizer_;
  bool strip_space_;
  std::string held_;  // the bytes of an unfinished character
};

}  // namespace sluice::text

#pragma once
#include <memory>

#include "core/text/tokenizer.hpp"

namespace sluice::test {

/// One token per byte: the byte b is token kFirstByte + b. No BOS, no added space.
inline constexpr int32_t kEos = 2, kFirstByte = 3;
inline constexpr int32_t byte_token(char c) { return kFirstByte + static_cast<unsigned char>(c); }
/// Two whole words, for tokens of more than one character.
inline constexpr int32_t kHello = kFirstByte + 256, kWorld = kHello + 1;  // "hello", " world"
inline constexpr int32_t kVocabSize = kWorld + 1;

std::shared_ptr<const text::Tokenizer> tiny_tokenizer();

}  // namespace sluice::test

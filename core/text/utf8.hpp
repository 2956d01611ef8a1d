#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace sluice::text {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";             // U+2581, a space in SentencePiece's pieces

enum class Utf8Status {
  kValid,       ///< one character of `bytes` bytes
  kInvalid,     ///< `bytes` bytes that begin no character: one U+FFFD stands for them
  kIncomplete,  ///< the text ends inside a character that more bytes could complete
};

struct Utf8Step {
  Utf8Status status;
  size_t bytes;        ///< at least 1
  char32_t character;  ///< when kValid
};

/// Reads the first character of text, which is not empty. Wrong bytes are grouped into maximal subparts, as browsers
/// and Python do. [any]
/// source  Unicode 15, 3.9, table 3-7 and "U+FFFD Substitution of Maximal Subparts"
Utf8Step utf8_step(std::string_view text);

/// Bytes of the character that a lead byte of valid UTF-8 begins.
inline size_t utf8_bytes_of(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

bool is_utf8(std::string_view text);

/// The text with every invalid or incomplete part as U+FFFD.
std::string repair_utf8(std::string_view text);

void append_utf8(std::string &to, char32_t character);

}  // namespace sluice::text

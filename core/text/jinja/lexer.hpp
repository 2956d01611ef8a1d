#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::text::jinja {

struct Token {
  enum class Type {
    kText,
    kOutputBegin,
    kOutputEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Type type = Type::kEnd;
  std::string text;   ///< the text, name, operator; a string's value, escapes resolved
  uint32_t line = 1;  ///< 1-based
};

/// Splits a template, with white space treated as chat templates expect it: trim_blocks and lstrip_blocks on, one
/// trailing newline dropped. The last token is kEnd. Throws Failure. [any]
std::vector<Token> tokenize(std::string_view source);

}  // namespace sluice::text::jinja

#include "core/text/jinja/lexer.hpp"

#include "core/text/jinja/value.hpp"
#include "core/text/utf8.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <array>
#include <charconv>

namespace sluice::text::jinja {
namespace {

constexpr std::string_view kSpaces = " \t\n\r\v\f";

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_part(char c) { return is_name_start(c) || is_digit(c); }

std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

/// Reads front to back. Always: at_ <= source_.size().
class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text_and_tag();
    add(Token::Type::kEnd, "");
    return std::move(tokens_);
  }

 private:
  using Type = Token::Type;

  [[noreturn]] void wrong(std::string_view what) const { fail(fmt::format("line {}: {}", line_, what)); }
  void add(Type type, std::string text) { tokens_.push_back({type, std::move(text), line_}); }
  bool looking_at(std::string_view text) const { return source_.substr(at_).starts_with(text); }

  void advance(size_t n) {
    line_ += static_cast<uint32_t>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                              source_.begin() + static_cast<std::ptrdiff_t>(at_ + n), '\n'));
    at_ += n;
  }

  void skip_spaces() { advance(std::min(source_.find_first_not_of(kSpaces, at_), source_.size()) - at_); }

  /// The next "{{", "{%" or "{#".
  size_t find_tag() const {
    for (size_t at = source_.find('{', at_); at != std::string_view::npos; at = source_.find('{', at + 1))
      if (at + 1 < source_.size() && (source_[at + 1] == '{' || source_[at + 1] == '%' || source_[at + 1] == '#'))
        return at;
    return std::string_view::npos;
  }

  void text_and_tag() {
    const size_t tag = find_tag();
    std::string_view text = source_.substr(at_, tag == std::string_view::npos ? tag : tag - at_);
    if (tag == std::string_view::npos) {
      if (!text.empty()) add(Type::kText, std::string(text));
      advance(text.size());
      return;
    }
    const size_t length = text.size();
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const bool is_output = source_[tag + 1] == '{';
    if (sign == '-')
      text = text.substr(0, text.find_last_not_of(kSpaces) + 1);
    else if (!is_output && sign != '+')
      text = without_indent(text);
    if (!text.empty()) add(Type::kText, std::string(text));
    advance(length + 2);
    if (sign == '-' || sign == '+') advance(1);
    if (source_[tag + 1] == '#')
      comment();
    else if (is_output)
      expression_tokens(Type::kOutputBegin, Type::kOutputEnd, "}}");
    else if (!raw_block())
      expression_tokens(Type::kBlockBegin, Type::kBlockEnd, "%}");
  }

  /// lstrip_blocks: the white space between the start of the line and the tag, when there is nothing else.
  std::string_view without_indent(std::string_view text) const {
    const size_t line_begin = text.rfind('\n') + 1;
    if (line_begin == 0 && !at_line_start_) return text;
    return text.find_first_not_of(kSpaces, line_begin) == std::string_view::npos ? text.substr(0, line_begin) : text;
  }

  /// Behind a tag: "-" drops white space, trim_blocks one newline.
  void after_tag(bool strip, bool trim) {
    const size_t begin = at_;
    if (strip)
      skip_spaces();
    else if (trim && looking_at("\n"))
      advance(1);
    at_line_start_ = at_ > begin && source_[at_ - 1] == '\n';
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string_view::npos) wrong("a comment is not closed");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    advance(end + 2 - at_);
    after_tag(sign == '-', sign != '+');
  }

  /// {% raw %} ... {% endraw %}: true when there was one.
  bool raw_block() {
    const size_t name = source_.find_first_not_of(kSpaces, at_);
    if (name == std::string_view::npos || source_.substr(name, 3) != "raw") return false;
    const size_t close = source_.find_first_not_of(kSpaces, name + 3);
    if (close == std::string_view::npos || (source_.substr(close, 2) != "%}" && source_.substr(close, 3) != "-%}"))
      return false;
    advance(close - at_);
    close_tag("%}");
    const size_t begin = at_;
    for (size_t tag = source_.find("{%", at_); tag != std::string_view::npos; tag = source_.find("{%", tag + 2)) {
      size_t word = tag + 2;
      const bool strip = source_.substr(word, 1) == "-";
      word = source_.find_first_not_of(kSpaces, word + (strip ? 1 : 0));
      if (word == std::string_view::npos || source_.substr(word, 6) != "endraw") continue;
      std::string_view text = source_.substr(begin, tag - begin);
      if (strip) text = text.substr(0, text.find_last_not_of(kSpaces) + 1);
      if (!text.empty()) add(Type::kText, std::string(text));
      advance(word + 6 - at_);
      skip_spaces();
      if (!looking_at("%}") && !looking_at("-%}")) wrong("'endraw' is not closed");
      close_tag("%}");
      return true;
    }
    wrong("'raw' has no 'endraw'");
  }

  /// At "%}", "-%}", "+%}" or their like for outputs.
  void close_tag(std::string_view close) {
    const char sign = source_[at_];
    advance(close.size() + (sign == '-' || sign == '+' ? 1 : 0));
    after_tag(sign == '-', sign != '+' && close == "%}");
  }

  void expression_tokens(Type begin, Type end, std::string_view close) {
    add(begin, "");
    size_t brackets = 0;  // inside them "}}" closes two dicts, not the tag
    while (true) {
      skip_spaces();
      if (at_ == source_.size()) wrong(fmt::format("'{}' is missing", close));
      const bool signed_close = (source_[at_] == '-' || source_[at_] == '+') && source_.substr(at_ + 1, 2) == close;
      if (brackets == 0 && (looking_at(close) || signed_close)) {
        add(end, "");
        close_tag(close);
        return;
      }
      one_token(brackets);
    }
  }

  void one_token(size_t &brackets) {
    const char c = source_[at_];
    if (c == '\'' || c == '"') return string_literal(c);
    if (is_digit(c)) return number_literal();
    if (is_name_start(c)) {
      size_t end = at_;
      while (end < source_.size() && is_name_part(source_[end])) ++end;
      add(Type::kName, std::string(source_.substr(at_, end - at_)));
      return advance(end - at_);
    }
    static constexpr std::array<std::string_view, 27> kOperators = {"**", "//", "==", "!=", "<=", ">=", "+", "-", "*",
                                                                    "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                                                    "]",  "{",  "}",  ",",  ":",  ".",  "|", ";", "!"};
    for (const std::string_view candidate : kOperators) {
      if (!looking_at(candidate)) continue;
      if (candidate == "(" || candidate == "[" || candidate == "{") ++brackets;
      if ((candidate == ")" || candidate == "]" || candidate == "}") && brackets > 0) --brackets;
      add(Type::kOperator, std::string(candidate));
      return advance(candidate.size());
    }
    wrong(fmt::format("'{}' has no meaning here",
                      c >= 0x20 && c < 0x7f ? std::string(1, c) : fmt::format("\\x{:02x}", c & 0xff)));
  }

  void number_literal() {
    size_t end = at_;
    const auto digits = [&] {
      while (end < source_.size() && (is_digit(source_[end]) || source_[end] == '_')) ++end;
    };
    digits();
    Type type = Type::kInteger;
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
      type = Type::kFloat;
      ++end;
      digits();
    }
    if (end + 1 < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const size_t exponent = end + 1 + (source_[end + 1] == '-' || source_[end + 1] == '+' ? 1 : 0);
      if (exponent < source_.size() && is_digit(source_[exponent])) {
        type = Type::kFloat;
        end = exponent;
        digits();
      }
    }
    std::string text(source_.substr(at_, end - at_));
    std::erase(text, '_');
    add(type, std::move(text));
    advance(end - at_);
  }

  void string_literal(char quote) {
    std::string value;
    size_t at = at_ + 1;
    for (; at < source_.size() && source_[at] != quote; ++at) {
      if (source_[at] != '\\' || at + 1 == source_.size())
        value += source_[at];
      else
        escape(++at, value);
    }
    if (at >= source_.size()) wrong("a string is not closed");
    add(Type::kString, std::move(value));
    advance(at + 1 - at_);
  }

  /// at is behind the backslash, and left on the last character of the escape.
  void escape(size_t &at, std::string &out) const {
    static constexpr std::string_view kFrom = "ntrbfva0\\'\"", kTo{"\n\t\r\b\f\v\a\0\\'\"", 11};
    const char c = source_[at];
    const size_t length = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (length > 0) {
      uint32_t code_point = 0;
      const std::string_view digits = source_.substr(at + 1, length);
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code_point, 16);
      if (error != std::errc() || end != digits.data() + length || code_point > 0x10ffff ||
          (code_point >= 0xd800 && code_point < 0xe000))
        wrong(fmt::format("'\\{}' needs {} hexadecimal digits of a character", c, length));
      append_utf8(out, code_point);
      at += length;
    } else if (const size_t known = kFrom.find(c); known != std::string_view::npos) {
      out += kTo[known];
    } else if (c != '\n') {  // a backslash at the end of a line joins it with the next
      out += '\\';
      out += c;
    }
  }

  std::string_view source_;
  size_t at_ = 0;
  uint32_t line_ = 1;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  const std::string normalized = normalize_newlines(source);
  return Lexer(normalized).run();
}

}  // namespace sluice::text::jinja

#include "core/text/jinja/strings.hpp"

#include "core/text/utf8.hpp"

#include <algorithm>

namespace sluice::text::jinja {
namespace {

/// str.isspace() of Python.
bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

std::string_view first_character(std::string_view text) { return text.substr(0, utf8_step(text).bytes); }

std::string_view last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && is_continuation(text[at])) --at;
  return text.substr(at);
}

bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
char to_lower(char c) { return is_upper(c) ? static_cast<char>(c + 32) : c; }
char to_upper(char c) { return is_lower(c) ? static_cast<char>(c - 32) : c; }

std::vector<std::string_view> split_at_spaces(std::string_view text, uint64_t most) {
  std::vector<std::string_view> out;
  while (true) {
    text = strip(text, Side::kLeft, std::nullopt);
    if (text.empty()) return out;
    if (out.size() == most) {
      out.push_back(text);
      return out;
    }
    size_t end = 0;
    while (end < text.size() && !is_space(utf8_step(text.substr(end)).character))
      end += utf8_step(text.substr(end)).bytes;
    out.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

}  // namespace

std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> drop) {
  const auto goes = [&](std::string_view character) {
    if (!drop) return is_space(utf8_step(character).character);
    return drop->find(character) != std::string_view::npos;
  };
  if (side != Side::kRight)
    while (!text.empty() && goes(first_character(text))) text.remove_prefix(first_character(text).size());
  if (side != Side::kLeft)
    while (!text.empty() && goes(last_character(text))) text.remove_suffix(last_character(text).size());
  return text;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, uint64_t most, bool from_right) {
  if (separator.empty()) return split_at_spaces(text, most);
  std::vector<std::string_view> out;
  if (from_right) {
    for (size_t at; out.size() < most && (at = text.rfind(separator)) != std::string_view::npos;
         text = text.substr(0, at))
      out.push_back(text.substr(at + separator.size()));
    out.push_back(text);
    std::reverse(out.begin(), out.end());
    return out;
  }
  for (size_t at; out.size() < most && (at = text.find(separator)) != std::string_view::npos;
       text.remove_prefix(at + separator.size()))
    out.push_back(text.substr(0, at));
  out.push_back(text);
  return out;
}

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation(c); }));
}

std::string_view characters_between(std::string_view text, size_t begin, size_t end) {
  const auto skip = [](std::string_view from, size_t n) {
    size_t at = 0;
    for (; n > 0 && at < from.size(); --n) at += utf8_step(from.substr(at)).bytes;
    return at;
  };
  text.remove_prefix(skip(text, begin));
  return text.substr(0, skip(text, end - begin));
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (; !text.empty(); text.remove_prefix(out.back().size())) out.push_back(first_character(text));
  return out;
}

size_t count_matches(std::string_view text, std::string_view what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + what.size())) ++count;
  return count;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to, uint64_t most) {
  std::string out;
  if (!from.empty()) {
    for (size_t at; most > 0 && (at = text.find(from)) != std::string_view::npos; --most) {
      out += text.substr(0, at);
      out += to;
      text.remove_prefix(at + from.size());
    }
  }
  out += text;
  return out;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), to_lower);
  return out;
}

std::string upper(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), to_upper);
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out = lower(text);
  if (!out.empty()) out[0] = to_upper(out[0]);
  return out;
}

std::string title(std::string_view text) {
  std::string out = lower(text);
  bool begins = true;
  for (char &c : out) {
    if (begins) c = to_upper(c);
    begins = !is_lower(c) && !is_upper(c) && static_cast<unsigned char>(c) < 0x80;
  }
  return out;
}

}  // namespace sluice::text::jinja

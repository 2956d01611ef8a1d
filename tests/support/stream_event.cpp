#include "tests/support/stream_event.hpp"

#include <charconv>
#include <cstring>

namespace sluice::support {
namespace {

class Walk {
 public:
  Walk(std::string_view json, StreamEvent &event) : p_(json.data()), end_(p_ + json.size()), event_(event) {}

  bool whole() {
    const bool ok = object([this](std::string_view key) { return top(key); });
    space();
    return ok && p_ == end_;
  }

 private:
  void space() {
    while (p_ != end_ && (*p_ == ' ' || *p_ == '\n' || *p_ == '\t' || *p_ == '\r')) ++p_;
  }
  bool take(char c) {
    space();
    if (p_ == end_ || *p_ != c) return false;
    ++p_;
    return true;
  }
  char peek() {
    space();
    return p_ == end_ ? '\0' : *p_;
  }

  // The inside of a string, escapes as they stand.
  bool raw_string(std::string_view &out) {
    if (!take('"')) return false;
    const char *begin = p_;
    while (true) {
      const auto *quote = static_cast<const char *>(std::memchr(p_, '"', static_cast<size_t>(end_ - p_)));
      if (quote == nullptr) return false;
      p_ = quote + 1;
      const char *slash = quote;
      while (slash != begin && slash[-1] == '\\') --slash;
      if ((quote - slash) % 2 != 0) continue;
      out = {begin, static_cast<size_t>(quote - begin)};
      return true;
    }
  }

  static void append_utf8(std::string &out, uint32_t c) {
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else if (c < 0x800) {
      out += static_cast<char>(0xc0 | c >> 6);
      out += static_cast<char>(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
      out += static_cast<char>(0xe0 | c >> 12);
      out += static_cast<char>(0x80 | (c >> 6 & 0x3f));
      out += static_cast<char>(0x80 | (c & 0x3f));
    } else {
      out += static_cast<char>(0xf0 | c >> 18);
      out += static_cast<char>(0x80 | (c >> 12 & 0x3f));
      out += static_cast<char>(0x80 | (c >> 6 & 0x3f));
      out += static_cast<char>(0x80 | (c & 0x3f));
    }
  }

  static bool hex4(std::string_view raw, size_t at, uint32_t &out) {
    if (at + 4 > raw.size()) return false;
    const auto [end, ec] = std::from_chars(raw.data() + at, raw.data() + at + 4, out, 16);
    return ec == std::errc() && end == raw.data() + at + 4;
  }

  bool append_string(std::string &out) {
    std::string_view raw;
    if (!raw_string(raw)) return false;
    if (raw.find('\\') == std::string_view::npos) {
      out.append(raw);
      return true;
    }
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '\\') {
        out += raw[i];
        continue;
      }
      if (++i == raw.size()) return false;
      switch (raw[i]) {
        case 'n':
          out += '\n';
          break;
        case 't':
          out += '\t';
          break;
        case 'r':
          out += '\r';
          break;
        case 'b':
          out += '\b';
          break;
        case 'f':
          out += '\f';
          break;
        case '"':
        case '\\':
        case '/':
          out += raw[i];
          break;
        case 'u': {
          uint32_t c = 0, low = 0;
          if (!hex4(raw, i + 1, c)) return false;
          i += 4;
          if (c >= 0xd800 && c < 0xdc00) {
            if (raw.substr(i + 1, 2) != "\\u" || !hex4(raw, i + 3, low) || low < 0xdc00 || low > 0xdfff) return false;
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            i += 6;
          }
          append_utf8(out, c);
          break;
        }
        default:
          return false;
      }
    }
    return true;
  }

  bool number(uint32_t &out) {
    space();
    const auto [end, ec] = std::from_chars(p_, end_, out);
    p_ = end;
    return ec == std::errc();
  }

  template <class OnKey>
  bool object(OnKey on_key) {
    if (!take('{')) return false;
    if (take('}')) return true;
    do {
      std::string_view key;
      if (!raw_string(key) || !take(':') || !on_key(key)) return false;
    } while (take(','));
    return take('}');
  }

  template <class OnItem>
  bool array(OnItem on_item) {
    if (!take('[')) return false;
    if (take(']')) return true;
    do {
      if (!on_item()) return false;
    } while (take(','));
    return take(']');
  }

  bool skip() {
    switch (peek()) {
      case '{':
        return object([this](std::string_view) { return skip(); });
      case '[':
        return array([this] { return skip(); });
      case '"': {
        std::string_view ignored;
        return raw_string(ignored);
      }
      default: {
        const char *begin = p_;
        while (p_ != end_ && *p_ != ',' && *p_ != '}' && *p_ != ']' && *p_ != ' ' && *p_ != '\n') ++p_;
        return p_ != begin;
      }
    }
  }

  bool top(std::string_view key) {
    if (key == "choices") return array([this] { return choice(); });
    if (key == "id" && peek() == '"') return append_string(event_.id);
    if (key == "error") event_.has_error = true;
    if (key == "usage" && peek() == '{') {
      event_.has_usage = true;
      return object(
          [this](std::string_view k) { return k == "completion_tokens" ? number(event_.completion_tokens) : skip(); });
    }
    return skip();
  }

  bool choice() {
    ++event_.n_choices;
    return object([this](std::string_view key) {
      if (key == "index") return number(event_.index);
      if (key == "text") return text();
      if (key == "finish_reason" && peek() == '"') return append_string(event_.finish_reason);
      if (key == "delta") return object([this](std::string_view k) { return k == "content" ? text() : skip(); });
      return skip();
    });
  }

  bool text() {
    if (peek() != '"') return skip();
    event_.has_text = true;
    return append_string(event_.text);
  }

  const char *p_, *end_;
  StreamEvent &event_;
};

}  // namespace

bool parse_stream_event(std::string_view json, StreamEvent &event) {
  event.n_choices = 0, event.index = 0, event.completion_tokens = 0;
  event.has_text = event.has_usage = event.has_error = false;
  event.text.clear(), event.finish_reason.clear(), event.id.clear();
  return Walk(json, event).whole();
}

}  // namespace sluice::support

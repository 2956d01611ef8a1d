#include "core/net/http_head.hpp"

#include <algorithm>
#include <array>

namespace sluice::net {
namespace {

constexpr bool is_token_char(unsigned char c) {
  if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
  return std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
}

constexpr bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) { return is_token_char(c); });
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool list_has(std::string_view list, std::string_view lower_token) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    if (lower(trimmed(list.substr(0, comma))) == lower_token) return true;
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
  return false;
}

// host[:port], an IPv6 literal in brackets; what a name may hold is kept narrow on purpose.
bool is_host(std::string_view host) {
  if (host.empty() || host.size() > 255) return false;
  if (host.front() == '[') {
    const size_t end = host.find(']');
    if (end == std::string_view::npos || end < 3) return false;
    const auto inside = host.substr(1, end - 1);
    if (!std::all_of(inside.begin(), inside.end(), [](char c) { return is_hex(c) || c == ':' || c == '.'; })) return false;
    host.remove_prefix(end + 1);
    if (host.empty()) return true;
    if (host.front() != ':') return false;
  } else {
    const auto name = host.substr(0, host.find(':'));
    if (name.empty()) return false;
    for (const unsigned char c : name) {
      if (!is_token_char(c) || c == '%' || c == '\'' || c == '*' || c == '|') return false;
    }
    host.remove_prefix(name.size());
    if (host.empty()) return true;
  }
  host.remove_prefix(1);
  return !host.empty() && host.size() <= 5 &&
         std::all_of(host.begin(), host.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::string lower(std::string_view text) {
  std::string out(text);
  for (char &c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

const std::string *RequestHead::field(std::string_view name) const {
  for (const auto &[key, value] : fields) {
    if (key == name) return &value;
  }
  return nullptr;
}

void HeadReader::reset() {
  scanned_ = line_start_ = end_ = 0;
  problem_ = {};
}

bool HeadReader::fail(int status, std::string message) {
  problem_ = {status, std::move(message)};
  return false;
}

HeadReader::Scan HeadReader::scan(std::string_view buffer) {
  for (; scanned_ < buffer.size(); ++scanned_) {
    if (scanned_ >= limits_.head_bytes) {
      fail(431, "the request head is larger than " + std::to_string(limits_.head_bytes) + " bytes");
      return Scan::kBad;
    }
    const char c = buffer[scanned_];
    if (c == '\r') {
      if (scanned_ + 1 == buffer.size()) return Scan::kIncomplete;  // its LF decides
      if (buffer[scanned_ + 1] != '\n') {
        fail(400, "a carriage return without a line feed in the request head");
        return Scan::kBad;
      }
      continue;
    }
    if (c != '\n') {
      const auto u = static_cast<unsigned char>(c);
      if ((u < 0x20 && c != '\t') || u == 0x7f) {
        fail(400, "a control character in the request head");
        return Scan::kBad;
      }
      continue;
    }
    if (scanned_ == 0 || buffer[scanned_ - 1] != '\r') {
      fail(400, "a line feed without a carriage return in the request head");
      return Scan::kBad;
    }
    if (scanned_ - line_start_ == 1) {  // an empty line
      if (line_start_ == 0) {
        fail(400, "an empty line where a request line was expected");
        return Scan::kBad;
      }
      end_ = ++scanned_;
      return Scan::kComplete;
    }
    line_start_ = scanned_ + 1;
  }
  return Scan::kIncomplete;
}

bool HeadReader::parse(std::string_view buffer, RequestHead &out) {
  out = {};
  std::string_view rest = buffer.substr(0, end_);
  bool first = true;
  while (rest.size() > 2) {
    const size_t eol = rest.find("\r\n");
    const auto line = rest.substr(0, eol);
    if (!(first ? parse_request_line(line, out) : parse_field(line, out))) return false;
    first = false;
    rest.remove_prefix(eol + 2);
  }
  return check_fields(out);
}

bool HeadReader::parse_request_line(std::string_view line, RequestHead &out) {
  const size_t a = line.find(' ');
  const size_t b = a == std::string_view::npos ? a : line.find(' ', a + 1);
  if (b == std::string_view::npos || line.find(' ', b + 1) != std::string_view::npos ||
      line.find('\t') != std::string_view::npos) {
    return fail(400, "the request line is not: method SP target SP version");
  }
  const auto method = line.substr(0, a), target = line.substr(a + 1, b - a - 1), version = line.substr(b + 1);
  if (!is_token(method) || method.size() > 20) return fail(400, "the request method is malformed");
  out.method = method;
  if (version == "HTTP/1.0") {
    out.http_1_0 = true;
    out.keep_alive = false;
  } else if (version != "HTTP/1.1") {
    const bool well_formed = version.size() == 8 && version.substr(0, 5) == "HTTP/" && version[6] == '.' &&
                             version[5] >= '0' && version[5] <= '9' && version[7] >= '0' && version[7] <= '9';
    if (well_formed) return fail(505, "the server speaks HTTP/1.1");
    return fail(400, "the protocol version in the request line is malformed");
  }
  return parse_target(target, out);
}

bool HeadReader::parse_target(std::string_view target, RequestHead &out) {
  if (target.size() > limits_.target_bytes) {
    return fail(414, "the request target is longer than " + std::to_string(limits_.target_bytes) + " bytes");
  }
  if (target == "*" && out.method == "OPTIONS") {
    out.path = "*";
    return true;
  }
  // Absolute and authority forms name a host a second time, next to Host; only proxies need them.
  if (target.empty() || target.front() != '/') return fail(400, "the request target must start with '/'");
  for (size_t i = 0; i < target.size(); ++i) {
    const auto c = static_cast<unsigned char>(target[i]);
    if (c <= 0x20 || c >= 0x7f || std::string_view("\"<>\\^`{|}#").find(target[i]) != std::string_view::npos) {
      return fail(400, "a character in the request target must be percent-encoded");
    }
    if (c != '%') continue;
    if (i + 2 >= target.size() || !is_hex(target[i + 1]) || !is_hex(target[i + 2])) {
      return fail(400, "a percent sign in the request target is not followed by two hexadecimal digits");
    }
    if (target[i + 1] == '0' && target[i + 2] == '0') return fail(400, "an encoded NUL in the request target");
  }
  const size_t question = target.find('?');
  out.path = target.substr(0, question);
  if (question != std::string_view::npos) out.query = target.substr(question + 1);
  return true;
}

bool HeadReader::parse_field(std::string_view line, RequestHead &out) {
  if (line.front() == ' ' || line.front() == '\t') return fail(400, "a folded header line");
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return fail(400, "a header line without a colon");
  if (!is_token(line.substr(0, colon))) {
    return fail(400, "a header name is empty or holds a space or another illegal character");
  }
  if (out.fields.size() == limits_.head_fields) {
    return fail(431, "more than " + std::to_string(limits_.head_fields) + " header fields");
  }
  out.fields.emplace_back(lower(line.substr(0, colon)), trimmed(line.substr(colon + 1)));
  return true;
}

bool HeadReader::check_fields(RequestHead &out) {
  size_t n_host = 0, n_length = 0, n_coding = 0, n_expect = 0;
  bool connection_upgrade = false, websocket = false;
  for (const auto &[name, value] : out.fields) {
    if (name == "host") {
      if (++n_host > 1) return fail(400, "more than one Host header");
      if (!is_host(value)) return fail(400, "the Host header is malformed");
    } else if (name == "content-length") {
      if (++n_length > 1) return fail(400, "more than one Content-Length header");
      if (value.empty() || value.size() > 18 || !std::all_of(value.begin(), value.end(), [](char c) {
            return c >= '0' && c <= '9';
          })) {
        return fail(400, "Content-Length must be digits only");
      }
      out.framing = Framing::kLength;
      out.content_length = std::stoull(value);
    } else if (name == "transfer-encoding") {
      if (++n_coding > 1) return fail(400, "more than one Transfer-Encoding header");
      if (lower(value) != "chunked") return fail(400, "the only Transfer-Encoding understood is: chunked");
    } else if (name == "expect") {
      if (++n_expect > 1 || lower(value) != "100-continue") return fail(417, "the only Expect understood is 100-continue");
      out.expect_continue = !out.http_1_0;
    } else if (name == "connection") {
      if (list_has(value, "close")) out.keep_alive = false;
      if (list_has(value, "upgrade")) connection_upgrade = true;
    } else if (name == "upgrade") {
      if (list_has(value, "websocket")) websocket = true;
    }
  }
  if (n_host == 0 && !out.http_1_0) return fail(400, "the Host header is missing");
  if (n_coding != 0) {
    if (n_length != 0) return fail(400, "Content-Length and Transfer-Encoding together");
    if (out.http_1_0) return fail(400, "Transfer-Encoding in an HTTP/1.0 request");
    out.framing = Framing::kChunked;
  }
  if (out.framing == Framing::kLength && out.content_length == 0) out.framing = Framing::kNoBody;
  out.wants_websocket = connection_upgrade && websocket && !out.http_1_0;
  return true;
}

}  // namespace sluice::net

#include "core/net/error_reply.hpp"

#include <array>

namespace sluice::net {
namespace {

void append_nullable(std::string &out, std::string_view text) {
  if (text.empty()) {
    out += "null";
    return;
  }
  out += '"';
  append_json_escaped(out, text);
  out += '"';
}

// 0: copied as it is; 1: \u00xx; else the letter after the backslash.
constexpr std::array<char, 256> make_escapes() {
  std::array<char, 256> table{};
  for (int i = 0; i < 0x20; ++i) table[static_cast<size_t>(i)] = 1;
  table['\b'] = 'b';
  table['\f'] = 'f';
  table['\n'] = 'n';
  table['\r'] = 'r';
  table['\t'] = 't';
  table['"'] = '"';
  table['\\'] = '\\';
  table[0x7f] = 1;
  return table;
}
constexpr std::array<char, 256> kEscapes = make_escapes();

}  // namespace

void append_json_escaped(std::string &out, std::string_view text) {
  size_t plain = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto u = static_cast<unsigned char>(text[i]);
    const char escape = kEscapes[u];
    if (escape == 0) continue;
    out.append(text.substr(plain, i - plain));
    plain = i + 1;
    out += '\\';
    if (escape != 1) {
      out += escape;
      continue;
    }
    constexpr char kHex[] = "0123456789abcdef";
    out += "u00";
    out += kHex[u >> 4];
    out += kHex[u & 15];
  }
  out.append(text.substr(plain));
}

std::string_view error_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 408:
    case 504: return "timeout_error";
    case 429: return "rate_limit_error";
    case 500: return "server_error";
    case 501: return "not_supported_error";
    case 503: return "unavailable_error";
    default: return "invalid_request_error";
  }
}

std::string error_object(const ErrorReply &reply) {
  std::string out = R"({"message":")";
  append_json_escaped(out, reply.message);
  out += R"(","type":")";
  out += error_type(reply.status);
  out += R"(","param":)";
  append_nullable(out, reply.param);
  out += R"(,"code":)";
  append_nullable(out, reply.code);
  out += '}';
  return out;
}

std::string error_body(const ErrorReply &reply) { return R"({"error":)" + error_object(reply) + "}"; }

const char *reason_phrase(int status) {
  switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 200: return "OK";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 426: return "Upgrade Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "Status";
  }
}

}  // namespace sluice::net

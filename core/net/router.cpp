#include "core/net/router.hpp"

namespace sluice::net {
namespace {

int hex_value(char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; }

// The head reader has checked that two hexadecimal digits follow every percent sign.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      out += static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

bool matches(std::string_view pattern, std::string_view path, std::string_view &parameter) {
  if (!pattern.ends_with("{}")) return pattern == path;
  pattern.remove_suffix(2);
  if (!path.starts_with(pattern) || path.size() == pattern.size()) return false;
  parameter = path.substr(pattern.size());
  return true;
}

}  // namespace

Router::Match Router::match(std::string_view method, std::string_view path) const {
  Match out;
  bool head = false;
  for (const Route &route : routes_) {
    std::string_view parameter;
    if (!matches(route.pattern, path, parameter)) continue;
    if (route.access == RouteAccess::kPublic) out.is_public = true;
    if (!out.allow.empty()) out.allow += ", ";
    out.allow += route.method;
    if (route.method == "GET" && route.handler) head = true;
    const bool fits = route.method == method || (route.method == "GET" && route.handler && method == "HEAD");
    if (!fits || out.route != nullptr) continue;
    out.route = &route;
    out.parameter = percent_decoded(parameter);
  }
  if (!out.allow.empty()) out.allow += head ? ", HEAD, OPTIONS" : ", OPTIONS";
  return out;
}

}  // namespace sluice::net

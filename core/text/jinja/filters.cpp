#include "core/text/jinja/json.hpp"
#include "core/text/jinja/renderer.hpp"
#include "core/text/jinja/strings.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace sluice::text::jinja {
namespace {

std::string as_text(const Value &value) {
  std::string out;
  append_text(value, out);
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

Value to_integer(const Value &value, const Args &args) {
  const Value *fallback = args.find(0, "default");
  int64_t out = 0;
  if (const auto *i = value.as<int64_t>()) return *i;
  if (const auto *d = value.as<double>(); value.is_number() && (d == nullptr || std::fabs(*d) < 9e18))
    return static_cast<int64_t>(value.number());
  if (const auto *s = value.string()) {
    const std::string_view digits = strip(*s, Side::kBoth, std::nullopt);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
    if (error == std::errc() && end == digits.data() + digits.size()) return out;
  }
  return fallback != nullptr ? *fallback : Value(int64_t{0});
}

Value to_float(const Value &value, const Args &args) {
  const Value *fallback = args.find(0, "default");
  double out = 0;
  if (value.is_number()) return value.number();
  if (const auto *s = value.string()) {
    const std::string_view digits = strip(*s, Side::kBoth, std::nullopt);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
    if (error == std::errc() && end == digits.data() + digits.size()) return out;
  }
  return fallback != nullptr ? *fallback : Value(0.0);
}

Value rounded(const Value &value, const Args &args) {
  if (!value.is_number()) fail(fmt::format("a {} cannot be rounded", value.type_name()));
  if (value.as<int64_t>() != nullptr) return value;
  const Value *precision = args.find(0, "precision");
  const auto *digits = precision != nullptr ? precision->as<int64_t>() : nullptr;
  const double scale =
      std::pow(10.0, digits != nullptr ? static_cast<double>(std::clamp<int64_t>(*digits, -15, 15)) : 0.0);
  return std::nearbyint(value.number() * scale) / scale;  // to even, as Python does
}

Value absolute(const Value &value) {
  if (const auto *i = value.as<int64_t>(); i != nullptr && *i != std::numeric_limits<int64_t>::min())
    return *i < 0 ? -*i : *i;
  if (value.is_number()) return std::fabs(value.number());
  fail(fmt::format("a {} has no absolute value", value.type_name()));
}

/// Spaces in front of every line but the first; empty lines stay empty.
std::string indented(std::string_view text, size_t width, bool first) {
  const std::string spaces(width, ' ');
  std::string out;
  bool is_first = true;
  for (const std::string_view line : split(text, "\n", text.size() + 1, false)) {
    if (!is_first) out += '\n';
    if ((!is_first || first) && !line.empty()) out += spaces;
    out += line;
    is_first = false;
  }
  return out;
}

int64_t length_of(const Value &value) {
  if (const auto *s = value.string()) return static_cast<int64_t>(count_characters(*s));
  if (const auto *items = value.items()) return static_cast<int64_t>(items->size());
  if (const auto *entries = value.entries()) return static_cast<int64_t>(entries->all().size());
  if (value.is_undefined()) return 0;
  fail(fmt::format("a {} has no length", value.type_name()));
}

bool flag(const Args &args, size_t position, std::string_view name) {
  const Value *value = args.find(position, name);
  return value != nullptr && value->truthy();
}

int64_t small_integer(const Args &args, size_t position, std::string_view name, int64_t fallback) {
  const Value *value = args.find(position, name);
  if (value == nullptr || value->is_none()) return fallback;
  const auto *number = value->as<int64_t>();
  if (number == nullptr || *number < 0 || *number > 64)
    fail(fmt::format("argument '{}' must be an integer, 0..64", name));
  return *number;
}

}  // namespace

Value Renderer::filter(std::string_view name, const Value &value, const Args &args) {
  Value out;
  if (text_filter(name, value, args, out) || list_filter(name, value, args, out)) return out;
  fail(fmt::format("there is no filter '{}'", name));
}

bool Renderer::text_filter(std::string_view name, const Value &value, const Args &args, Value &out) {
  if (name == "default" || name == "d") {
    const bool replaced = value.is_undefined() || (flag(args, 1, "boolean") && !value.truthy());
    const Value *fallback = args.find(0, "default_value");
    out = !replaced ? value : fallback != nullptr ? *fallback : Value("");
    return true;
  }
  if (name == "length" || name == "count") {
    if (value.string() != nullptr) charge(value.string()->size() / 128);
    out = length_of(value);
    return true;
  }
  if (name == "tojson") {
    std::string json;
    append_json(value, static_cast<int>(small_integer(args, 0, "indent", -1)), limits_.max_output_bytes, json);
    out = text(std::move(json));
    return true;
  }
  if (name == "int") {
    out = to_integer(value, args);
  } else if (name == "float") {
    out = to_float(value, args);
  } else if (name == "round") {
    out = rounded(value, args);
  } else if (name == "abs") {
    out = absolute(value);
  } else if (name == "string" || name == "safe") {
    out = value.string() != nullptr ? value : text(as_text(value));
  } else if (name == "trim") {
    out = string_method(as_text(value), "strip", args);
  } else if (name == "upper" || name == "lower" || name == "title" || name == "capitalize") {
    out = string_method(as_text(value), name, {});
  } else if (name == "replace") {
    out = string_method(as_text(value), "replace", args);
  } else if (name == "escape" || name == "e") {
    out = text(escape_html(as_text(value)));
  } else if (name == "indent") {
    const std::string source = as_text(value);
    const auto width = static_cast<size_t>(small_integer(args, 0, "width", 4));
    charge_bytes(source.size() + count_matches(source, "\n") * width);
    charge(count_matches(source, "\n"));
    out = Value(indented(source, width, flag(args, 1, "first")));
  } else {
    return false;
  }
  return true;
}

}  // namespace sluice::text::jinja

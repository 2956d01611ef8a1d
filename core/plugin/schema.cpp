#include "core/plugin/schema.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <sstream>

#include "core/config/config.hpp"
#include "core/config/words.hpp"
#include "core/plugin/toml_value.hpp"

namespace sluice::plugin {
namespace {

constexpr size_t kMaxFields = 256;
constexpr size_t kMaxTextBytes = 4096;
constexpr uint64_t kKnownFlags = SLUICE_CFGF_REQUIRED | SLUICE_CFGF_PER_REQUEST | SLUICE_CFGF_HOT | SLUICE_CFGF_SECRET;

/// A text of the plugin, or nothing when it is NULL or never ends.
std::optional<std::string> text_of(const char *p) {
  if (p == nullptr) return std::nullopt;
  const size_t n = strnlen(p, kMaxTextBytes);
  return n == kMaxTextBytes ? std::nullopt : std::optional<std::string>(std::string(p, n));
}

bool is_key(const std::string &key) {
  const auto good = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-'; };
  bool at_start = true;
  for (const char c : key) {
    if (c == '.' ? at_start : !good(c)) return false;
    at_start = c == '.';
  }
  return !at_start && key.size() <= 128;
}

Result<OptionField> field_of(const std::string &plugin, const sluice_config_field &raw, size_t index) {
  const auto wrong = [&](const std::string &what) {
    return invalid_argument(fmt::format("{} publishes a wrong option ({}): {}", plugin, index, what));
  };
  if (raw.struct_size < SLUICE_SIZE_THROUGH(sluice_config_field, max)) return wrong("struct_size is too small");
  OptionField f;
  const auto key = text_of(raw.key);
  if (!key || !is_key(*key)) return wrong("its key is missing or not [a-z0-9_-]+ with dots between");
  if (*key == "use") return wrong("'use' names the plugin and cannot be an option");
  f.key = *key;
  if (raw.type < SLUICE_CFG_BOOL || raw.type > SLUICE_CFG_TABLE)
    return wrong(fmt::format("{} has the unknown type {}", f.key, raw.type));
  if ((raw.flags & 0xffffffffu & ~kKnownFlags) != 0)
    return wrong(fmt::format("{} has unknown flags {:#x}", f.key, raw.flags));
  f.type = raw.type;
  f.flags = raw.flags;
  f.doc = text_of(raw.doc).value_or("");
  if (raw.choices != nullptr) {
    const auto all = text_of(raw.choices);
    if (!all || f.type != SLUICE_CFG_STR) return wrong(f.key + ": its choices are damaged or it is not a string");
    std::istringstream parts(*all);
    for (std::string part; std::getline(parts, part, '|');) f.choices.push_back(part);
  }
  const bool number = f.type == SLUICE_CFG_I64 || f.type == SLUICE_CFG_F64;
  if (std::isnan(raw.min) || std::isnan(raw.max)) return wrong(f.key + ": its range is not a number");
  f.bounded = number && raw.min <= raw.max;
  f.min = raw.min, f.max = raw.max;
  if (raw.def == nullptr) return f;

  const auto text = text_of(raw.def);
  if (!text) return wrong(f.key + ": its default is damaged");
  f.fallback_text = *text;
  const toml::parse_result parsed = [&] {
    try {
      return toml::parse("v = " + *text);
    } catch (const toml::parse_error &) {
      return toml::table();
    }
  }();
  const toml::node *node = parsed.get("v");
  if (node == nullptr || parsed.size() != 1)
    return wrong(fmt::format("{}: its default '{}' is not a TOML value", f.key, *text));
  f.fallback = toml_value(f.type, *node);
  if (!f.fallback) return wrong(fmt::format("{}: its default {} is not {}", f.key, *text, f.expectation()));
  if (const auto bad = wrong_with(f, *f.fallback)) return wrong(fmt::format("{}: its default {}", f.key, *bad));
  return f;
}

/// A client may send megabytes; a message repeats the beginning.
std::string excerpt(const Value &value) {
  const auto *text = std::get_if<std::string>(&value);
  return text != nullptr ? config::excerpt(*text) : to_toml(value);
}

std::string number(double v) {
  return v == std::floor(v) && std::abs(v) < 1e15 ? fmt::format("{:.0f}", v) : fmt::format("{}", v);
}

}  // namespace

std::string OptionField::expectation() const {
  const std::string range = bounded ? fmt::format(" {}..{}", number(min), number(max)) : "";
  switch (type) {
    case SLUICE_CFG_BOOL: return "true or false";
    case SLUICE_CFG_I64: return "an integer" + range;
    case SLUICE_CFG_F64: return "a number" + range;
    case SLUICE_CFG_STR: return choices.empty() ? "a string" : fmt::format("one of {}", fmt::join(choices, ", "));
    case SLUICE_CFG_STR_LIST: return "an array of strings";
    default: return "a table";
  }
}

std::optional<std::string> wrong_with(const OptionField &field, const Value &value) {
  double n = 0;
  if (const auto *i = std::get_if<int64_t>(&value)) n = static_cast<double>(*i);
  if (const auto *d = std::get_if<double>(&value)) n = *d;
  if (std::isnan(n) || (field.bounded && (n < field.min || n > field.max)))
    return fmt::format("is {}; it must be {}", excerpt(value), field.expectation());
  if (const auto *s = std::get_if<std::string>(&value))
    if (!field.choices.empty() && std::find(field.choices.begin(), field.choices.end(), *s) == field.choices.end())
      return fmt::format("is {}; it must be {}", excerpt(value), field.expectation());
  return std::nullopt;
}

Result<Schema> Schema::create(std::string plugin, const sluice_config_field *fields, size_t n, size_t stride) {
  Schema schema;
  schema.plugin_ = std::move(plugin);
  const size_t smallest = SLUICE_SIZE_THROUGH(sluice_config_field, max);
  if (n > kMaxFields || (n > 0 && (fields == nullptr || stride < smallest || stride > 4096 || stride % 8 != 0)))
    return invalid_argument(
        fmt::format("{} publishes {} options of {} bytes, which cannot be", schema.plugin_, n, stride));
  for (size_t i = 0; i < n; ++i) {
    const auto *at = reinterpret_cast<const char *>(fields) + i * stride;
    auto field = field_of(schema.plugin_, *reinterpret_cast<const sluice_config_field *>(at), i);
    if (!field) return field.error();
    schema.fields_.push_back(std::move(*field));
  }
  std::sort(schema.fields_.begin(), schema.fields_.end(),
            [](const OptionField &a, const OptionField &b) { return a.key < b.key; });
  for (size_t i = 0; i < n; ++i) {
    const std::string &key = schema.fields_[i].key;
    if ((i > 0 && schema.fields_[i - 1].key == key) || schema.has_below(key))
      return invalid_argument(fmt::format("{} publishes the option {} twice", schema.plugin_, key));
  }
  return schema;
}

std::optional<size_t> Schema::find(const std::string &key) const {
  const auto it = std::lower_bound(fields_.begin(), fields_.end(), key,
                                   [](const OptionField &f, const std::string &k) { return f.key < k; });
  if (it == fields_.end() || it->key != key) return std::nullopt;
  return static_cast<size_t>(it - fields_.begin());
}

bool Schema::has_below(const std::string &prefix) const {
  const std::string start = prefix + ".";
  return std::any_of(fields_.begin(), fields_.end(), [&](const OptionField &f) { return f.key.rfind(start, 0) == 0; });
}

std::vector<std::string> Schema::keys(bool per_request_only) const {
  std::vector<std::string> all;
  for (const OptionField &f : fields_)
    if (!per_request_only || f.per_request()) all.push_back(f.key);
  return all;
}

std::string Schema::suggestion(const std::string &unknown, bool per_request_only) const {
  const std::string near = config::nearest(unknown, keys(per_request_only));
  if (near.empty()) return {};
  return fmt::format("; did you mean {} ({})?", near, fields_[*find(near)].doc);
}

}  // namespace sluice::plugin

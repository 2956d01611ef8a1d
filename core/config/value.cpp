#include "core/config/value.hpp"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <sstream>

#include "core/config/units.hpp"
#include "core/config/words.hpp"

namespace sluice::config {
namespace {

template <class... F>
struct Cases : F... {
  using F::operator()...;
};
template <class... F>
Cases(F...) -> Cases<F...>;

using Wrong = std::optional<std::string>;
using Milliseconds = std::chrono::milliseconds;

/// What assign() knows besides the value.
struct Target {
  const Field &field;
  const std::string &key;
  const Origin &origin;
  const std::string &folder;
};

std::string node_text(const toml::node &node) {
  constexpr auto kFlags = toml::toml_formatter::default_flags & ~toml::format_flags::allow_multi_line_strings &
                          ~toml::format_flags::allow_literal_strings & ~toml::format_flags::indentation;
  std::ostringstream out;
  if (const auto *table = node.as_table()) {
    toml::table copy = *table;
    copy.is_inline(true);
    out << toml::toml_formatter{copy, kFlags};
  } else {
    out << toml::toml_formatter{node, kFlags};
  }
  return out.str();
}

/// `{ use = "cpu", threads = 4 }`, or `"cpu"` when there are no options.
std::string plugin_text(const PluginUse &use) {
  if (use.options.empty() && !use.own_process) return toml_text(use.name);
  std::string out = "{ use = " + toml_text(use.name);
  if (use.own_process) out += ", isolation = \"process\"";
  for (const auto &[key, value] : *use.options) out += ", " + key_part(key.str()) + " = " + node_text(value);
  return out + " }";
}

std::string value_text(const toml::node &value) {
  if (const auto *text = value.as_string()) return excerpt(**text);
  if (value.is_value()) return node_text(value);
  return {};
}

/// "server.port is "x" (a string); it must be an integer 0..65535: TCP port".
std::string complaint(const Target &t, const toml::node &value, const std::string &hint = {}) {
  const std::string shown = t.field.is_secret ? "" : value_text(value);
  const std::string is = shown.empty() ? kind_of(value) : fmt::format("{} ({})", shown, kind_of(value));
  return fmt::format("{} is {}; it must be {}{}: {}", t.key, is, expectation(t.field), hint, t.field.doc);
}

std::string absolute(const std::string &path, const std::string &folder) {
  if (path.empty()) return path;
  return (std::filesystem::path(folder) / path).lexically_normal().string();
}

bool is_auto(const Field &field, const toml::node &value) {
  const auto *text = value.as_string();
  return field.auto_is_zero && text != nullptr && **text == "auto";
}

template <class T>
Wrong set_integer(T &slot, const Target &t, toml::node &value) {
  if (is_auto(t.field, value)) return slot = 0, std::nullopt;
  const auto *integer = value.as_integer();
  if (integer == nullptr) return complaint(t, value);
  const int64_t number = **integer;
  if (number < 0 || static_cast<uint64_t>(number) < t.field.min || static_cast<uint64_t>(number) > t.field.max)
    return fmt::format("{} is {}; it must be {}: {}", t.key, number, expectation(t.field), t.field.doc);
  slot = static_cast<T>(number);
  return {};
}

/// For sizes and durations, whose unit is part of the value.
template <class T, class Parse>
Wrong set_with_unit(T &slot, const Target &t, toml::node &value, Parse parse, const char *unit) {
  if (is_auto(t.field, value)) return slot = T{}, std::nullopt;
  if (const auto *integer = value.as_integer(); integer != nullptr && **integer == 0 && t.field.min == 0)
    return slot = T{}, std::nullopt;  // nothing needs no unit
  if (const auto *integer = value.as_integer(); integer != nullptr && **integer >= 0)
    return complaint(t, value, fmt::format(" (did you mean \"{}{}\"?)", **integer, unit));
  const auto *text = value.as_string();
  if (text == nullptr) return complaint(t, value);
  const auto parsed = parse(**text);
  if (!parsed) return complaint(t, value);
  uint64_t number = 0;
  if constexpr (std::is_same_v<T, Milliseconds>)
    number = static_cast<uint64_t>(parsed->count());
  else
    number = *parsed;
  if (number < t.field.min || number > t.field.max) return complaint(t, value);
  slot = *parsed;
  return {};
}

Wrong set_text(std::string &slot, const Target &t, toml::node &value) {
  const auto *text = value.as_string();
  if (text == nullptr) return complaint(t, value);
  if (!t.field.choices.empty()) {
    bool known = false;
    for (const std::string &choice : t.field.choices) known |= choice == **text;
    if (!known) return complaint(t, value);
  }
  // A NUL would cut the name short on its way to the system.
  if ((**text).find('\0') != std::string::npos) return complaint(t, value, " without a NUL");
  slot = t.field.is_path ? absolute(**text, t.folder) : **text;
  return {};
}

Wrong set_list(std::vector<std::string> &slot, const Target &t, toml::node &value) {
  const auto *array = value.as_array();
  if (array == nullptr) return complaint(t, value);
  std::vector<std::string> list;
  for (const toml::node &element : *array) {
    const auto *text = element.as_string();
    if (text == nullptr || (**text).empty() || (**text).find('\0') != std::string::npos)
      return fmt::format("{} holds {}; it must be {}: {}", t.key,
                         text == nullptr ? kind_of(element) : "a string that is empty or has a NUL",
                         expectation(t.field), t.field.doc);
    list.push_back(t.field.is_path ? absolute(**text, t.folder) : **text);
  }
  slot = std::move(list);
  return {};
}

/// Sets `use` from a name or a table. A bare name that is the present one keeps the options it had.
Wrong set_plugin(PluginUse &use, const Target &t, toml::node &value) {
  if (const auto *text = value.as_string()) {
    if (!is_name(**text)) return complaint(t, value, fmt::format(" (a name is {})", kNameRule));
    if (use.name != **text) use = {}, use.name = **text;
    use.origin = t.origin;
    return {};
  }
  auto *table = value.as_table();
  if (table == nullptr) return complaint(t, value);
  const auto *name = table->get_as<std::string>("use");
  if (name == nullptr)
    return fmt::format("{} has no string `use`; it must be {}: {}", t.key, expectation(t.field), t.field.doc);
  if (!is_name(**name)) return fmt::format("{}.use is {}; a name is {}", t.key, excerpt(**name), kNameRule);
  PluginUse made;
  made.name = **name, made.origin = t.origin;
  if (const toml::node *isolation = table->get("isolation")) {
    if (!t.field.may_be_isolated)
      return fmt::format("{}.isolation cannot be: only backends and engines can live in a process of their own", t.key);
    const auto *text = isolation->as_string();
    if (text == nullptr || (**text != "none" && **text != "process"))
      return fmt::format("{}.isolation is {}; it must be \"none\" or \"process\"", t.key,
                         text == nullptr ? kind_of(*isolation) : excerpt(**text));
    made.own_process = **text == "process";
    table->erase("isolation");
  }
  table->erase("use");
  made.options = std::move(*table);
  use = std::move(made);
  return {};
}

Wrong set_plugins(std::vector<PluginUse> &slot, const Target &t, toml::node &value) {
  std::vector<PluginUse> list;
  const auto add = [&](toml::node &element) {
    PluginUse use;
    if (const auto *text = element.as_string())
      for (const PluginUse &present : slot)
        if (present.name == **text) use = present;
    Wrong wrong = set_plugin(use, t, element);
    list.push_back(std::move(use));
    return wrong;
  };
  if (auto *array = value.as_array()) {
    for (toml::node &element : *array)
      if (Wrong wrong = add(element)) return wrong;
  } else if (Wrong wrong = add(value)) {
    return wrong;
  }
  if (list.empty()) return fmt::format("{} is empty; it must be {}: {}", t.key, expectation(t.field), t.field.doc);
  slot = std::move(list);
  return {};
}

std::vector<std::string> split(const std::string &text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    const size_t first = part.find_first_not_of(" \t"), last = part.find_last_not_of(" \t");
    if (first != std::string::npos) parts.push_back(part.substr(first, last - first + 1));
  }
  return parts;
}

}  // namespace

bool is_name(const std::string &text) {
  if (text.empty() || text.size() > 128) return false;
  for (const char c : text)
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
          c == '-'))
      return false;
  return true;
}

std::string kind_of(const toml::node &value) {
  switch (value.type()) {
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a float";
    case toml::node_type::boolean:
      return "a boolean";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::table:
      return "a table";
    default:
      return "a date or time";
  }
}

std::string expectation(const Field &f) {
  const auto number = [&](auto) { return fmt::format("an integer {}..{}", f.min, f.max); };
  std::string text = std::visit(
      Cases{[&](std::string *) {
              return f.choices.empty() ? std::string(f.is_path ? "a path" : "a string") : "one of " + join(f.choices);
            },
            [](bool *) { return std::string("true or false"); },  //
            [&](uint16_t *s) { return number(s); }, [&](uint32_t *s) { return number(s); },
            [&](uint64_t *) {
              return fmt::format("a size such as \"4MiB\", {}..{}", format_size(f.min), format_size(f.max));
            },
            [&](Milliseconds *) {
              return fmt::format("a duration such as \"5s\", {}..{}", format_duration(Milliseconds(f.min)),
                                 format_duration(Milliseconds(f.max)));
            },
            [](std::vector<std::string> *) { return std::string("an array of strings"); },
            [](std::vector<PluginUse> *) {
              return std::string("an array of plugin names or tables { use = \"name\", ... }");
            },
            [](auto *) { return std::string("a plugin's name or a table { use = \"name\", ... }"); }},
      f.slot);
  if (f.auto_is_zero) text += " or \"auto\"";
  return text;
}

std::string rendered(const Field &f) {
  const auto number = [&](uint64_t v) { return f.auto_is_zero && v == 0 ? "\"auto\"" : std::to_string(v); };
  return std::visit(
      Cases{[&](std::string *s) { return f.is_secret && !s->empty() ? "\"***\"" : toml_text(*s); },
            [](bool *s) { return std::string(*s ? "true" : "false"); }, [&](uint16_t *s) { return number(*s); },
            [&](uint32_t *s) { return number(*s); },
            [&](uint64_t *s) { return f.auto_is_zero && *s == 0 ? "\"auto\"" : toml_text(format_size(*s)); },
            [&](Milliseconds *s) { return toml_text(format_duration(*s)); },
            [&](std::vector<std::string> *s) {
              std::vector<std::string> parts;
              for (const std::string &text : *s) parts.push_back(f.is_secret ? "\"***\"" : toml_text(text));
              return "[" + join(parts) + "]";
            },
            [](PluginUse *s) { return plugin_text(*s); },
            [](std::vector<PluginUse> *s) {
              std::vector<std::string> parts;
              for (const PluginUse &use : *s) parts.push_back(plugin_text(use));
              return "[" + join(parts) + "]";
            },
            [](std::optional<PluginUse> *s) { return *s ? plugin_text(**s) : std::string(); }},
      f.slot);
}

std::optional<std::string> assign(const Field &field, const std::string &key, toml::node &value, const Origin &origin,
                                  const std::string &folder) {
  const Target t{field, key, origin, folder};
  return std::visit(Cases{[&](std::string *s) { return set_text(*s, t, value); },
                          [&](bool *s) -> Wrong {
                            const auto *boolean = value.as_boolean();
                            if (boolean == nullptr) return complaint(t, value);
                            *s = **boolean;
                            return {};
                          },
                          [&](uint16_t *s) { return set_integer(*s, t, value); },
                          [&](uint32_t *s) { return set_integer(*s, t, value); },
                          [&](uint64_t *s) { return set_with_unit(*s, t, value, parse_size, "MiB"); },
                          [&](Milliseconds *s) { return set_with_unit(*s, t, value, parse_duration, "s"); },
                          [&](std::vector<std::string> *s) { return set_list(*s, t, value); },
                          [&](PluginUse *s) { return set_plugin(*s, t, value); },
                          [&](std::vector<PluginUse> *s) { return set_plugins(*s, t, value); },
                          [&](std::optional<PluginUse> *s) -> Wrong {
                            PluginUse use = s->value_or(PluginUse{});
                            Wrong wrong = set_plugin(use, t, value);
                            if (!wrong) *s = std::move(use);
                            return wrong;
                          }},
                    field.slot);
}

std::optional<std::string> assign_text(const Field &field, const std::string &key, const std::string &text,
                                       const Origin &origin) {
  if (!is_utf8(text)) return fmt::format("{} is not valid UTF-8; it must be {}", key, expectation(field));
  std::error_code no_folder;  // then relative paths stay relative, and fail where they are opened
  const std::string folder = std::filesystem::current_path(no_folder).string();
  const auto as_node = [&](auto value) {
    toml::value node(std::move(value));
    return assign(field, key, node, origin, folder);
  };
  const auto as_array = [&] {
    toml::array list;
    for (std::string &part : split(text)) list.push_back(std::move(part));
    return assign(field, key, list, origin, folder);
  };
  // What does not parse goes on as a string, which the field then refuses in its usual words.
  const auto as_integer = [&] {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc{} && end == text.data() + text.size() ? as_node(number) : as_node(text);
  };
  const auto as_string = [&] { return as_node(text); };
  return std::visit(Cases{[&](bool *) {
                            if (text == "true" || text == "1") return as_node(true);
                            return text == "false" || text == "0" ? as_node(false) : as_string();
                          },
                          [&](uint16_t *) { return as_integer(); }, [&](uint32_t *) { return as_integer(); },
                          [&](uint64_t *) { return as_integer(); }, [&](Milliseconds *) { return as_integer(); },
                          [&](std::vector<std::string> *) { return as_array(); },
                          [&](std::vector<PluginUse> *) { return as_array(); },  //
                          [&](auto *) { return as_string(); }},
                    field.slot);
}

}  // namespace sluice::config

#include "core/plugin/toml_value.hpp"

#include <sstream>

namespace sluice::plugin {

std::optional<Value> toml_value(int32_t type, const toml::node &node) {
  switch (type) {
    case SLUICE_CFG_BOOL:
      if (const auto v = node.value_exact<bool>()) return Value(*v);
      break;
    case SLUICE_CFG_I64:
      if (const auto v = node.value_exact<int64_t>()) return Value(*v);
      break;
    case SLUICE_CFG_F64:
      if (node.is_number()) return Value(*node.value<double>());
      break;
    case SLUICE_CFG_STR:
      if (const auto v = node.value_exact<std::string>()) return Value(*v);
      break;
    case SLUICE_CFG_STR_LIST:
      if (const toml::array *a = node.as_array()) {
        std::vector<std::string> list;
        for (const toml::node &item : *a) {
          if (!item.is_string()) return std::nullopt;
          list.push_back(**item.as_string());
        }
        return Value(std::move(list));
      }
      break;
    case SLUICE_CFG_TABLE:
      if (const toml::table *t = node.as_table()) {
        toml::table lines = *t;
        lines.is_inline(false);  // one key per line
        std::ostringstream text;
        text << toml::toml_formatter(lines);
        return Value(TableText{text.str()});
      }
      break;
    default: break;
  }
  return std::nullopt;
}

std::string to_toml(const Value &value) {
  toml::array one;
  std::visit(
      [&](const auto &v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, TableText>) {
          one.push_back(toml::table());
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          toml::array list;
          for (const std::string &s : v) list.push_back(s);
          one.push_back(std::move(list));
        } else {
          one.push_back(v);
        }
      },
      value);
  std::ostringstream text;
  one[0].visit([&](const auto &node) { text << node; });
  return text.str();
}

}  // namespace sluice::plugin

#include "core/plugin/options.hpp"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>
#include <cstring>

#include "core/config/config.hpp"
#include "core/config/words.hpp"
#include "core/plugin/toml_value.hpp"

namespace sluice::plugin {
namespace {

constexpr size_t kMaxKeyBytes = 256;

std::string key_below(const std::string &prefix, std::string_view key) {
  return prefix.empty() ? std::string(key) : prefix + "." + std::string(key);
}

// ---- JSON ----

std::optional<int64_t> integer_of(const boost::json::value &v) {
  if (v.is_int64()) return v.get_int64();
  // Some clients write 1.0 for 1.
  if (v.is_double() && std::abs(v.get_double()) < 9e15 && v.get_double() == std::trunc(v.get_double()))
    return static_cast<int64_t>(v.get_double());
  return std::nullopt;
}

/// Scalars only, so that the text stays one line per key.
std::optional<Value> table_of(const boost::json::value &v) {
  if (!v.is_object()) return std::nullopt;
  TableText text;
  for (const auto &[key, item] : v.get_object()) {
    std::string scalar;
    if (item.is_bool()) {
      scalar = item.get_bool() ? "true" : "false";
    } else if (const auto i = integer_of(item)) {
      scalar = std::to_string(*i);
    } else if (item.is_number()) {
      scalar = to_toml(Value(item.to_number<double>()));
    } else if (item.is_string()) {
      scalar = config::toml_text(item.get_string());
    } else {
      return std::nullopt;
    }
    text.toml += config::toml_text(key) + " = " + scalar + "\n";  // escaped: a key cannot break out of its line
  }
  return Value(std::move(text));
}

std::optional<Value> value_from(int32_t type, const boost::json::value &v) {
  switch (type) {
    case SLUICE_CFG_BOOL:
      if (v.is_bool()) return Value(v.get_bool());
      break;
    case SLUICE_CFG_I64:
      if (const auto i = integer_of(v)) return Value(*i);
      break;
    case SLUICE_CFG_F64:
      if (v.is_number()) return Value(v.to_number<double>());
      break;
    case SLUICE_CFG_STR:
      if (v.is_string()) return Value(std::string(v.get_string()));
      break;
    case SLUICE_CFG_STR_LIST:
      if (v.is_array()) {
        std::vector<std::string> list;
        for (const auto &item : v.get_array()) {
          if (!item.is_string()) return std::nullopt;
          list.emplace_back(item.get_string());
        }
        return Value(std::move(list));
      }
      break;
    case SLUICE_CFG_TABLE: return table_of(v);
    default: break;
  }
  return std::nullopt;
}

// ---- the getters of host.h ----

const Value *lookup(const sluice_config *c, const char *key) {
  if (c == nullptr || key == nullptr || strnlen(key, kMaxKeyBytes) == kMaxKeyBytes) return nullptr;
  return Options::of(c)->find(key);
}

int32_t give(const std::string &text, const char **out, size_t *len) {
  *out = text.c_str();
  *len = text.size();
  return SLUICE_OK;
}

int32_t cfg_bool(const sluice_config *c, const char *key, int32_t *out) {
  const Value *v = lookup(c, key);
  if (v == nullptr || !std::holds_alternative<bool>(*v)) return SLUICE_E_NOT_FOUND;
  *out = std::get<bool>(*v) ? 1 : 0;
  return SLUICE_OK;
}
int32_t cfg_i64(const sluice_config *c, const char *key, int64_t *out) {
  const Value *v = lookup(c, key);
  if (v == nullptr || !std::holds_alternative<int64_t>(*v)) return SLUICE_E_NOT_FOUND;
  *out = std::get<int64_t>(*v);
  return SLUICE_OK;
}
int32_t cfg_f64(const sluice_config *c, const char *key, double *out) {
  const Value *v = lookup(c, key);
  if (v == nullptr || !std::holds_alternative<double>(*v)) return SLUICE_E_NOT_FOUND;
  *out = std::get<double>(*v);
  return SLUICE_OK;
}
int32_t cfg_str(const sluice_config *c, const char *key, const char **out, size_t *len) {
  const Value *v = lookup(c, key);
  if (v == nullptr || !std::holds_alternative<std::string>(*v)) return SLUICE_E_NOT_FOUND;
  return give(std::get<std::string>(*v), out, len);
}
int32_t cfg_list(const sluice_config *c, const char *key, uint32_t i, const char **out, size_t *len) {
  const Value *v = lookup(c, key);
  const auto *list = v == nullptr ? nullptr : std::get_if<std::vector<std::string>>(v);
  if (list == nullptr || i >= list->size()) return SLUICE_E_NOT_FOUND;
  return give((*list)[i], out, len);
}
int32_t cfg_raw(const sluice_config *c, const char *key, const char **toml, size_t *len) {
  const Value *v = lookup(c, key);
  if (v == nullptr || !std::holds_alternative<TableText>(*v)) return SLUICE_E_NOT_FOUND;
  return give(std::get<TableText>(*v).toml, toml, len);
}

}  // namespace

Options::Options(std::shared_ptr<const Schema> schema) : schema_(std::move(schema)) {
  for (const OptionField &f : schema_->fields()) values_.push_back(f.fallback);
  set_.resize(values_.size());
}

Result<std::shared_ptr<const Options>> Options::defaults(std::shared_ptr<const Schema> schema) {
  for (const OptionField &f : schema->fields())
    if ((f.flags & SLUICE_CFGF_REQUIRED) != 0 && !f.fallback)
      return invalid_argument(fmt::format("{} needs the option {} ({})", schema->plugin(), f.key, f.doc), f.key);
  return std::shared_ptr<const Options>(new Options(std::move(schema)));
}

std::shared_ptr<const Options> Options::from_toml(std::shared_ptr<const Schema> schema,
                                                  const config::OptionTable &table, const std::string &where,
                                                  const config::Origin &origin,
                                                  std::vector<config::Problem> &problems) {
  const std::shared_ptr<Options> options(new Options(schema));
  const size_t n_before = problems.size();
  const auto wrong = [&](const toml::node *node, const std::string &message) {
    config::Origin at = origin;
    if (node != nullptr && node->source().begin.line != 0) at.line = node->source().begin.line;
    problems.push_back({at, message});
  };
  const auto walk = [&](const auto &self, const toml::table &t, const std::string &prefix) -> void {
    for (const auto &[name, node] : t) {
      const std::string key = key_below(prefix, name.str());
      const auto index = schema->find(key);
      if (!index && node.is_table() && schema->has_below(key)) {
        self(self, *node.as_table(), key);
        continue;
      }
      if (!index) {
        const std::string hint = schema->suggestion(key);
        wrong(&node, fmt::format("{}.{} is not an option of {}{}", where, key, schema->plugin(), hint));
        continue;
      }
      const OptionField &field = schema->fields()[*index];
      const auto value = toml_value(field.type, node);
      const auto bad = value ? wrong_with(field, *value) : "must be " + field.expectation();
      if (bad) {
        wrong(&node, fmt::format("{}.{} {} ({})", where, key, *bad, field.doc));
        continue;
      }
      options->values_[*index] = value;
      options->set_[*index] = 1;
    }
  };
  walk(walk, *table, "");
  for (size_t i = 0; i < schema->fields().size(); ++i) {
    const OptionField &f = schema->fields()[i];
    if ((f.flags & SLUICE_CFGF_REQUIRED) != 0 && !options->values_[i])
      wrong(nullptr, fmt::format("{}.{} is missing; {} needs it ({})", where, f.key, schema->plugin(), f.doc));
  }
  return problems.size() == n_before ? options : nullptr;
}

Result<std::shared_ptr<const Options>> Options::from_json(const Options &base, const boost::json::object &fields) {
  const std::shared_ptr<Options> options(new Options(base));
  const Schema &schema = *base.schema_;
  for (const auto &[name, item] : fields) {
    const std::string key(name);
    const auto index = schema.find(key);
    if (!index || !schema.fields()[*index].per_request())
      return invalid_argument(fmt::format("{} is not a known field{}", config::excerpt(key), schema.suggestion(key, true)), key);
    if (item.is_null()) continue;
    const OptionField &field = schema.fields()[*index];
    const auto value = value_from(field.type, item);
    const auto bad = value ? wrong_with(field, *value) : "must be " + field.expectation();
    if (bad) return invalid_argument(fmt::format("'{}' {}", key, *bad), key);
    options->values_[*index] = value;
    options->set_[*index] = 1;
  }
  return std::shared_ptr<const Options>(options);
}

const Value *Options::find(const std::string &key) const {
  const auto index = schema_->find(key);
  return index && values_[*index] ? &*values_[*index] : nullptr;
}

bool Options::is_set(const std::string &key) const {
  const auto index = schema_->find(key);
  return index && set_[*index] != 0;
}

void set_config_getters(sluice_host_api &api) {
  api.cfg_bool = cfg_bool;
  api.cfg_i64 = cfg_i64;
  api.cfg_f64 = cfg_f64;
  api.cfg_str = cfg_str;
  api.cfg_list = cfg_list;
  api.cfg_raw = cfg_raw;
}

}  // namespace sluice::plugin

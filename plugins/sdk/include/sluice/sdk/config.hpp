// sluice/sdk/config.hpp - makes the fields that a plugin publishes, and reads what became of them.
#pragma once
#include <sluice/abi/config.h>
#include <sluice/abi/host.h>
#include <sluice/sdk/error.hpp>

#include <charconv>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice::sdk {
inline namespace v0 {

constexpr sluice_config_field field(int32_t type, const char *key, const char *doc, const char *def, double min,
                                    double max, uint64_t flags, const char *choices = nullptr) {
  return {SLUICE_SIZE_THROUGH(sluice_config_field, max), type, flags, key, doc, def, choices, min, max};
}
constexpr sluice_config_field bool_field(const char *key, const char *doc, const char *def, uint64_t flags = 0) {
  return field(SLUICE_CFG_BOOL, key, doc, def, 1, 0, flags);
}
constexpr sluice_config_field i64_field(const char *key, const char *doc, const char *def, double min, double max,
                                        uint64_t flags = 0) {
  return field(SLUICE_CFG_I64, key, doc, def, min, max, flags);
}
constexpr sluice_config_field f64_field(const char *key, const char *doc, const char *def, double min, double max,
                                        uint64_t flags = 0) {
  return field(SLUICE_CFG_F64, key, doc, def, min, max, flags);
}
/// def is TOML, so a string has quotes: "\"auto\"". choices: "auto|on|off", nullptr = any text.
constexpr sluice_config_field str_field(const char *key, const char *doc, const char *def,
                                        const char *choices = nullptr, uint64_t flags = 0) {
  return field(SLUICE_CFG_STR, key, doc, def, 1, 0, flags, choices);
}
/// Array of strings; def such as "[\"a\", \"b\"]".
constexpr sluice_config_field list_field(const char *key, const char *doc, const char *def, uint64_t flags = 0) {
  return field(SLUICE_CFG_STR_LIST, key, doc, def, 1, 0, flags);
}
/// Table with keys of any name; read with Config::table() or Config::raw().
constexpr sluice_config_field table_field(const char *key, const char *doc, uint64_t flags = 0) {
  return field(SLUICE_CFG_TABLE, key, doc, nullptr, 1, 0, flags);
}

/// The options of one call, checked by the host: what is declared with a default is there, in range, of its type.
/// Valid during that call. The `otherwise` values serve options without a default.
class Config {
 public:
  Config(const sluice_host_api *host, const sluice_config *config) : host_(host), config_(config) {}

  int64_t i64(const char *key, int64_t otherwise = 0) const {
    int64_t v = 0;
    return config_ != nullptr && host_->cfg_i64(config_, key, &v) == SLUICE_OK ? v : otherwise;
  }
  double f64(const char *key, double otherwise = 0) const {
    double v = 0;
    return config_ != nullptr && host_->cfg_f64(config_, key, &v) == SLUICE_OK ? v : otherwise;
  }
  bool flag(const char *key, bool otherwise = false) const {
    int32_t v = 0;
    return config_ != nullptr && host_->cfg_bool(config_, key, &v) == SLUICE_OK ? v != 0 : otherwise;
  }
  std::string str(const char *key, const char *otherwise = "") const {
    const char *p = nullptr;
    size_t n = 0;
    return config_ != nullptr && host_->cfg_str(config_, key, &p, &n) == SLUICE_OK ? std::string(p, n) : otherwise;
  }
  std::vector<std::string> list(const char *key) const {
    std::vector<std::string> all;
    const char *p = nullptr;
    size_t n = 0;
    while (config_ != nullptr && host_->cfg_list(config_, key, static_cast<uint32_t>(all.size()), &p, &n) == SLUICE_OK)
      all.emplace_back(p, n);
    return all;
  }
  /// TOML text of a table, one `key = value` per line; empty when not set.
  std::string raw(const char *key) const {
    const char *p = nullptr;
    size_t n = 0;
    return config_ != nullptr && host_->cfg_raw(config_, key, &p, &n) == SLUICE_OK ? std::string(p, n) : std::string();
  }
  /// A table whose keys are ids and whose values are numbers, such as a logit bias.
  /// errors  INVALID_ARGUMENT names the key that is no id, or the value that is no number.
  std::vector<std::pair<int32_t, double>> table(const char *key) const;

 private:
  const sluice_host_api *host_;
  const sluice_config *config_;
};

namespace detail {
inline std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t' || s.front() == '\r')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r')) s.remove_suffix(1);
  return s;
}
template <class T> bool parse_whole(std::string_view s, T &out) {
  if (!s.empty() && s.front() == '+') s.remove_prefix(1);
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), out);
  return error == std::errc() && end == s.data() + s.size();
}
}  // namespace detail

inline std::vector<std::pair<int32_t, double>> Config::table(const char *key) const {
  std::vector<std::pair<int32_t, double>> pairs;
  const std::string text = raw(key);
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = rest.find('\n');
    const std::string_view line = detail::trim(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (line.empty()) continue;
    const size_t equals = line.find('=');
    std::string_view id = detail::trim(line.substr(0, equals));
    if (id.size() >= 2 && (id.front() == '"' || id.front() == '\'') && id.back() == id.front())
      id = id.substr(1, id.size() - 2);
    std::pair<int32_t, double> p{};
    if (!detail::parse_whole(id, p.first) || p.first < 0)
      throw Error(SLUICE_E_INVALID_ARGUMENT, std::string(key) + ": '" + std::string(id) + "' is not a token id");
    const auto value = equals == std::string_view::npos ? std::string_view() : detail::trim(line.substr(equals + 1));
    if (!detail::parse_whole(value, p.second) || std::isnan(p.second))
      throw Error(SLUICE_E_INVALID_ARGUMENT, std::string(key) + "." + std::string(id) + " is not a number");
    pairs.push_back(p);
  }
  return pairs;
}

}  // namespace v0
}  // namespace sluice::sdk

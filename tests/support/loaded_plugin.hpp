// A plugin's library, loaded and called through its tables alone, with a host that a test controls.
#pragma once
#include <dlfcn.h>
#include <sluice/abi.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace sluice::test {

/// Options as a host would pass them: every default of the schema, then what the test sets. A value is text, as in
/// TOML without quotes; a list has commas, a table is TOML lines.
/// Throws std::invalid_argument for an unknown key or a value out of range.
class PluginConfig {
 public:
  using Values = std::map<std::string, std::string>;
  PluginConfig(const sluice_plugin_desc &desc, const Values &set, bool with_defaults = true) {
    for (uint32_t i = 0; i < desc.n_fields; ++i) {
      const auto &field = *reinterpret_cast<const sluice_config_field *>(reinterpret_cast<const char *>(desc.fields) +
                                                                         size_t{i} * desc.field_stride);
      const auto given = set.find(field.key);
      if (given == set.end() && (field.def == nullptr || !with_defaults)) continue;
      put(field, given == set.end() ? plain(field.def) : given->second);
      known_ += given != set.end();
    }
    if (known_ != set.size()) throw std::invalid_argument("an option that the plugin does not publish");
  }
  const sluice_config *handle() const { return reinterpret_cast<const sluice_config *>(this); }
  static const PluginConfig &at(const sluice_config *c) { return *reinterpret_cast<const PluginConfig *>(c); }

  std::map<std::string, double> numbers;
  std::map<std::string, int64_t> integers;
  std::map<std::string, std::string> texts;
  std::map<std::string, std::vector<std::string>> lists;

 private:
  /// "\"a\"" -> a, "[\"a\", \"b\"]" -> a,b
  static std::string plain(const std::string &toml) {
    std::string out;
    for (const char c : toml)
      if (c != '"' && c != '[' && c != ']' && c != ' ') out += c;
    return out;
  }
  void put(const sluice_config_field &field, const std::string &text) {
    const double number = std::strtod(text.c_str(), nullptr);
    const bool bounded = field.min <= field.max && (field.type == SLUICE_CFG_I64 || field.type == SLUICE_CFG_F64);
    if (bounded && (number < field.min || number > field.max))
      throw std::invalid_argument(std::string(field.key) + " = " + text + " is out of range");
    switch (field.type) {
      case SLUICE_CFG_BOOL:
        integers[field.key] = text == "true";
        break;
      case SLUICE_CFG_I64:
        integers[field.key] = std::strtoll(text.c_str(), nullptr, 10);
        break;
      case SLUICE_CFG_F64:
        numbers[field.key] = number;
        break;
      case SLUICE_CFG_STR_LIST: {
        auto &list = lists[field.key];
        for (size_t at = 0; at < text.size();) {
          const size_t end = std::min(text.find(',', at), text.size());
          list.push_back(text.substr(at, end - at)), at = end + 1;
        }
        break;
      }
      default:
        texts[field.key] = text;
    }
  }
  size_t known_ = 0;
};

/// Time stands still unless the test moves it, or asks for the real clock.
class PluginHost {
 public:
  PluginHost() {
    api.struct_size = SLUICE_SIZE_THROUGH(sluice_host_api, get_extension);
    api.abi_major = SLUICE_ABI_MAJOR, api.abi_minor = SLUICE_ABI_MINOR, api.abi_floor = SLUICE_ABI_FLOOR;
    api.host_version = "0.0.0";
    api.host = reinterpret_cast<sluice_host *>(this);
    api.log = [](sluice_host *, int32_t, const char *, const char *, size_t) {};
    api.now_ns = [](sluice_host *h) { return reinterpret_cast<PluginHost *>(h)->now(); };
    api.cfg_bool = [](const sluice_config *c, const char *key, int32_t *out) {
      return get(PluginConfig::at(c).integers, key, out);
    };
    api.cfg_i64 = [](const sluice_config *c, const char *key, int64_t *out) {
      return get(PluginConfig::at(c).integers, key, out);
    };
    api.cfg_f64 = [](const sluice_config *c, const char *key, double *out) {
      return get(PluginConfig::at(c).numbers, key, out);
    };
    api.cfg_str = api.cfg_raw = [](const sluice_config *c, const char *key, const char **out, size_t *len) -> int32_t {
      const auto &texts = PluginConfig::at(c).texts;
      const auto found = texts.find(key);
      if (found == texts.end()) return SLUICE_E_NOT_FOUND;
      *out = found->second.data(), *len = found->second.size();
      return SLUICE_OK;
    };
    api.cfg_list = [](const sluice_config *c, const char *key, uint32_t i, const char **out, size_t *len) -> int32_t {
      const auto &lists = PluginConfig::at(c).lists;
      const auto found = lists.find(key);
      if (found == lists.end() || i >= found->second.size()) return SLUICE_E_NOT_FOUND;
      *out = found->second[i].data(), *len = found->second[i].size();
      return SLUICE_OK;
    };
    api.parallel_for = [](sluice_host *, uint32_t n, void (*fn)(void *, uint32_t, uint32_t), void *ctx) {
      for (uint32_t i = 0; i < n; ++i) fn(ctx, i, 0);
    };
    api.n_workers = [](sluice_host *) { return 1u; };
  }
  PluginHost(const PluginHost &) = delete;
  PluginHost &operator=(const PluginHost &) = delete;

  uint64_t now() const {
    if (!real_clock) return now_ns;
    return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  }

  sluice_host_api api{};
  uint64_t now_ns = 1'000'000;
  bool real_clock = false;

 private:
  template <class Map, class Out>
  static int32_t get(const Map &map, const char *key, Out *out) {
    const auto found = map.find(key);
    if (found == map.end()) return SLUICE_E_NOT_FOUND;
    *out = static_cast<Out>(found->second);
    return SLUICE_OK;
  }
};

/// libsluice_<kind>_<name>.so of the build. Throws std::runtime_error when it cannot be loaded or refuses.
inline const sluice_plugin_desc &load_plugin(const std::string &folder, const std::string &kind,
                                             const std::string &name, const PluginHost &host) {
  const std::string file = folder + "/libsluice_" + kind + "_" + name + ".so";
  void *library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) throw std::runtime_error(::dlerror());
  const auto entry = reinterpret_cast<sluice_plugin_entry_fn>(::dlsym(library, SLUICE_PLUGIN_ENTRY_NAME));
  if (entry == nullptr) throw std::runtime_error(file + " has no entry symbol");
  sluice_status status{};
  status.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
  const sluice_plugin_desc *desc = entry(&host.api, &status);
  if (desc == nullptr) throw std::runtime_error(status.msg);
  return *desc;
}

/// A status that a test passes along; text() is what a failed call said.
struct PluginStatus {
  PluginStatus() { raw.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg); }
  std::string text() const { return {raw.msg, raw.msg_len}; }
  operator sluice_status *() { return &raw; }
  sluice_status raw{};
};

}  // namespace sluice::test

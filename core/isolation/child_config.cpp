#include "core/isolation/child_config.hpp"

#include <sluice/abi/config.h>

namespace sluice::isolation {

ChildConfig ChildConfig::read(Unpacker &reader) {
  ChildConfig config;
  config.present_ = reader.get<uint32_t>() != 0;
  const auto n = reader.get<uint32_t>();
  for (uint32_t f = 0; f < n && reader.ok(); ++f) {
    const std::string key = reader.text();
    Value value;
    value.type = reader.get<int32_t>();
    const auto set = reader.get<uint32_t>();
    if (set == 0) continue;
    switch (value.type) {
      case SLUICE_CFG_BOOL: reader.value(value.boolean); break;
      case SLUICE_CFG_I64: reader.value(value.integer); break;
      case SLUICE_CFG_F64: reader.value(value.real); break;
      case SLUICE_CFG_STR_LIST:
        for (uint32_t i = 1; i < set && reader.ok(); ++i) value.texts.push_back(reader.text());
        break;
      default: value.texts.push_back(reader.text());
    }
    config.values_[key] = std::move(value);
  }
  return config;
}

const ChildConfig::Value *ChildConfig::find(const sluice_config *config, const char *key, int32_t type) {
  if (config == nullptr || key == nullptr) return nullptr;
  const auto &values = reinterpret_cast<const ChildConfig *>(config)->values_;
  const auto at = values.find(key);
  return at == values.end() || at->second.type != type ? nullptr : &at->second;
}

void ChildConfig::set_getters(sluice_host_api &api) {
  api.cfg_bool = [](const sluice_config *c, const char *key, int32_t *out) {
    const Value *v = find(c, key, SLUICE_CFG_BOOL);
    if (v != nullptr) *out = v->boolean;
    return v == nullptr ? SLUICE_E_NOT_FOUND : SLUICE_OK;
  };
  api.cfg_i64 = [](const sluice_config *c, const char *key, int64_t *out) {
    const Value *v = find(c, key, SLUICE_CFG_I64);
    if (v != nullptr) *out = v->integer;
    return v == nullptr ? SLUICE_E_NOT_FOUND : SLUICE_OK;
  };
  api.cfg_f64 = [](const sluice_config *c, const char *key, double *out) {
    const Value *v = find(c, key, SLUICE_CFG_F64);
    if (v != nullptr) *out = v->real;
    return v == nullptr ? SLUICE_E_NOT_FOUND : SLUICE_OK;
  };
  api.cfg_str = [](const sluice_config *c, const char *key, const char **out, size_t *len) {
    const Value *v = find(c, key, SLUICE_CFG_STR);
    if (v == nullptr) return SLUICE_E_NOT_FOUND;
    *out = v->texts.front().data(), *len = v->texts.front().size();
    return SLUICE_OK;
  };
  api.cfg_raw = [](const sluice_config *c, const char *key, const char **out, size_t *len) {
    const Value *v = find(c, key, SLUICE_CFG_TABLE);
    if (v == nullptr) return SLUICE_E_NOT_FOUND;
    *out = v->texts.front().data(), *len = v->texts.front().size();
    return SLUICE_OK;
  };
  api.cfg_list = [](const sluice_config *c, const char *key, uint32_t i, const char **out, size_t *len) {
    const Value *v = find(c, key, SLUICE_CFG_STR_LIST);
    if (v == nullptr || i >= v->texts.size()) return SLUICE_E_NOT_FOUND;
    *out = v->texts[i].data(), *len = v->texts[i].size();
    return SLUICE_OK;
  };
}

}  // namespace sluice::isolation

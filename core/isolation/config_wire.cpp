#include "core/isolation/messages.hpp"

namespace sluice::isolation {

void pack_config(Packer &packer, const sluice_host_api &api, const sluice_config *config,
                 const sluice_config_field *fields, uint32_t n_fields) {
  packer.value<uint32_t>(config != nullptr);
  packer.value<uint32_t>(config == nullptr ? 0 : n_fields);
  for (uint32_t f = 0; config != nullptr && f < n_fields; ++f) {
    const char *key = fields[f].key;
    const char *text = nullptr;
    size_t length = 0;
    packer.text(key);
    packer.value<int32_t>(fields[f].type);
    const auto set = [&](int32_t code) {
      packer.value<uint32_t>(code == SLUICE_OK);
      return code == SLUICE_OK;
    };
    switch (fields[f].type) {
      case SLUICE_CFG_BOOL: {
        int32_t value = 0;
        if (set(api.cfg_bool(config, key, &value))) packer.value(value);
        break;
      }
      case SLUICE_CFG_I64: {
        int64_t value = 0;
        if (set(api.cfg_i64(config, key, &value))) packer.value(value);
        break;
      }
      case SLUICE_CFG_F64: {
        double value = 0;
        if (set(api.cfg_f64(config, key, &value))) packer.value(value);
        break;
      }
      case SLUICE_CFG_STR:
        if (set(api.cfg_str(config, key, &text, &length))) packer.text({text, length});
        break;
      case SLUICE_CFG_TABLE:
        if (set(api.cfg_raw(config, key, &text, &length))) packer.text({text, length});
        break;
      case SLUICE_CFG_STR_LIST: {
        uint32_t n = 0;
        while (api.cfg_list(config, key, n, &text, &length) == SLUICE_OK) ++n;
        packer.value<uint32_t>(n + 1);  // never "not set": an empty list and none read the same
        for (uint32_t i = 0; i < n; ++i)
          if (api.cfg_list(config, key, i, &text, &length) == SLUICE_OK) packer.text({text, length});
        break;
      }
      default: set(SLUICE_E_NOT_FOUND);
    }
  }
}

}  // namespace sluice::isolation

#pragma once
#include <sluice/abi/host.h>

#include <map>
#include <string>
#include <vector>

#include "core/isolation/archive.hpp"

namespace sluice::isolation {

/// Options as they came from the server; what a sluice_config* of the child points to.
class ChildConfig {
 public:
  /// errors  reader.ok() is false afterwards
  static ChildConfig read(Unpacker &reader);
  /// Null when the server passed none.
  const sluice_config *handle() const { return present_ ? reinterpret_cast<const sluice_config *>(this) : nullptr; }
  /// The six getters of host.h.
  static void set_getters(sluice_host_api &api);

 private:
  struct Value {
    int32_t type = 0;  ///< SLUICE_CFG_*
    int32_t boolean = 0;
    int64_t integer = 0;
    double real = 0;
    std::vector<std::string> texts;
  };
  static const Value *find(const sluice_config *config, const char *key, int32_t type);
  bool present_ = false;
  std::map<std::string, Value> values_;
};

}  // namespace sluice::isolation

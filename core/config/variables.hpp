#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/config/fields.hpp"

namespace sluice::config {

/// A table of the configuration: "server" or "models.NAME", with the fields of its object.
struct Section {
  std::string name;
  std::vector<Field> fields;

  const Field *field(const std::string &key) const;
  /// True when fields are called `key.something`.
  bool has_group(const std::string &key) const;
};

/// "SLUICE_MODELS__TINY__KV__MEMORY" for field kv.memory of models.tiny; what is no letter or digit becomes `_`.
std::string variable_name(const Section &section, const Field &field);

/// Which field a variable sets.
class Variables {
 public:
  /// sections  must outlive this
  explicit Variables(const std::vector<Section> &sections);

  struct Meant {
    const Section *section = nullptr;
    const Field *field = nullptr;
    std::string wrong;  ///< why there is no field
  };
  Meant find(const std::string &name) const;

 private:
  std::string advice(const std::string &name) const;

  std::map<std::string, std::vector<Meant>> by_name_;
};

/// The variables that are addressed to the configuration, SLUICE_x__y, sorted by name.
/// environment  as `environ`: name=value, ending with a null pointer
std::map<std::string, std::string> sluice_environment(const char *const *environment);

/// A full key taken apart: "models.tiny", "tiny" and "kv.memory", or "server", "" and "port".
/// The name of a model may have dots, and quotes around it.
struct KeyParts {
  std::string section, model, leaf;
};
KeyParts split_key(const std::string &key);

/// Says that a key is unknown and which known one comes nearest, with its doc.
/// section  where it stood; null when that is unknown as well
std::string unknown_key(const std::string &key, const Section *section, const std::vector<Section> &sections);

}  // namespace sluice::config

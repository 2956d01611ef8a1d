#pragma once
#include <chrono>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/config/config.hpp"

namespace sluice::config {

/// The member that a field sets; its type is the field's type. uint64_t is a size in bytes.
using Slot =
    std::variant<std::string *, bool *, uint16_t *, uint32_t *, uint64_t *, std::chrono::milliseconds *,
                 std::vector<std::string> *, PluginUse *, std::vector<PluginUse> *, std::optional<PluginUse> *>;

/// The one declaration of a configuration key. File, environment, flags, print() and reference() all read it.
struct Field {
  std::string key;  ///< in its section: "port", "kv.memory"
  Slot slot;
  std::string doc;              ///< one line, no full stop
  uint64_t min = 0, max = 0;    ///< of numbers; bytes for sizes, milliseconds for durations
  bool auto_is_zero = false;    ///< "auto" is a value, kept as 0, which is then not a number one may write
  bool is_path = false;         ///< made absolute
  bool is_secret = false;       ///< never shown
  bool engine_does_it = false;  ///< has no meaning for a model with an engine
  bool may_be_isolated = false; ///< a plugin that may live in a process of its own
  std::vector<std::string> choices = {};
};

// The fields of a section, pointing into the object given, which must outlive them.
std::vector<Field> fields_of(Server &server);
std::vector<Field> fields_of(Plugins &plugins);
std::vector<Field> fields_of(Model &model);

}  // namespace sluice::config

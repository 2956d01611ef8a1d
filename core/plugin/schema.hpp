#pragma once
#include <sluice/abi/config.h>

#include <cstddef>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/base/error.hpp"

namespace sluice::plugin {

/// A table of free keys, as TOML text with one `key = value` per line.
struct TableText {
  std::string toml;
  friend bool operator==(const TableText &, const TableText &) = default;
};

/// The value of an option; the alternative is the one of its field's type.
using Value = std::variant<bool, int64_t, double, std::string, std::vector<std::string>, TableText>;

/// One option that a plugin publishes, copied out of its memory and checked.
struct OptionField {
  std::string key;  ///< dotted
  std::string doc;
  int32_t type = 0;    ///< SLUICE_CFG_*
  uint64_t flags = 0;  ///< SLUICE_CFGF_*
  std::vector<std::string> choices;
  bool bounded = false;  ///< min and max count
  double min = 0, max = 0;
  std::optional<Value> fallback;  ///< the default
  std::string fallback_text;      ///< as the plugin wrote it

  bool per_request() const { return (flags & SLUICE_CFGF_PER_REQUEST) != 0; }
  /// "an integer 1..24", "one of auto, on, off"
  std::string expectation() const;
};

/// The options of a plugin. Immutable. Always: keys are unique, and each default fits its own field.
class Schema {
 public:
  /// plugin  for messages: "scheduler mlfq"
  /// fields  [n] entries, stride bytes apart; memory of a plugin, so nothing in it is trusted
  /// errors  InvalidArgument, naming plugin and field
  static Result<Schema> create(std::string plugin, const sluice_config_field *fields, size_t n, size_t stride);

  const std::string &plugin() const { return plugin_; }
  const std::vector<OptionField> &fields() const { return fields_; }
  /// Index into fields(), or nothing.
  std::optional<size_t> find(const std::string &key) const;
  /// Whether some key lies below `prefix` + ".".
  bool has_below(const std::string &prefix) const;
  std::vector<std::string> keys(bool per_request_only = false) const;
  /// " (the doc of the nearest key)" as the tail of a message about an unknown one; empty when none is near.
  std::string suggestion(const std::string &unknown, bool per_request_only = false) const;

 private:
  std::string plugin_;
  std::vector<OptionField> fields_;  // by key
};

/// Whether the value fits the field. returns  what is wrong with it ("is 7; it must be 1..5"), or nothing.
std::optional<std::string> wrong_with(const OptionField &field, const Value &value);

/// A value as TOML; strings quoted.
std::string to_toml(const Value &value);

}  // namespace sluice::plugin

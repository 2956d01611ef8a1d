#pragma once
#include <sluice/abi/host.h>

#include <boost/json/fwd.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/error.hpp"
#include "core/plugin/schema.hpp"

namespace sluice::config {
class OptionTable;
struct Origin;
struct Problem;
}  // namespace sluice::config

namespace sluice::plugin {

/// Values for a schema: what a plugin sees behind `const sluice_config *`. Immutable.
/// Always: every value fits its field, and a field with a default has a value.
class Options {
 public:
  /// The defaults alone. errors: InvalidArgument when an option is required.
  static Result<std::shared_ptr<const Options>> defaults(std::shared_ptr<const Schema> schema);

  /// From a plugin's table in the configuration file.
  ///
  /// where     the table's key, for messages: "models.chat.scheduler"
  /// origin    of the table; a value with a position of its own is reported at that line
  /// problems  everything that is wrong is appended: unknown key (with the nearest one and its doc), type, range,
  ///           choice, required but absent
  /// returns   null when something was appended
  static std::shared_ptr<const Options> from_toml(std::shared_ptr<const Schema> schema,
                                                  const config::OptionTable &table, const std::string &where,
                                                  const config::Origin &origin,
                                                  std::vector<config::Problem> &problems);

  /// From the fields of a request that belong to this plugin: PER_REQUEST options only, dotted keys as they are. null
  /// means not set. What the request leaves out is as in `base`.
  /// errors  InvalidArgument; `param` is the field, the message does not repeat the plugin's name to the client
  static Result<std::shared_ptr<const Options>> from_json(const Options &base, const boost::json::object &fields);

  const Schema &schema() const { return *schema_; }
  /// For the plugin; valid as long as this object.
  const sluice_config *handle() const { return reinterpret_cast<const sluice_config *>(this); }
  static const Options *of(const sluice_config *handle) { return reinterpret_cast<const Options *>(handle); }

  /// Null for an unknown key, or one without value and default.
  const Value *find(const std::string &key) const;
  /// Whether a file or a request said so, as opposed to the plugin's default.
  bool is_set(const std::string &key) const;

 private:
  explicit Options(std::shared_ptr<const Schema> schema);

  std::shared_ptr<const Schema> schema_;
  std::vector<std::optional<Value>> values_;  // by index of the schema's fields
  std::vector<char> set_;
};

/// Puts the cfg_* getters into a host table. They take null configs and keys of plugins that ask for nonsense.
void set_config_getters(sluice_host_api &api);

}  // namespace sluice::plugin

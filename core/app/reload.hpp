#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/app/model_runtime.hpp"
#include "core/config/config.hpp"
#include "core/metrics/registry.hpp"

namespace sluice::app {

/// Reads the configuration again and brings into force what can change while the server runs: the scheduler of each
/// model and its options. All of it is checked first; with a problem anywhere everything stays as it is. What needs a
/// restart is named in the log.
/// thread  [init], the main one
class Reloader {
 public:
  /// input   as at the start;  loaded  what it gave;  house, metrics  borrowed
  Reloader(config::LoadInput input, const config::Loaded &loaded, PluginHouse &house, metrics::Registry &metrics);

  /// A model that is ready, with the scheduler it was started with.
  void add(const std::string &model, ModelRuntime &runtime, const ConfiguredPlugin &scheduler);

  /// Whether all of the file is good. What happened is in the log, and in sluice_config_reload_success.
  bool reload();

 private:
  struct Live {
    ModelRuntime *runtime;
    ConfiguredPlugin scheduler;
  };
  bool apply(const config::Loaded &fresh);
  std::vector<std::string> changed_keys(const config::Loaded &fresh) const;

  const config::LoadInput input_;
  std::map<std::string, std::string> in_force_;  ///< by key, as TOML
  std::vector<std::string> api_keys_;            ///< which in_force_ has masked
  PluginHouse &house_;
  std::map<std::string, Live> live_;
  metrics::Gauge success_;
};

/// Whether two sets of options for one plugin differ at most in those that a running instance takes.
bool only_hot_options_differ(const plugin::Options &a, const plugin::Options &b);

}  // namespace sluice::app

#pragma once
#include <chrono>
#include <memory>
#include <vector>

#include "core/base/clock.hpp"
#include "core/config/config.hpp"
#include "core/plugin/host.hpp"
#include "core/plugin/options.hpp"
#include "core/plugin/registry.hpp"

namespace sluice::app {

/// A plugin that a model uses, loaded, with its options as the file gave them.
struct ConfiguredPlugin {
  const plugin::Library *library = nullptr;
  std::shared_ptr<const plugin::Options> options;
  bool own_process = false;
};

/// The plugins of one model: an engine alone, or all the others.
struct ModelPlugins {
  ConfiguredPlugin engine;
  ConfiguredPlugin backend, scheduler, decoder;
  std::vector<ConfiguredPlugin> samplers;
  std::chrono::milliseconds call_deadline{30'000};
};

/// Everything that is loaded once per process: the plugin files and the services they are offered.
/// thread  [init], on the main thread before any other exists; constant afterwards
class PluginHouse {
 public:
  /// clock, metrics  borrowed for the life of the process; metrics may be null
  static Result<std::unique_ptr<PluginHouse>> open(const config::Plugins &plugins, const Clock &clock,
                                                   metrics::Registry *metrics);

  plugin::Registry &registry() { return registry_; }
  plugin::Host &host() { return host_; }

  /// Loads the libraries that run in this process, for every model, before anything starts a thread. What fails is
  /// reported by configure().
  void load_libraries(const config::Config &config);

  /// Loads what the model names and checks its options against the schemas. Every problem is appended.
  ModelPlugins configure(const config::Model &model, std::vector<config::Problem> &problems);

  /// One plugin. where  its key, for messages. What is wrong is appended; then the library or the options are null.
  ConfiguredPlugin configure_one(uint64_t kind, const config::PluginUse &use, const std::string &where,
                                 std::vector<config::Problem> &problems);

 private:
  PluginHouse(const std::vector<std::string> &folders, const config::Plugins &plugins, const Clock &clock,
              metrics::Registry *metrics);

  Result<const plugin::Library *> load_isolated(uint64_t kind, const std::string &name);

  plugin::Host host_;
  plugin::Registry registry_;
  std::vector<std::unique_ptr<plugin::Library>> isolated_;  ///< those whose code runs in processes of their own
  const std::chrono::milliseconds call_deadline_;
};

/// Loads and checks the plugins of every model, for `config check`. Problems are appended.
void check_plugins(const config::Config &config, std::vector<config::Problem> &problems);

}  // namespace sluice::app

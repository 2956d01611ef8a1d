#include "core/app/plugins.hpp"

#include <fmt/format.h>

#include "core/app/version.hpp"
#include "core/isolation/isolated_plugin.hpp"

namespace sluice::app {

Result<std::unique_ptr<PluginHouse>> PluginHouse::open(const config::Plugins &plugins, const Clock &clock,
                                                       metrics::Registry *metrics) {
  auto folders = plugin::search_folders(plugins.dirs);
  if (!folders) return folders.error();
  return std::unique_ptr<PluginHouse>(new PluginHouse(*folders, plugins, clock, metrics));
}

PluginHouse::PluginHouse(const std::vector<std::string> &folders, const config::Plugins &plugins,
                         const Clock &clock, metrics::Registry *metrics)
    : host_({.clock = &clock, .metrics = metrics, .n_workers = 0, .version = kVersion}),
      registry_(folders, plugins.insecure),
      call_deadline_(plugins.call_deadline) {}

ConfiguredPlugin PluginHouse::configure_one(uint64_t kind, const config::PluginUse &use, const std::string &where,
                                            std::vector<config::Problem> &problems) {
  ConfiguredPlugin out;
  auto library = use.own_process ? load_isolated(kind, use.name) : registry_.load(kind, use.name, *host_.api());
  if (!library) {
    problems.push_back({use.origin, fmt::format("{}: {}", where, library.error().message)});
    return out;
  }
  out.library = *library;
  out.own_process = use.own_process;
  out.options = plugin::Options::from_toml(out.library->schema, use.options, where, use.origin, problems);
  return out;
}

Result<const plugin::Library *> PluginHouse::load_isolated(uint64_t kind, const std::string &name) {
  const auto found = registry_.find(kind, name);
  if (!found) return found.error();
  for (const auto &library : isolated_)
    if (library->path == (*found)->path) return library.get();
  isolation::IsolationOptions options;
  options.times.call = call_deadline_;
  auto library = isolation::load_isolated((*found)->path, (*found)->metadata, options);
  if (!library) return library.error();
  isolated_.push_back(std::make_unique<plugin::Library>(std::move(*library)));
  return isolated_.back().get();
}

void PluginHouse::load_libraries(const config::Config &config) {
  const auto load = [this](uint64_t kind, const config::PluginUse &use) {
    if (!use.own_process) (void)registry_.load(kind, use.name, *host_.api());
  };
  for (const auto &model : config.models) {
    if (model.engine) {
      load(SLUICE_KIND_ENGINE, *model.engine);
      continue;
    }
    load(SLUICE_KIND_BACKEND, model.backend);
    load(SLUICE_KIND_SCHEDULER, model.scheduler);
    for (const auto &sampler : model.samplers) load(SLUICE_KIND_SAMPLER, sampler);
    load(SLUICE_KIND_DECODER, model.decoder);
  }
}

ModelPlugins PluginHouse::configure(const config::Model &model, std::vector<config::Problem> &problems) {
  ModelPlugins out;
  out.call_deadline = call_deadline_;
  const std::string where = "models." + model.name + ".";
  if (model.engine) {
    out.engine = configure_one(SLUICE_KIND_ENGINE, *model.engine, where + "engine", problems);
    return out;
  }
  out.backend = configure_one(SLUICE_KIND_BACKEND, model.backend, where + "backend", problems);
  out.scheduler = configure_one(SLUICE_KIND_SCHEDULER, model.scheduler, where + "scheduler", problems);
  for (size_t i = 0; i < model.samplers.size(); ++i)
    out.samplers.push_back(
        configure_one(SLUICE_KIND_SAMPLER, model.samplers[i], fmt::format("{}samplers[{}]", where, i), problems));
  out.decoder = configure_one(SLUICE_KIND_DECODER, model.decoder, where + "decoder", problems);
  return out;
}

void check_plugins(const config::Config &config, std::vector<config::Problem> &problems) {
  const SteadyClock clock;
  auto house = PluginHouse::open(config.plugins, clock, nullptr);
  if (!house) {
    problems.push_back({{}, house.error().message});
    return;
  }
  (*house)->load_libraries(config);
  for (const auto &model : config.models) (*house)->configure(model, problems);
}

}  // namespace sluice::app

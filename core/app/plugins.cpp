#include "core/app/plugins.hpp"

#include <fmt/format.h>

#include "core/app/version.hpp"
#include "core/isolation/isolated_plugin.hpp"
#include "core/plugin/instances.hpp"

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

namespace {

/// What a decoder may find once the model is loaded: more of everything than it could ask for.
sluice_model_info stand_in_for(const config::Model &model) {
  sluice_model_info info{};
  info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
  info.vocab_size = 1 << 20;
  info.max_context = model.context != 0 ? model.context : 1 << 20;
  info.n_kv_groups = 1;
  info.max_seqs = model.max_seqs;
  if (!model.draft_heads.empty()) info.n_heads = 64, info.head_top = 1024;
  info.caps = ~uint64_t{0};
  return info;
}

/// A decoder's own judgement of its options, and whether the model that it drafts with is there.
void check_decoder(PluginHouse &house, const config::Config &config, const config::Model &model,
                   const ConfiguredPlugin &use, std::vector<config::Problem> &problems) {
  if (use.library == nullptr || !use.options || use.own_process) return;
  const auto report = [&](const std::string &what) {
    problems.push_back({model.decoder.origin, fmt::format("models.{}.decoder: {}", model.name, what)});
  };
  const auto decoder = plugin::Decoder::create(*use.library, house.host().api_for(model.name, use.library->title()),
                                               *use.options, model.max_seqs, stand_in_for(model));
  if (!decoder) return report(decoder.error().message);
  const char *drafts_with = (*decoder)->needs().draft_model;
  if (drafts_with == nullptr) return;
  for (const auto &other : config.models) {
    if (other.name != drafts_with) continue;
    if (other.engine) report(fmt::format("model {} has an engine of its own; a draft model has a backend", drafts_with));
    if (&other == &model) report(fmt::format("model {} would draft for itself", drafts_with));
    return;
  }
  report(fmt::format("it drafts with the model '{}'; there is no [models.{}]", drafts_with, drafts_with));
}

}  // namespace

void check_plugins(const config::Config &config, std::vector<config::Problem> &problems) {
  const SteadyClock clock;
  auto house = PluginHouse::open(config.plugins, clock, nullptr);
  if (!house) {
    problems.push_back({{}, house.error().message});
    return;
  }
  (*house)->load_libraries(config);
  for (const auto &model : config.models) {
    const size_t n = problems.size();
    const auto plugins = (*house)->configure(model, problems);
    if (problems.size() == n) check_decoder(**house, config, model, plugins.decoder, problems);
  }
}

}  // namespace sluice::app

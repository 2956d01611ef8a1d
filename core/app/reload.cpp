#include "core/app/reload.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/log.hpp"

namespace sluice::app {
namespace {

std::map<std::string, std::string> values_of(const config::Loaded &loaded) {
  std::map<std::string, std::string> out;
  for (const auto &line : loaded.lines) out[line.key] = line.value;
  return out;
}

std::string scheduler_key(const config::Model &model) { return "models." + model.name + ".scheduler"; }

}  // namespace

bool only_hot_options_differ(const plugin::Options &a, const plugin::Options &b) {
  for (const auto &field : a.schema().fields()) {
    const auto *before = a.find(field.key), *after = b.find(field.key);
    const bool same = before == nullptr || after == nullptr ? before == after
                                                            : plugin::to_toml(*before) == plugin::to_toml(*after);
    if (!same && (field.flags & SLUICE_CFGF_HOT) == 0) return false;
  }
  return true;
}

Reloader::Reloader(config::LoadInput input, const config::Loaded &loaded, PluginHouse &house,
                   metrics::Registry &metrics)
    : input_(std::move(input)),
      in_force_(values_of(loaded)),
      api_keys_(loaded.config.server.api_keys),
      house_(house),
      success_(metrics.gauge("sluice_config_reload_success", "1 while the last reload, or the start, was good")) {
  success_.set(1);
}

void Reloader::add(const std::string &model, ModelRuntime &runtime, const ConfiguredPlugin &scheduler) {
  if (scheduler.library != nullptr) live_[model] = {&runtime, scheduler};  // an engine plugin schedules by itself
}

bool Reloader::reload() {
  const auto fresh = config::load(input_);
  const bool good = fresh.problems.empty() && apply(fresh);
  for (const auto &problem : fresh.problems) log::error("reload", "{}", config::to_string(problem));
  if (!fresh.problems.empty())
    log::error("reload", "{} problem(s) in {}; everything stays as it was", fresh.problems.size(), input_.path);
  success_.set(good ? 1 : 0);
  return good;
}

std::vector<std::string> Reloader::changed_keys(const config::Loaded &fresh) const {
  std::vector<std::string> out;
  const auto now = values_of(fresh);
  for (const auto &[key, value] : now)
    if (const auto it = in_force_.find(key); it == in_force_.end() || it->second != value) out.push_back(key);
  for (const auto &[key, value] : in_force_)
    if (now.count(key) == 0) out.push_back(key);
  if (fresh.config.server.api_keys != api_keys_) out.emplace_back("server.api_keys");
  return out;
}

bool Reloader::apply(const config::Loaded &fresh) {
  std::vector<config::Problem> problems;
  std::map<std::string, ConfiguredPlugin> wanted;
  for (const auto &model : fresh.config.models) wanted[model.name] = house_.configure(model, problems).scheduler;
  for (const auto &problem : problems) log::error("reload", "{}", config::to_string(problem));
  if (!problems.empty()) {
    log::error("reload", "{} problem(s) with plugins; everything stays as it was", problems.size());
    return false;
  }
  auto changed = changed_keys(fresh);
  if (changed.empty()) log::info("reload", "{} says what is in force already", input_.path);
  const auto values = values_of(fresh);
  bool good = true;
  for (const auto &model : fresh.config.models) {
    const std::string key = scheduler_key(model);
    const auto at = std::find(changed.begin(), changed.end(), key);
    const auto live = live_.find(model.name);
    if (at == changed.end() || live == live_.end() || wanted[model.name].library == nullptr) continue;
    changed.erase(at);
    const auto &to = wanted[model.name];
    auto &from = live->second.scheduler;
    const bool fresh_instance = to.library != from.library || !only_hot_options_differ(*from.options, *to.options);
    if (auto r = live->second.runtime->change_scheduler(to, fresh_instance); !r) {
      log::error("reload", "{}: {}; it stays {}", key, r.error().message, in_force_[key]);
      good = false;
      continue;
    }
    log::info("reload", "{} is now {} (was {}){}", key, values.at(key), in_force_[key],
              fresh_instance ? ", in a new instance that has heard of everybody" : "");
    from = to;
    in_force_[key] = values.at(key);
  }
  for (const auto &key : changed) log::warn("reload", "{} has changed; that needs a restart", key);
  return good;
}

}  // namespace sluice::app

#include "core/app/served.hpp"

#include <boost/json/object.hpp>
#include <chrono>
#include <map>

#include "core/base/log.hpp"

namespace sluice::app {
namespace {

lifecycle::RequestSchema request_schema(const ConfiguredPlugin &use,
                                        std::function<Result<>(const plugin::Options &)> judge) {
  lifecycle::RequestSchema out;
  out.plugin = use.library->metadata.name;
  out.keys = use.library->schema->keys(true);
  if (const auto *beams = use.options->find("num_beams"); beams != nullptr && std::holds_alternative<int64_t>(*beams))
    out.default_beams = static_cast<uint32_t>(std::get<int64_t>(*beams));
  out.validate = [base = use.options, judge = std::move(judge)](const boost::json::object &fields)
      -> Result<std::shared_ptr<const plugin::Options>> {
    auto options = plugin::Options::from_json(*base, fields);
    if (!options) return options.error();
    if (auto r = judge(**options); !r) return r.error();
    return *options;
  };
  return out;
}

}  // namespace

std::shared_ptr<lifecycle::ServedModel> make_served(const config::Model &model, metrics::Registry &metrics) {
  auto served = std::make_shared<lifecycle::ServedModel>();
  served->name = model.name;
  served->aliases = model.aliases;
  served->created_unix_s =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  served->metrics = metrics::ModelMetrics(metrics, model.name);
  return served;
}

void attach(lifecycle::ServedModel &served, const ModelRuntime &runtime, const ModelPlugins &plugins,
            std::shared_ptr<request::Generator> generator) {
  served.tokenizer = runtime.tokenizer();
  served.chat_template = runtime.chat_template();
  served.generator = std::move(generator);
  if (plugins.engine.library != nullptr) {  // an engine samples by itself, so it stands in the samplers' place
    served.samplers.push_back(request_schema(plugins.engine, [](const plugin::Options &) { return Result<>{}; }));
    return served.state.ready();
  }
  for (size_t i = 0; i < plugins.samplers.size(); ++i)
    served.samplers.push_back(request_schema(
        plugins.samplers[i], [&runtime, i](const plugin::Options &o) { return runtime.validate_for_sampler(i, o); }));
  served.decoder = request_schema(
      plugins.decoder, [&runtime](const plugin::Options &o) { return runtime.validate_for_decoder(o); });
  served.decoder->samples_drafts = runtime.samples_drafts();
  const auto &from = runtime.defaults();
  served.defaults.temperature = from.temperature;
  served.defaults.top_p = from.top_p;
  served.defaults.min_p = from.min_p;
  served.defaults.repetition_penalty = from.repetition_penalty;
  if (from.top_k) served.defaults.top_k = *from.top_k;
  served.state.ready();
}

LoadHooks progress_hooks(Progress &progress, lifecycle::ServedModel *served) {
  LoadHooks hooks;
  hooks.progress = [&progress, served, last = std::string()](const std::string &phase, uint64_t done,
                                                             uint64_t total) mutable {
    if (served != nullptr) served->state.loading(phase, done, total);
    if (phase != last) progress.phase(phase, total);
    last = phase;
    progress.advance(done);
  };
  hooks.phase_done = [&progress](const std::string &detail) { progress.done(detail); };
  return hooks;
}

void configure_log(const config::Server &server) {
  const std::map<std::string, log::Level> levels = {{"trace", log::Level::kTrace}, {"debug", log::Level::kDebug},
                                                    {"info", log::Level::kInfo},   {"warn", log::Level::kWarn},
                                                    {"error", log::Level::kError}};
  const auto level = levels.find(server.log_level);
  log::configure(level == levels.end() ? log::Level::kInfo : level->second,
                 server.log_format == "json"   ? log::Format::kJson
                 : server.log_format == "text" ? log::Format::kText
                                               : log::Format::kAuto);
}

}  // namespace sluice::app

#include "core/app/local_model.hpp"

#include <fmt/format.h>

#include <boost/json/object.hpp>

#include "core/app/paths.hpp"
#include "core/base/log.hpp"

namespace sluice::app {

Result<std::unique_ptr<LocalModel>> LocalModel::load(const Options &options) {
  if (options.quiet) log::configure(log::Level::kWarn, log::Format::kText);
  std::unique_ptr<LocalModel> out(new LocalModel);
  auto house = PluginHouse::open({}, out->clock_, nullptr);
  if (!house) return house.error();
  out->house_ = std::move(*house);
  config::Model model;
  model.name = "local";
  model.path = absolute_path(options.path.empty() ? default_model_path() : options.path);
  if (!options.heads_path.empty()) model.draft_heads = absolute_path(options.heads_path);
  model.backend.name = options.backend;
  model.context = options.context;
  model.max_seqs = options.max_seqs;
  model.token_budget = std::max(model.token_budget, options.max_seqs);
  out->token_budget_ = model.token_budget;
  model.decoder.name = options.decoder;
  std::string text;
  for (const auto &option : options.decoder_options) text += option + "\n";
  if (!options.draft_path.empty()) text += "model = 'draft'\n";
  try {
    model.decoder.options = toml::parse(text);
  } catch (const toml::parse_error &e) {
    return invalid_argument(fmt::format("the decoder's options: {}", e.description()));
  }
  std::vector<config::Problem> problems;
  const auto plugins = out->house_->configure(model, problems);
  if (!problems.empty()) return invalid_argument(problems.front().message);

  Progress progress;
  out->served_ = make_served(model, out->metrics_);
  auto hooks = progress_hooks(progress, nullptr);
  if (!options.draft_path.empty())
    hooks.find_model = [path = absolute_path(options.draft_path), backend = plugins.backend](const std::string &) {
      return DraftModelSource{path, backend};
    };
  auto runtime = ModelRuntime::load(model, plugins, out->house_->host(), out->clock_, 4 * options.max_seqs, hooks);
  if (!runtime) return runtime.error();
  out->runtime_ = std::move(*runtime);
  attach(*out->served_, *out->runtime_, plugins, out->runtime_->generator());
  return out;
}

Result<request::Request> LocalModel::make_request(std::vector<int32_t> prompt, uint32_t max_new, uint64_t seed,
                                                  const boost::json::object &sampling) {
  request::Request request;
  request.id = next_id_++;
  request.arrival_ns = clock_.now_ns();
  request.seed = seed;
  request.stop_tokens = tokenizer().end_tokens();
  const auto limits = generator().limits();
  if (prompt.size() >= limits.max_context)
    return invalid_argument(fmt::format("the prompt has {} tokens; the context is {}", prompt.size(),
                                        limits.max_context), "prompt");
  request.max_new = std::min(max_new, limits.max_context - static_cast<uint32_t>(prompt.size()));
  request.prompt = std::move(prompt);

  boost::json::object wanted = sampling;
  const auto fall_back = [&](const char *key, const auto &value) {
    if (value && !wanted.contains(key)) wanted[key] = *value;
  };
  fall_back("temperature", served_->defaults.temperature);
  fall_back("top_p", served_->defaults.top_p);
  fall_back("min_p", served_->defaults.min_p);
  fall_back("top_k", served_->defaults.top_k);
  fall_back("repetition_penalty", served_->defaults.repetition_penalty);
  for (const auto &sampler : served_->samplers) {
    boost::json::object own;
    for (const auto &field : wanted)
      if (sampler.takes(field.key())) own[field.key()] = field.value();
    auto options = sampler.validate(own);
    if (!options) return options.error();
    request.sampler_options.push_back(std::move(*options));
  }
  return request;
}

}  // namespace sluice::app

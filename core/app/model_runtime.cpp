#include "core/app/model_runtime.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/app/progress.hpp"
#include "core/model_file/gguf.hpp"

namespace sluice::app {
namespace {

/// Swap space beyond this many caches would hold sequences that cannot all run for a long time.
constexpr uint64_t kMostSwapCaches = 4;

/// Rows for drafts in one step: a full complement for every sequence, within what the step's tokens and the memory of
/// whole rows allow.
uint32_t draft_rows(const config::Model &model, const sluice_decoder_needs &needs) {
  constexpr uint64_t kEnoughRows = 256;
  const uint64_t wanted = uint64_t{model.max_seqs} * needs.max_nodes;
  return static_cast<uint32_t>(std::min<uint64_t>(std::min(wanted, std::max<uint64_t>(kEnoughRows, needs.max_nodes)),
                                                  model.token_budget - model.max_seqs));
}

sluice_model_setup make_setup(const config::Model &model, const sluice_model_info &info,
                              const sluice_decoder_needs &needs) {
  sluice_model_setup setup{};
  setup.struct_size = SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs);
  setup.flags = (info.caps & SLUICE_CAP_BATCH_INVARIANT) != 0 ? SLUICE_SETUP_BATCH_INVARIANT : 0;
  setup.max_tokens_per_step = model.token_budget;
  setup.max_seqs_per_step = model.max_seqs;
  setup.max_rows_per_step = model.max_seqs + draft_rows(model, needs);
  setup.max_tree_nodes = needs.max_nodes == 0 ? 0 : std::min(needs.max_nodes + 1, model.token_budget);
  setup.max_context = model.context == 0 ? info.max_context : model.context;
  setup.max_logprobs = kMaxTopLogprobs;
  if (needs.max_branches > 1) {  // each branch is a sequence of the step
    const uint64_t rows = uint64_t{model.max_seqs} * needs.max_branches;
    setup.max_seqs_per_step = setup.max_rows_per_step =
        static_cast<uint32_t>(std::min<uint64_t>(rows, model.token_budget));
    setup.max_logprobs = std::max(setup.max_logprobs, needs.n_top);
  }
  return setup;
}

}  // namespace

Result<LoadedBackend> LoadedBackend::load(const std::string &model_name, const ConfiguredPlugin &plugin,
                                          plugin::Host &host, const std::string &path, const LoadHooks &hooks,
                                          const std::string &draft_heads) {
  LoadedBackend out;
  const auto *api = host.api_for(model_name, plugin.library->title());
  auto backend = plugin::Backend::open(*plugin.library, api, *plugin.options);
  if (!backend) return backend.error();
  out.backend = std::move(*backend);
  plugin::LoadedModel::Source source;
  source.path = path;
  if (!draft_heads.empty()) source.attach.push_back(draft_heads);
  source.progress = [&hooks](const char *phase, uint64_t done, uint64_t total) {
    if (hooks.progress) hooks.progress(phase, done, total);
    return !hooks.stop || !hooks.stop();
  };
  auto model = plugin::LoadedModel::load(*out.backend, source, *plugin.options);
  if (!model) return model.error();
  out.model = std::move(*model);
  return out;
}

Result<KvSize> configure_kv(plugin::LoadedModel &model, sluice_model_setup setup, const config::Kv &kv,
                            uint64_t enough_tokens) {
  setup.block_size = kv.block_size;
  setup.kv_dtype = kv.dtype == "f32" ? SLUICE_DT_F32 : kv.dtype == "f16" ? SLUICE_DT_F16 : 0;
  auto plan = model.plan_memory(setup);
  if (!plan) return plan.error();
  setup.block_size = plan->block_size;
  auto groups = model.kv_groups(setup);
  if (!groups) return groups.error();
  const uint64_t block_bytes = std::max<uint64_t>(1, groups->front().bytes_per_block);

  const uint64_t enough = (enough_tokens + setup.block_size - 1) / setup.block_size;
  uint64_t blocks = kv.blocks;
  if (blocks == 0) blocks = kv.memory_bytes != 0 ? kv.memory_bytes / block_bytes
                                                 : std::min(enough, plan->kv_bytes_available / block_bytes);
  if (blocks == 0 || blocks > UINT32_MAX || blocks * block_bytes > plan->kv_bytes_available)
    return Error{Code::kResourceExhausted,
                 fmt::format("the KV cache: {} blocks of {} are wanted, {} are available; one sequence of the whole "
                             "context needs {} (kv.memory, kv.blocks, context)", blocks, format_bytes(block_bytes),
                             format_bytes(plan->kv_bytes_available),
                             format_bytes(uint64_t{setup.max_context} / setup.block_size * block_bytes)), "kv"};
  KvSize size{static_cast<uint32_t>(blocks), setup.block_size, blocks * block_bytes, block_bytes};
  if ((model.info().caps & SLUICE_CAP_KV_HOST_SPACE) != 0)
    size.host_blocks = static_cast<uint32_t>(std::min(
        {kMostSwapCaches * blocks, kv.host_memory_bytes / block_bytes, plan->host_bytes_available / block_bytes,
         uint64_t{UINT32_MAX}}));
  if (auto r = model.configure(setup, {&size.blocks, 1}, {&size.host_blocks, size.host_blocks > 0 ? 1U : 0U}); !r)
    return r.error();
  const uint32_t tokens[] = {setup.max_seqs_per_step, setup.max_tokens_per_step};
  const uint32_t seqs[] = {setup.max_seqs_per_step, setup.max_seqs_per_step};
  if (auto r = model.warmup(tokens, seqs); !r) return r.error();
  return size;
}

Result<std::unique_ptr<ModelRuntime>> ModelRuntime::load(const config::Model &model, const ModelPlugins &plugins,
                                                         plugin::Host &host, const Clock &clock, uint32_t max_live,
                                                         const LoadHooks &hooks) {
  std::unique_ptr<ModelRuntime> runtime(new ModelRuntime);
  const auto phase = [&](const std::string &name) {
    if (hooks.progress) hooks.progress(name, 0, 0);
  };
  const auto done = [&](const std::string &detail) {
    if (hooks.phase_done) hooks.phase_done(detail);
  };
  if (plugins.engine.library != nullptr) {
    if (auto r = runtime->start_foreign(model, plugins, host, clock, max_live, hooks); !r) return r.error();
    return runtime;
  }
  phase("tokenizer");
  if (auto r = runtime->load_text(model.path); !r) return r.error();
  done(fmt::format("{} tokens, {}", runtime->tokenizer_->vocab_size(),
                   runtime->chat_template_ ? "with a chat template" : "without a chat template"));
  phase("backend " + plugins.backend.library->metadata.name);
  auto loaded = LoadedBackend::load(model.name, plugins.backend, host, model.path, hooks, model.draft_heads);
  if (!loaded) return loaded.error();
  runtime->loaded_ = std::move(*loaded);
  const auto &info = runtime->loaded_.model->info();
  done(fmt::format("{}, {} layers, {} of weights{}", runtime->loaded_.model->arch(), info.n_layers,
                   format_bytes(info.weights_bytes),
                   info.n_heads == 0 ? "" : fmt::format(", {} draft heads", info.n_heads)));
  if (info.vocab_size < runtime->tokenizer_->vocab_size())
    return invalid_argument(fmt::format("backend {} has a vocabulary of {}, the tokenizer of {} has {}; they must agree",
                                        plugins.backend.library->metadata.name, info.vocab_size, model.path,
                                        runtime->tokenizer_->vocab_size()));
  if (model.context > info.max_context)
    return invalid_argument(fmt::format("models.{}.context is {}; the model's own is {}", model.name, model.context,
                                        info.max_context));
  if (auto r = runtime->create_chain(model, plugins, host); !r) return r.error();
  if (auto r = runtime->start_engine(model, plugins, host, clock, max_live, hooks); !r) return r.error();
  return runtime;
}

ModelRuntime::~ModelRuntime() {
  // Somebody may hold the engine still; its thread must not outlive what it calls.
  if (generator_) generator_->stop();
}

Result<> ModelRuntime::load_text(const std::string &path) {
  auto file = model_file::Gguf::open(path);
  if (!file) return file.error();
  auto tokenizer = text::Tokenizer::from_gguf(*file);
  if (!tokenizer) return tokenizer.error();
  tokenizer_ = std::move(*tokenizer);
  auto source = file->string_or("tokenizer.chat_template", "");
  if (!source) return source.error();
  if (!source->empty()) {
    auto compiled = text::ChatTemplate::compile(std::string(*source));
    if (!compiled) return Error{compiled.error().code, path + ": chat template: " + compiled.error().message, {}};
    chat_template_ = std::make_shared<const text::ChatTemplate>(std::move(*compiled));
  }
  auto defaults = text::read_generation_defaults(*file);
  if (!defaults) return defaults.error();
  defaults_ = *defaults;
  return {};
}

Result<> ModelRuntime::create_chain(const config::Model &model, const ModelPlugins &plugins, plugin::Host &host) {
  const auto &info = loaded_.model->info();
  for (const auto &use : plugins.samplers) {
    auto sampler = plugin::Sampler::create(*use.library, host.api_for(model.name, use.library->title()), *use.options,
                                           info);
    if (!sampler) return sampler.error();
    samplers_.push_back(std::move(*sampler));
  }
  auto decoder = plugin::Decoder::create(*plugins.decoder.library,
                                         host.api_for(model.name, plugins.decoder.library->title()),
                                         *plugins.decoder.options, model.max_seqs, info);
  if (!decoder) return decoder.error();
  decoder_ = std::move(*decoder);
  return {};
}

Result<> ModelRuntime::start_foreign(const config::Model &model, const ModelPlugins &plugins, plugin::Host &host,
                                     const Clock &clock, uint32_t max_live, const LoadHooks &hooks) {
  const auto &name = plugins.engine.library->metadata.name;
  if (hooks.progress) hooks.progress("engine " + name, 0, 0);
  auto engine =
      engine::ForeignEngine::open(*plugins.engine.library, plugins.engine.options, host, clock, model.name, model.path);
  if (!engine) return engine.error();
  const std::string vocab = (*engine)->vocab_path();
  if (auto r = load_text(vocab.empty() ? model.path : vocab); !r) return r;
  engine::ForeignEngine::Limits limits;
  limits.vocab_size = tokenizer_->vocab_size();
  limits.max_context = model.context;
  limits.max_live = max_live;
  (*engine)->start(limits);
  if (hooks.phase_done)
    hooks.phase_done(fmt::format("{}, {} tokens of vocabulary", (*engine)->info().arch, limits.vocab_size));
  generator_ = std::move(*engine);
  return {};
}

Result<> ModelRuntime::start_engine(const config::Model &model, const ModelPlugins &plugins, plugin::Host &host,
                                    const Clock &clock, uint32_t max_live, const LoadHooks &hooks) {
  const auto setup = make_setup(model, loaded_.model->info(), decoder_->needs());
  if (hooks.progress) hooks.progress("KV cache", 0, 0);
  auto kv = configure_kv(*loaded_.model, setup, model.kv, uint64_t{setup.max_context} * model.max_seqs);
  if (!kv) return kv.error();
  const uint64_t kv_tokens = uint64_t{kv->blocks} * kv->block_size;

  engine::EngineLimits limits;
  limits.max_seqs = model.max_seqs;
  limits.token_budget = model.token_budget;
  limits.max_rows = setup.max_rows_per_step;
  limits.max_live = max_live;
  limits.max_context = static_cast<uint32_t>(std::min<uint64_t>(setup.max_context, kv_tokens));
  limits.block_size = kv->block_size;
  limits.kv_blocks = kv->blocks;
  limits.explain_after_ns = 10'000'000'000;
  limits.bytes_per_block = kv->bytes_per_block;
  limits.host_blocks = kv->host_blocks;
  limits.prefix_cache = model.kv.prefix_cache;
  limits.watermark_blocks =
      static_cast<uint32_t>((uint64_t{kv->blocks} * model.kv.watermark_percent + 99) / 100);
  std::string swap = "no swap space";
  if (kv->host_blocks > 0) {
    auto rates = engine::measure_swap(*loaded_.model->vtbl(), loaded_.model->get(), clock,
                                      std::min(kv->blocks, kv->host_blocks), kv->bytes_per_block);
    if (!rates) return rates.error();
    limits.swap_rates = *rates;
    swap = fmt::format("swap space {} at {}/s out, {}/s in", format_bytes(kv->host_blocks * kv->bytes_per_block),
                       format_bytes(static_cast<uint64_t>(rates->out_bytes_per_s)),
                       format_bytes(static_cast<uint64_t>(rates->in_bytes_per_s)));
  }
  if (hooks.phase_done)
    hooks.phase_done(fmt::format("{} tokens in {} blocks of {}, {}; {}; context {}", kv_tokens, kv->blocks,
                                 kv->block_size, format_bytes(kv->bytes), swap, limits.max_context));

  engine::EngineParts parts;
  parts.host = host.api_for(model.name, plugins.scheduler.library->title());
  parts.clock = &clock;
  parts.backend_name = plugins.backend.library->metadata.name;
  parts.backend = loaded_.model->vtbl();
  parts.model = loaded_.model->get();
  parts.scheduler_name = plugins.scheduler.library->metadata.name;
  parts.scheduler = plugins.scheduler.library->desc->scheduler;
  parts.scheduler_options = plugins.scheduler.options->handle();
  for (size_t i = 0; i < samplers_.size(); ++i)
    parts.samplers.push_back({plugins.samplers[i].library->metadata.name, samplers_[i]->vtbl(), samplers_[i]->get()});
  parts.decoder_name = plugins.decoder.library->metadata.name;
  parts.decoder = decoder_->vtbl();
  parts.decoder_instance = decoder_->get();
  auto engine = engine::Engine::create(std::move(parts), limits, kMaxTopLogprobs);
  if (!engine) return engine.error();
  engine_ = engine->get();
  generator_ = std::move(*engine);
  return {};
}

Result<> ModelRuntime::change_scheduler(const ConfiguredPlugin &to, bool fresh) {
  if (engine_ == nullptr) return invalid_argument("the model has no scheduler of ours");
  return engine_->change_scheduler(
      {to.library->metadata.name, to.library->desc->scheduler, to.options->handle(), fresh});
}

}  // namespace sluice::app

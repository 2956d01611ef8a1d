#include "core/app/model_runtime.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <stdexcept>
#include <tuple>

#include "core/app/draft_vocabulary.hpp"
#include "core/app/progress.hpp"
#include "core/model_file/gguf.hpp"

namespace sluice::app {
namespace {

/// Swap space beyond this many caches would hold sequences that cannot all run for a long time.
constexpr uint64_t kMostSwapCaches = 4;
/// The server keeps a few words for every block and every token of a cache, in memory of its own; what a backend says
/// that it has room for does not size that alone.
constexpr uint64_t kMostBlocks = 1 << 22, kMostKvTokens = 1 << 27;

uint64_t most_blocks(uint32_t block_size) { return std::min(kMostBlocks, kMostKvTokens / block_size); }

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

Result<> check_kv_mode(const plugin::LoadedModel &model) {
  const auto &info = model.info();
  if (info.kv_mode == SLUICE_KV_MODE_PAGED && info.n_kv_groups == 1) return {};
  return Error{Code::kUnsupported, fmt::format("{}: kv_mode {} with {} KV groups; this server runs paged KV with one group",
                                               model.name(), info.kv_mode, info.n_kv_groups), {}};
}

/// A plugin's numbers may ask for more memory than there is.
template <class F> auto within_memory(F &&open) -> decltype(open()) {
  try {
    return open();
  } catch (const std::bad_alloc &) {
  } catch (const std::length_error &) {
  }
  return Error{Code::kResourceExhausted, "not enough memory for what the model's plugins ask for; lower max_seqs, "
                                         "token_budget, context or kv.memory", {}};
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
  if (auto r = check_kv_mode(model); !r) return r.error();
  setup.block_size = kv.block_size;
  setup.kv_dtype = kv.dtype == "f32" ? SLUICE_DT_F32 : kv.dtype == "f16" ? SLUICE_DT_F16 : 0;
  auto plan = model.plan_memory(setup);
  if (!plan) return plan.error();
  setup.block_size = plan->block_size;
  auto groups = model.kv_groups(setup);
  if (!groups) return groups.error();
  const uint64_t block_bytes = groups->front().bytes_per_block, most = most_blocks(setup.block_size);

  const uint64_t enough = (enough_tokens + setup.block_size - 1) / setup.block_size;
  uint64_t blocks = kv.blocks;
  if (blocks == 0) blocks = kv.memory_bytes != 0 ? kv.memory_bytes / block_bytes
                                                 : std::min({enough, plan->kv_bytes_available / block_bytes, most});
  if (blocks > most)
    return Error{Code::kResourceExhausted,
                 fmt::format("the KV cache: {} blocks of {} tokens are wanted, at most {} are run (kv.memory, kv.blocks)",
                             blocks, setup.block_size, most), "kv"};
  if (blocks == 0 || blocks > plan->kv_bytes_available / block_bytes)
    return Error{Code::kResourceExhausted,
                 fmt::format("the KV cache: {} blocks of {} are wanted, {} are available; one sequence of the whole "
                             "context needs {} (kv.memory, kv.blocks, context)", blocks, format_bytes(block_bytes),
                             format_bytes(plan->kv_bytes_available),
                             format_bytes(uint64_t{setup.max_context} / setup.block_size * block_bytes)), "kv"};
  KvSize size{static_cast<uint32_t>(blocks), setup.block_size, blocks * block_bytes, block_bytes};
  if ((model.info().caps & SLUICE_CAP_KV_HOST_SPACE) != 0)
    size.host_blocks = static_cast<uint32_t>(std::min(
        {kMostSwapCaches * blocks, kv.host_memory_bytes / block_bytes, plan->host_bytes_available / block_bytes,
         most}));
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
  std::unique_ptr<ModelRuntime> runtime(new ModelRuntime(model, plugins, host, clock, max_live));
  if (auto r = within_memory([&] { return runtime->open(hooks); }); !r) return r.error();
  return runtime;
}

Result<> ModelRuntime::open(const LoadHooks &hooks) {
  if (plugins_.engine.library != nullptr) return start_foreign(hooks);
  if (hooks.progress) hooks.progress("tokenizer", 0, 0);
  if (auto r = load_text(config_.path); !r) return r;
  if (hooks.phase_done)
    hooks.phase_done(fmt::format("{} tokens, {}", tokenizer_->vocab_size(),
                                 chat_template_ ? "with a chat template" : "without a chat template"));
  if (auto r = load_backend(hooks); !r) return r;
  if (auto r = create_chain(); !r) return r;
  find_model_ = hooks.find_model;
  if (auto r = load_draft_model(hooks); !r) return r;
  return start_engine(hooks);
}

namespace {

/// What a thread that never came back may still touch. Kept to the end of the process.
template <class T> void leave_behind(T &&parts) {
  static std::vector<std::unique_ptr<std::decay_t<T>>> kept;
  kept.push_back(std::make_unique<std::decay_t<T>>(std::forward<T>(parts)));
}

}  // namespace

ModelRuntime::~ModelRuntime() {
  // Somebody may hold the engine still; its thread must not outlive what it calls.
  if (!generator_) return;
  generator_->stop();
  if (generator_->stuck())
    leave_behind(std::make_tuple(std::move(loaded_), std::move(drafting_), std::move(samplers_), std::move(decoder_),
                                 generator_));
}

Result<std::shared_ptr<request::Generator>> ModelRuntime::reopen(const std::string &culprit,
                                                                 const std::function<bool()> &stop) {
  return within_memory([&] { return open_anew(culprit, stop); });
}

Result<std::shared_ptr<request::Generator>> ModelRuntime::open_anew(const std::string &culprit,
                                                                    const std::function<bool()> &stop) {
  generator_.reset();
  {
    const std::lock_guard lock(chain_mutex_);
    engine_.reset();
    samplers_.clear();
    decoder_.reset();
  }
  LoadHooks hooks;
  hooks.stop = stop;
  if (plugins_.engine.library != nullptr) {
    if (auto r = start_foreign(hooks); !r) return r.error();
    return generator_;
  }
  const bool backend_is_sound = loaded_.model && !culprit.empty() && culprit != "backend " + plugins_.backend.library->metadata.name;
  if (!backend_is_sound) {
    loaded_.model.reset();
    loaded_.backend.reset();
    if (auto r = load_backend(hooks); !r) return r.error();
  }
  if (auto r = create_chain(); !r) return r.error();
  if (auto r = load_draft_model(hooks); !r) return r.error();
  if (auto r = start_engine(hooks); !r) return r.error();
  return generator_;
}

Result<> ModelRuntime::backend_health() const {
  return plugins_.backend.own_process && loaded_.backend ? loaded_.backend->health() : Result<>{};
}

Result<> ModelRuntime::validate_for_sampler(size_t i, const plugin::Options &options) const {
  std::shared_ptr<plugin::Sampler> sampler;
  {
    const std::lock_guard lock(chain_mutex_);
    if (i < samplers_.size()) sampler = samplers_[i];
  }
  if (sampler) return sampler->validate(options);
  return Error{Code::kUnavailable, "the model is down after a fault in one of its plugins", {}};
}

Result<> ModelRuntime::validate_for_decoder(const plugin::Options &options) const {
  std::shared_ptr<plugin::Decoder> decoder;
  {
    const std::lock_guard lock(chain_mutex_);
    decoder = decoder_;
  }
  if (decoder) return decoder->validate(options);
  return Error{Code::kUnavailable, "the model is down after a fault in one of its plugins", {}};
}

bool ModelRuntime::samples_drafts() const {
  const std::lock_guard lock(chain_mutex_);
  return decoder_ && (decoder_->needs().proposals & (SLUICE_PROPOSE_SAMPLED | SLUICE_PROPOSE_SAMPLED_IID)) != 0;
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

Result<> ModelRuntime::load_backend(const LoadHooks &hooks) {
  const auto &name = plugins_.backend.library->metadata.name;
  if (hooks.progress) hooks.progress("backend " + name, 0, 0);
  auto loaded = LoadedBackend::load(config_.name, plugins_.backend, host_, config_.path, hooks, config_.draft_heads);
  if (!loaded) return loaded.error();
  const auto &info = loaded->model->info();
  if (hooks.phase_done)
    hooks.phase_done(fmt::format("{}, {} layers, {} of weights{}", loaded->model->arch(), info.n_layers,
                                 format_bytes(info.weights_bytes),
                                 info.n_heads == 0 ? "" : fmt::format(", {} draft heads", info.n_heads)));
  if (info.vocab_size < tokenizer_->vocab_size())
    return invalid_argument(fmt::format("backend {} has a vocabulary of {}, the tokenizer of {} has {}; they must agree",
                                        name, info.vocab_size, config_.path, tokenizer_->vocab_size()));
  if (config_.context > info.max_context)
    return invalid_argument(fmt::format("models.{}.context is {}; the model's own is {}", config_.name,
                                        config_.context, info.max_context));
  loaded_ = std::move(*loaded);
  return {};
}

Result<> ModelRuntime::create_chain() {
  const auto &info = loaded_.model->info();
  std::vector<std::shared_ptr<plugin::Sampler>> samplers;
  for (const auto &use : plugins_.samplers) {
    auto sampler = plugin::Sampler::create(*use.library, host_.api_for(config_.name, use.library->title()),
                                           *use.options, info);
    if (!sampler) return sampler.error();
    samplers.push_back(std::move(*sampler));
  }
  auto decoder = plugin::Decoder::create(*plugins_.decoder.library,
                                         host_.api_for(config_.name, plugins_.decoder.library->title()),
                                         *plugins_.decoder.options, config_.max_seqs, info);
  if (!decoder) return decoder.error();
  const std::lock_guard lock(chain_mutex_);
  samplers_ = std::move(samplers);
  decoder_ = std::move(*decoder);
  return {};
}

Result<> ModelRuntime::load_draft_model(const LoadHooks &hooks) {
  drafting_.model.reset();
  drafting_.backend.reset();
  const char *name = decoder_->needs().draft_model;
  if (name == nullptr) return {};
  const auto source = find_model_ ? find_model_(name) : std::nullopt;
  if (!source)
    return Error{Code::kNotFound, fmt::format("the decoder wants the draft model '{}'; there is no [models.{}] with a "
                                              "path and a backend", name, name), "decoder"};
  if (hooks.progress) hooks.progress(fmt::format("draft model {}", name), 0, 0);
  if (auto r = check_same_tokens(*tokenizer_, config_.path, source->path); !r) return r;
  auto loaded = LoadedBackend::load(config_.name, source->backend, host_, source->path, hooks);
  if (!loaded) return loaded.error();
  drafting_ = std::move(*loaded);
  if (hooks.phase_done)
    hooks.phase_done(fmt::format("{}, {} layers, {} of weights", drafting_.model->arch(),
                                 drafting_.model->info().n_layers, format_bytes(drafting_.model->info().weights_bytes)));
  return {};
}

Result<> ModelRuntime::configure_draft_model(const sluice_model_setup &target, const KvSize &kv) {
  auto setup = target;
  const auto &info = drafting_.model->info();
  if (info.max_context < setup.max_context)
    return invalid_argument(fmt::format("the draft model's context is {} tokens, the target's {}; set context to at most "
                                        "{}", info.max_context, setup.max_context, info.max_context));
  setup.flags = (info.caps & SLUICE_CAP_BATCH_INVARIANT) != 0 ? SLUICE_SETUP_BATCH_INVARIANT : 0;
  setup.max_tree_nodes = (info.caps & SLUICE_CAP_TREE) != 0 ? decoder_->needs().max_fed : 0;
  if (auto r = check_kv_mode(*drafting_.model); !r) return r;
  setup.block_size = kv.block_size;
  setup.max_logprobs = 0;
  auto plan = drafting_.model->plan_memory(setup);
  if (!plan) return plan.error();
  auto groups = drafting_.model->kv_groups(setup);
  if (!groups) return groups.error();
  const uint64_t block_bytes = groups->front().bytes_per_block;
  if (kv.blocks > plan->kv_bytes_available / block_bytes)
    return Error{Code::kResourceExhausted,
                 fmt::format("the draft model's KV cache: {} blocks of {} are wanted, {} are available; lower "
                             "kv.memory", kv.blocks, format_bytes(block_bytes),
                             format_bytes(plan->kv_bytes_available)), "kv"};
  const bool swaps = kv.host_blocks > 0 && (info.caps & SLUICE_CAP_KV_HOST_SPACE) != 0;
  return drafting_.model->configure(setup, {&kv.blocks, 1}, {&kv.host_blocks, swaps ? 1U : 0U});
}

Result<> ModelRuntime::start_foreign(const LoadHooks &hooks) {
  const auto &name = plugins_.engine.library->metadata.name;
  if (hooks.progress) hooks.progress("engine " + name, 0, 0);
  auto engine =
      engine::ForeignEngine::open(*plugins_.engine.library, plugins_.engine.options, host_, clock_, config_.name,
                                  config_.path);
  if (!engine) return engine.error();
  const std::string vocab = (*engine)->vocab_path();
  if (!tokenizer_)
    if (auto r = load_text(vocab.empty() ? config_.path : vocab); !r) return r;
  engine::ForeignEngine::Limits limits;
  limits.vocab_size = tokenizer_->vocab_size();
  limits.max_context = config_.context;
  limits.max_live = max_live_;
  limits.call_deadline = plugins_.call_deadline;
  (*engine)->start(limits);
  if (hooks.phase_done)
    hooks.phase_done(fmt::format("{}, {} tokens of vocabulary", (*engine)->info().arch, limits.vocab_size));
  generator_ = std::move(*engine);
  return {};
}

Result<> ModelRuntime::start_engine(const LoadHooks &hooks) {
  const auto setup = make_setup(config_, loaded_.model->info(), decoder_->needs());
  if (hooks.progress) hooks.progress("KV cache", 0, 0);
  auto kv = configure_kv(*loaded_.model, setup, config_.kv, uint64_t{setup.max_context} * config_.max_seqs);
  if (!kv) return kv.error();
  const uint64_t kv_tokens = uint64_t{kv->blocks} * kv->block_size;

  engine::EngineLimits limits;
  limits.max_seqs = config_.max_seqs;
  limits.token_budget = config_.token_budget;
  limits.max_rows = setup.max_rows_per_step;
  limits.max_live = max_live_;
  limits.call_deadline = plugins_.call_deadline;
  limits.max_context = static_cast<uint32_t>(std::min<uint64_t>(setup.max_context, kv_tokens));
  limits.block_size = kv->block_size;
  limits.kv_blocks = kv->blocks;
  limits.explain_after_ns = 10'000'000'000;
  limits.plan_ahead = true;
  limits.bytes_per_block = kv->bytes_per_block;
  limits.host_blocks = kv->host_blocks;
  limits.prefix_cache = config_.kv.prefix_cache;
  limits.watermark_blocks =
      static_cast<uint32_t>((uint64_t{kv->blocks} * config_.kv.watermark_percent + 99) / 100);
  std::string swap = "no swap space";
  if (kv->host_blocks > 0) {
    auto rates = engine::measure_swap(*loaded_.model->vtbl(), loaded_.model->get(), clock_,
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

  ConfiguredPlugin scheduler;
  {
    const std::lock_guard lock(chain_mutex_);
    scheduler = plugins_.scheduler;
  }
  engine::EngineParts parts;
  if (drafting_.model) {
    if (auto r = configure_draft_model(setup, *kv); !r) return r.error();
    parts.draft_model = {fmt::format("draft model {}", decoder_->needs().draft_model), drafting_.model->vtbl(),
                         drafting_.model->get(), setup.max_tokens_per_step,
                         (drafting_.model->info().caps & SLUICE_CAP_KV_HOST_SPACE) != 0 ? kv->host_blocks : 0};
  }
  parts.host = host_.api_for(config_.name, scheduler.library->title());
  parts.clock = &clock_;
  parts.backend_name = plugins_.backend.library->metadata.name;
  parts.backend = loaded_.model->vtbl();
  parts.model = loaded_.model->get();
  parts.info = loaded_.model->info();
  parts.scheduler_name = scheduler.library->metadata.name;
  parts.scheduler = scheduler.library->desc->scheduler;
  parts.scheduler_options = scheduler.options->handle();
  for (size_t i = 0; i < samplers_.size(); ++i)
    parts.samplers.push_back({plugins_.samplers[i].library->metadata.name, samplers_[i]->vtbl(), samplers_[i]->get()});
  parts.decoder_name = plugins_.decoder.library->metadata.name;
  parts.decoder = decoder_->vtbl();
  parts.decoder_instance = decoder_->get();
  auto engine = engine::Engine::create(std::move(parts), limits, kMaxTopLogprobs);
  if (!engine) return engine.error();
  const std::shared_ptr<engine::Engine> made = std::move(*engine);
  generator_ = made;
  const std::lock_guard lock(chain_mutex_);
  engine_ = made;
  return {};
}

Result<> ModelRuntime::change_scheduler(const ConfiguredPlugin &to, bool fresh) {
  if (plugins_.engine.library != nullptr) return invalid_argument("the model has no scheduler of ours");
  std::shared_ptr<engine::Engine> engine;
  {
    const std::lock_guard lock(chain_mutex_);
    engine = engine_;
  }
  if (!engine) return Error{Code::kUnavailable, "the model is being opened anew", {}};
  auto changed = engine->change_scheduler(
      {to.library->metadata.name, to.library->desc->scheduler, to.options->handle(), fresh, to.options});
  if (!changed) return changed;
  const std::lock_guard lock(chain_mutex_);
  plugins_.scheduler = to;
  return {};
}

}  // namespace sluice::app

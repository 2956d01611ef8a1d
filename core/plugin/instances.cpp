#include "core/plugin/instances.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace sluice::plugin {
namespace {

constexpr uint32_t kMaxDevices = 64;
constexpr uint32_t kMaxKvGroups = 16;
constexpr uint32_t kMaxHeads = 64;
constexpr uint32_t kMaxVocab = 1 << 24;
constexpr uint32_t kMaxBlockTokens = 1 << 16;
constexpr uint64_t kMaxBlockBytes = uint64_t{1} << 40;

/// Room for what a plugin fills in, with the size field set.
template <class T> T room(uint32_t size) {
  T t{};
  t.struct_size = size;
  return t;
}
#define SLUICE_ROOM(T, last) room<T>(SLUICE_SIZE_THROUGH(T, last))

Error made_nothing(const std::string &name, const char *what) {
  return {Code::kInternal, fmt::format("{}: {} succeeded but gave nothing", name, what), {}};
}

Error impossible(const std::string &name, const char *what, uint64_t value) {
  return {Code::kInternal, fmt::format("{}: says that {} is {}, which cannot be", name, what, value), {}};
}

template <size_t N> void terminate(char (&text)[N]) { text[N - 1] = '\0'; }

/// A destructor must not let a plugin's exception through.
template <class F> void quietly(F &&f) {
  try {
    f();
  } catch (...) {
  }
}

int32_t on_progress(void *ctx, const char *phase, uint64_t done, uint64_t total) {
  const auto &progress = *static_cast<const LoadProgress *>(ctx);
  return progress(phase == nullptr ? "" : phase, done, total) ? 0 : 1;
}

}  // namespace

// ---- backend ----

Result<std::vector<sluice_device_info>> Backend::devices(const Library &library, const sluice_host_api *host,
                                                         const Options &options) {
  std::vector<sluice_device_info> all(kMaxDevices, SLUICE_ROOM(sluice_device_info, uuid));
  uint32_t n = kMaxDevices;
  const Backend probe(library.title(), library.desc->backend);
  if (auto r = probe.call("enumerate", probe.vtbl_->enumerate, host, options.handle(), all.data(),
                          static_cast<uint32_t>(sizeof all[0]), &n);
      !r)
    return r.error();
  all.resize(std::min(n, kMaxDevices));
  for (auto &d : all) terminate(d.name), terminate(d.uuid);
  return all;
}

Result<std::unique_ptr<Backend>> Backend::open(const Library &library, const sluice_host_api *host,
                                               const Options &options, std::span<const int32_t> device_ids) {
  std::unique_ptr<Backend> b(new Backend(library.title(), library.desc->backend));
  auto request = SLUICE_ROOM(sluice_backend_open, config);
  request.n_devices = static_cast<uint32_t>(device_ids.size());
  request.device_ids = device_ids.data();
  request.config = options.handle();
  if (auto r = b->call("open", b->vtbl_->open, host, &request, &b->backend_); !r) return r.error();
  if (b->backend_ == nullptr) return made_nothing(b->name(), "open");
  return b;
}

Backend::~Backend() {
  if (backend_ != nullptr) quietly([&] { vtbl_->close(backend_); });
}

Result<> Backend::health() const { return call("health", vtbl_->health, backend_); }

// ---- model ----

Result<std::unique_ptr<LoadedModel>> LoadedModel::load(const Backend &backend, const Source &source,
                                                       const Options &options) {
  std::unique_ptr<LoadedModel> m(new LoadedModel(backend.name(), backend.vtbl()));
  std::vector<const char *> attach;
  for (const std::string &path : source.attach) attach.push_back(path.c_str());
  auto request = SLUICE_ROOM(sluice_model_source, progress_ctx);
  request.path = source.path.c_str();
  request.attach = attach.data();
  request.n_attach = static_cast<uint32_t>(attach.size());
  request.config = options.handle();
  if (source.progress) {
    request.progress = on_progress;
    request.progress_ctx = const_cast<LoadProgress *>(&source.progress);
  }
  if (auto r = m->call("model_load", m->vtbl_->model_load, backend.get(), &request, &m->model_); !r) return r.error();
  if (m->model_ == nullptr) return made_nothing(m->name(), "model_load");
  if (auto r = m->read_info(); !r) return r.error();
  if (!source.attach.empty() && m->info_.n_heads == 0)
    return Error{Code::kUnsupported, m->name() + ": it loads no draft heads; draft_heads needs a backend that does", {}};
  return m;
}

LoadedModel::~LoadedModel() {
  if (model_ != nullptr) quietly([&] { vtbl_->model_unload(model_); });
}

Result<> LoadedModel::read_info() {
  info_ = SLUICE_ROOM(sluice_model_info, arch);
  if (auto r = call("model_info", vtbl_->model_info, model_, &info_); !r) return r;
  terminate(info_.arch);
  if (info_.vocab_size == 0 || info_.vocab_size > kMaxVocab) return impossible(name(), "vocab_size", info_.vocab_size);
  if (info_.max_context == 0) return impossible(name(), "max_context", 0);
  if (info_.n_heads > kMaxHeads) return impossible(name(), "n_heads", info_.n_heads);
  if (info_.n_heads > 0 && (info_.head_top == 0 || info_.head_top > info_.vocab_size))
    return impossible(name(), "head_top", info_.head_top);
  if (info_.kv_mode != SLUICE_KV_MODE_PAGED && info_.kv_mode != SLUICE_KV_MODE_SEQ)
    return impossible(name(), "kv_mode", info_.kv_mode);
  const bool paged = info_.kv_mode == SLUICE_KV_MODE_PAGED;
  if (info_.n_kv_groups > kMaxKvGroups || (paged && info_.n_kv_groups == 0))
    return impossible(name(), "n_kv_groups", info_.n_kv_groups);
  return {};
}

Result<sluice_memory_plan> LoadedModel::plan_memory(const sluice_model_setup &setup) const {
  auto plan = SLUICE_ROOM(sluice_memory_plan, host_bytes_available);
  if (auto r = call("plan_memory", vtbl_->plan_memory, model_, &setup, &plan); !r) return r.error();
  if (plan.block_size == 0 || plan.block_size > kMaxBlockTokens) return impossible(name(), "block_size", plan.block_size);
  if (setup.block_size != 0 && plan.block_size != setup.block_size)
    return Error{Code::kInternal, fmt::format("{}: plan_memory answers block_size {} where {} was asked for", name(),
                                              plan.block_size, setup.block_size), {}};
  if (setup.block_size == 0 && plan.block_size > info_.max_context)
    return Error{Code::kInternal, fmt::format("{}: says that block_size is {} where the whole context is {}, which "
                                              "cannot be", name(), plan.block_size, info_.max_context), {}};
  return plan;
}

Result<std::vector<sluice_kv_group>> LoadedModel::kv_groups(const sluice_model_setup &setup) const {
  std::vector<sluice_kv_group> groups(info_.n_kv_groups, SLUICE_ROOM(sluice_kv_group, reserved));
  if (auto r = call("kv_groups", vtbl_->kv_groups, model_, &setup, groups.data(),
                    static_cast<uint32_t>(sizeof(sluice_kv_group)));
      !r)
    return r.error();
  for (const auto &g : groups)
    if (g.bytes_per_block == 0 || g.bytes_per_block > kMaxBlockBytes)
      return impossible(name(), "bytes_per_block", g.bytes_per_block);
  return groups;
}

Result<> LoadedModel::configure(const sluice_model_setup &setup, std::span<const uint32_t> device_blocks,
                                std::span<const uint32_t> host_blocks) {
  return call("configure", vtbl_->configure, model_, &setup, device_blocks.data(),
              host_blocks.empty() ? nullptr : host_blocks.data());
}

Result<sluice_sample_caps> LoadedModel::sample_caps() const {
  auto caps = SLUICE_ROOM(sluice_sample_caps, logprobs_kinds);
  if (auto r = call("sample_caps", vtbl_->sample_caps, model_, &caps); !r) return r.error();
  return caps;
}

Result<> LoadedModel::warmup(std::span<const uint32_t> n_tokens, std::span<const uint32_t> n_seqs) {
  if (!SLUICE_HAS_FN(vtbl_, sluice_backend_vtbl, warmup)) return {};
  const size_t n = std::min(n_tokens.size(), n_seqs.size());
  return call("warmup", vtbl_->warmup, model_, n_tokens.data(), n_seqs.data(), static_cast<uint32_t>(n));
}

// ---- sampler ----

Result<std::unique_ptr<Sampler>> Sampler::create(const Library &library, const sluice_host_api *host,
                                                 const Options &options, const sluice_model_info &model) {
  std::unique_ptr<Sampler> s(new Sampler(library.title(), library.desc->sampler));
  if (auto r = s->call("create", s->vtbl_->create, host, options.handle(), &model, &s->sampler_); !r) return r.error();
  if (s->sampler_ == nullptr) return made_nothing(s->name(), "create");
  return s;
}

Sampler::~Sampler() {
  if (sampler_ != nullptr) quietly([&] { vtbl_->destroy(sampler_); });
}

Result<> Sampler::validate(const Options &request) const {
  if (!SLUICE_HAS_FN(vtbl_, sluice_sampler_vtbl, validate)) return {};
  return call("validate", vtbl_->validate, sampler_, request.handle());
}

// ---- decoder ----

Result<std::unique_ptr<Decoder>> Decoder::create(const Library &library, const sluice_host_api *host,
                                                 const Options &options, uint32_t max_seqs,
                                                 const sluice_model_info &target) {
  std::unique_ptr<Decoder> d(new Decoder(library.title(), library.desc->decoder));
  auto setup = SLUICE_ROOM(sluice_decoder_setup, target);
  setup.max_seqs = max_seqs;
  setup.target = &target;
  if (auto r = d->call("create", d->vtbl_->create, host, options.handle(), &setup, &d->decoder_); !r) return r.error();
  if (d->decoder_ == nullptr) return made_nothing(d->name(), "create");
  d->needs_ = SLUICE_ROOM(sluice_decoder_needs, flags);
  if (auto r = d->call("needs", d->vtbl_->needs, d->decoder_, &d->needs_); !r) return r.error();
  const bool drafts = d->needs_.max_nodes > 0, branches = d->needs_.max_branches > 1;
  if (drafts && !SLUICE_HAS_FN(d->vtbl_, sluice_decoder_vtbl, draft))
    return Error{Code::kInternal, d->name() + " asks for drafts and has no function draft", {}};
  if (branches && (drafts || !SLUICE_HAS_FN(d->vtbl_, sluice_decoder_vtbl, branch)))
    return Error{Code::kInternal, d->name() + " asks for branches and has no function branch, or wants drafts as well", {}};
  return d;
}

Decoder::~Decoder() {
  if (decoder_ != nullptr) quietly([&] { vtbl_->destroy(decoder_); });
}

Result<> Decoder::validate(const Options &request) const {
  if (!SLUICE_HAS_FN(vtbl_, sluice_decoder_vtbl, validate)) return {};
  return call("validate", vtbl_->validate, decoder_, request.handle());
}

// ---- engine ----

Result<std::unique_ptr<ForeignEngine>> ForeignEngine::open(const Library &library, const sluice_host_api *host,
                                                           const Options &options, const std::string &model) {
  std::unique_ptr<ForeignEngine> e(new ForeignEngine(library.title(), library.desc->engine));
  if (auto r = e->call("open", e->vtbl_->open, host, options.handle(), model.c_str(), &e->engine_); !r)
    return r.error();
  if (e->engine_ == nullptr) return made_nothing(e->name(), "open");
  e->info_ = SLUICE_ROOM(sluice_engine_info, vocab_path);
  if (auto r = e->call("info", e->vtbl_->info, e->engine_, &e->info_); !r) return r.error();
  terminate(e->info_.arch);
  constexpr uint32_t kInputs = SLUICE_INPUT_TOKENS | SLUICE_INPUT_TEXT | SLUICE_INPUT_CHAT;
  if ((e->info_.inputs & kInputs) == 0) return impossible(e->name(), "inputs", e->info_.inputs);
  return e;
}

ForeignEngine::~ForeignEngine() {
  if (engine_ != nullptr) quietly([&] { vtbl_->close(engine_); });
}

Result<> ForeignEngine::generate(const sluice_engine_request &request) const {
  return call("generate", vtbl_->generate, engine_, &request);
}
Result<> ForeignEngine::cancel(uint64_t request_id) const { return call("cancel", vtbl_->cancel, engine_, request_id); }
Result<> ForeignEngine::health() const { return call("health", vtbl_->health, engine_); }

}  // namespace sluice::plugin

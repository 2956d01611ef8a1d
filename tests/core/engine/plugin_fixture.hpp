#pragma once
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sluice/abi.h>

#include <map>
#include <set>
#include <string>

#include "core/base/clock.hpp"
#include "core/engine/engine_core.hpp"

namespace sluice::engine::testing {

/// Options as text by key; what a sluice_config* of these tests points to.
using TestConfig = std::map<std::string, std::string>;

inline const sluice_config *handle(const TestConfig &config) {
  return reinterpret_cast<const sluice_config *>(&config);
}

/// A host whose clock belongs to the test, without metrics, and whose pool is the caller.
class TestHost {
 public:
  /// real_time  time passes by itself, for engines with a thread of their own; else `clock` tells it
  explicit TestHost(bool real_time = false) : real_time_(real_time) {
    api_.struct_size = SLUICE_SIZE_THROUGH(sluice_host_api, get_extension);
    api_.abi_major = SLUICE_ABI_MAJOR;
    api_.abi_minor = SLUICE_ABI_MINOR;
    api_.host_version = "0.0.0-test";
    api_.host = reinterpret_cast<sluice_host *>(this);
    api_.log = [](sluice_host *, int32_t, const char *, const char *, size_t) {};
    api_.now_ns = [](sluice_host *host) { return reinterpret_cast<TestHost *>(host)->time().now_ns(); };
    api_.cfg_bool = [](const sluice_config *c, const char *key, int32_t *out) {
      const auto *text = find(c, key);
      if (text == nullptr) return SLUICE_E_NOT_FOUND;
      *out = *text == "true" ? 1 : 0;
      return SLUICE_OK;
    };
    api_.cfg_i64 = [](const sluice_config *c, const char *key, int64_t *out) {
      const auto *text = find(c, key);
      if (text == nullptr) return SLUICE_E_NOT_FOUND;
      *out = std::stoll(*text);
      return SLUICE_OK;
    };
    api_.cfg_f64 = [](const sluice_config *c, const char *key, double *out) {
      const auto *text = find(c, key);
      if (text == nullptr) return SLUICE_E_NOT_FOUND;
      *out = std::stod(*text);
      return SLUICE_OK;
    };
    api_.cfg_str = [](const sluice_config *c, const char *key, const char **out, size_t *length) {
      const auto *text = find(c, key);
      if (text == nullptr) return SLUICE_E_NOT_FOUND;
      *out = text->data();
      *length = text->size();
      return SLUICE_OK;
    };
    api_.cfg_list = [](const sluice_config *c, const char *key, uint32_t i, const char **out, size_t *length) {
      const auto *text = find(c, key);  // separated by commas
      if (text == nullptr) return SLUICE_E_NOT_FOUND;
      size_t begin = 0;
      for (; i > 0; --i) {
        const size_t comma = text->find(',', begin);
        if (comma == text->npos) return SLUICE_E_NOT_FOUND;
        begin = comma + 1;
      }
      *out = text->data() + begin;
      *length = std::min(text->find(',', begin), text->size()) - begin;
      return SLUICE_OK;
    };
    api_.cfg_raw = api_.cfg_str;
    api_.metric = [](sluice_host *, int32_t, const char *, const char *, uint64_t *id) {
      *id = 0;
      return SLUICE_OK;
    };
    api_.metric_update = [](sluice_host *, uint64_t, double) {};
    api_.parallel_for = [](sluice_host *, uint32_t n, void (*fn)(void *, uint32_t, uint32_t), void *ctx) {
      for (uint32_t i = 0; i < n; ++i) fn(ctx, i, 0);
    };
    api_.n_workers = [](sluice_host *) { return 1U; };
    api_.engine_event = [](sluice_host *, const sluice_engine_event *) { return SLUICE_E_NOT_FOUND; };
    api_.get_extension = [](sluice_host *, const char *, uint32_t) -> const void * { return nullptr; };
  }
  const sluice_host_api *api() const { return &api_; }
  const Clock &time() const { return real_time_ ? static_cast<const Clock &>(steady_) : clock; }

  ManualClock clock;

 private:
  static const std::string *find(const sluice_config *config, const char *key) {
    if (config == nullptr) return nullptr;
    const auto &options = *reinterpret_cast<const TestConfig *>(config);
    const auto it = options.find(key);
    return it == options.end() ? nullptr : &it->second;
  }
  const bool real_time_;
  const SteadyClock steady_;
  sluice_host_api api_{};
};

/// The descriptor of a first-party plugin, as built. Libraries stay loaded.
inline const sluice_plugin_desc *load_plugin(const TestHost &host, const std::string &kind, const std::string &name) {
  const std::string path = std::string(SLUICE_PLUGIN_DIR) + "/libsluice_" + kind + "_" + name + ".so";
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    ADD_FAILURE() << dlerror();
    return nullptr;
  }
  const auto entry = reinterpret_cast<sluice_plugin_entry_fn>(dlsym(library, SLUICE_PLUGIN_ENTRY_NAME));
  sluice_status status{};
  status.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
  return entry == nullptr ? nullptr : entry(host.api(), &status);
}

/// A mock backend with a configured model, and a chain of one sampler, ready to be parts of an engine.
class MockModel {
 public:
  struct Use {
    std::string name;
    TestConfig options = {};
    const sluice_decoder_vtbl *own = nullptr;  ///< a test's, in place of the decoder of that name
  };
  MockModel(TestHost &host, const TestConfig &options, const EngineLimits &limits, const std::string &sampler)
      : MockModel(host, options, limits, Use{sampler}, Use{"plain"}) {}
  MockModel(TestHost &host, const TestConfig &options, const EngineLimits &limits, const Use &sampler,
            const Use &decoder, const std::string &backend = "mock", const std::string &path = "/dev/null")
      : host_(host), decoder_name_(decoder.name) {
    sluice_status status{};
    status.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
    const auto ok = [&](int32_t code) { ASSERT_EQ(code, SLUICE_OK) << status.msg; };
    backend_ = load_plugin(host, "backend", backend)->backend;
    sluice_backend_open open{};
    open.struct_size = SLUICE_SIZE_THROUGH(sluice_backend_open, config);
    open.config = handle(options);
    ok(backend_->open(host.api(), &open, &opened_, &status));
    sluice_model_source source{};
    source.struct_size = SLUICE_SIZE_THROUGH(sluice_model_source, progress_ctx);
    source.path = path.c_str();
    ok(backend_->model_load(opened_, &source, &model_, &status));
    sluice_model_setup setup{};
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs);
    setup.max_tokens_per_step = limits.token_budget;
    setup.max_seqs_per_step = limits.max_seqs;
    setup.max_rows_per_step = std::max(limits.max_rows, limits.max_seqs);
    setup.max_tree_nodes = setup.max_rows_per_step;
    const bool branches = limits.max_branches > 1;  // then a request may have as many rows as a step has tokens
    if (branches) setup.max_seqs_per_step = setup.max_rows_per_step = limits.token_budget;
    setup.max_context = limits.max_context;
    setup.block_size = limits.block_size;
    setup.max_logprobs = branches ? 300 : 20;
    ok(backend_->configure(model_, &setup, &limits.kv_blocks, &limits.host_blocks, &status));

    sluice_model_info info{};
    info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
    ok(backend_->model_info(model_, &info, &status));
    sampler_ = load_plugin(host, "sampler", sampler.name)->sampler;
    ok(sampler_->create(host.api(), handle(sampler.options), &info, &sampler_instance_, &status));
    decoder_ = decoder.own != nullptr ? decoder.own : load_plugin(host, "decoder", decoder.name)->decoder;
    sluice_decoder_setup decoder_setup{};
    decoder_setup.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_setup, target);
    decoder_setup.max_seqs = limits.max_seqs;
    decoder_setup.target = &info;
    ok(decoder_->create(host.api(), handle(decoder.options), &decoder_setup, &decoder_instance_, &status));
  }
  ~MockModel() {
    decoder_->destroy(decoder_instance_);
    sampler_->destroy(sampler_instance_);
    backend_->model_unload(model_);
    backend_->close(opened_);
  }

  /// From now on the backend claims to be able to sample nothing, so that rows come to the host.
  void forbid_device_sampling() {
    plain_ = *backend_;
    plain_.sample_caps = [](const sluice_model *, sluice_sample_caps *out, sluice_status *) {
      out->forms = SLUICE_ROW_LOGITS_HOST;
      return SLUICE_OK;
    };
    backend_ = &plain_;
  }

  /// This model as one that drafts for another.
  DraftModelParts drafting_parts(const EngineLimits &limits) const {
    return {"draft model mock", backend_, model_, limits.token_budget};
  }

  /// From now on every n-th batch of block operations is refused (`in_wait` false) or found to have failed.
  void fail_kv_ops(uint64_t every_nth, bool in_wait);

  EngineParts parts(const sluice_scheduler_vtbl *scheduler) const {
    EngineParts parts;
    parts.host = host_.api();
    parts.clock = &host_.time();
    parts.backend_name = "mock";
    parts.backend = backend_;
    parts.model = model_;
    parts.scheduler_name = "under test";
    parts.scheduler = scheduler;
    parts.samplers = {{"under test", sampler_, sampler_instance_}};
    parts.decoder_name = decoder_name_;
    parts.decoder = decoder_;
    parts.decoder_instance = decoder_instance_;
    return parts;
  }

 private:
  struct KvFaults {
    const sluice_backend_vtbl *real = nullptr;
    uint64_t every_nth = 0, n_ops = 0;
    bool in_wait = false;
    std::set<sluice_ticket> failed;
  };
  static KvFaults &kv_faults() {
    static KvFaults faults;
    return faults;
  }

  TestHost &host_;
  std::string decoder_name_;
  const sluice_backend_vtbl *backend_ = nullptr;
  sluice_backend_vtbl plain_{};
  sluice_backend *opened_ = nullptr;
  sluice_model *model_ = nullptr;
  const sluice_sampler_vtbl *sampler_ = nullptr;
  sluice_sampler *sampler_instance_ = nullptr;
  const sluice_decoder_vtbl *decoder_ = nullptr;
  sluice_decoder *decoder_instance_ = nullptr;
};

inline void MockModel::fail_kv_ops(uint64_t every_nth, bool in_wait) {
  kv_faults() = {backend_, every_nth, 0, in_wait, {}};
  plain_ = *backend_;
  plain_.kv_ops = [](sluice_model *model, const sluice_kv_batch *batch, sluice_ticket *out, sluice_status *status) {
    auto &faults = kv_faults();
    const bool fails = ++faults.n_ops % faults.every_nth == 0;
    if (fails && !faults.in_wait) return SLUICE_E_RESOURCE_EXHAUSTED;
    const int32_t code = faults.real->kv_ops(model, batch, out, status);
    if (fails && code == SLUICE_OK) faults.failed.insert(*out);
    return code;
  };
  plain_.wait = [](sluice_model *model, sluice_ticket ticket, uint64_t timeout_ns, sluice_step_result *out,
                   sluice_status *status) {
    const int32_t code = kv_faults().real->wait(model, ticket, timeout_ns, out, status);
    return code == SLUICE_OK && kv_faults().failed.count(ticket) > 0 ? SLUICE_E_INTERNAL : code;
  };
  backend_ = &plain_;
}

}  // namespace sluice::engine::testing

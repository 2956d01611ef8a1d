#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/base/clock.hpp"
#include "core/plugin/instances.hpp"

namespace sluice::isolation::testing {

/// A host table whose options are texts in a map, as a test writes them.
using TestConfig = std::map<std::string, std::string>;

class TestHost {
 public:
  TestHost() {
    api_.struct_size = SLUICE_SIZE_THROUGH(sluice_host_api, get_extension);
    api_.abi_major = SLUICE_ABI_MAJOR, api_.abi_minor = SLUICE_ABI_MINOR;
    api_.host_version = "0.0.0-test";
    api_.host = reinterpret_cast<sluice_host *>(this);
    api_.log = [](sluice_host *, int32_t, const char *, const char *, size_t) {};
    api_.now_ns = [](sluice_host *) { return SteadyClock().now_ns(); };
    api_.cfg_bool = [](const sluice_config *c, const char *key, int32_t *out) {
      const auto *text = find(c, key);
      if (text != nullptr) *out = *text == "true" ? 1 : 0;
      return text == nullptr ? SLUICE_E_NOT_FOUND : SLUICE_OK;
    };
    api_.cfg_i64 = [](const sluice_config *c, const char *key, int64_t *out) {
      const auto *text = find(c, key);
      if (text != nullptr) *out = std::stoll(*text);
      return text == nullptr ? SLUICE_E_NOT_FOUND : SLUICE_OK;
    };
    api_.cfg_f64 = [](const sluice_config *c, const char *key, double *out) {
      const auto *text = find(c, key);
      if (text != nullptr) *out = std::stod(*text);
      return text == nullptr ? SLUICE_E_NOT_FOUND : SLUICE_OK;
    };
    api_.cfg_str = [](const sluice_config *c, const char *key, const char **out, size_t *length) {
      const auto *text = find(c, key);
      if (text != nullptr) *out = text->data(), *length = text->size();
      return text == nullptr ? SLUICE_E_NOT_FOUND : SLUICE_OK;
    };
    api_.cfg_list = [](const sluice_config *, const char *, uint32_t, const char **, size_t *) { return SLUICE_E_NOT_FOUND; };
    api_.cfg_raw = api_.cfg_str;
    api_.metric = [](sluice_host *, int32_t, const char *, const char *, uint64_t *id) { return *id = 0, SLUICE_OK; };
    api_.metric_update = [](sluice_host *, uint64_t, double) {};
    api_.parallel_for = [](sluice_host *, uint32_t n, void (*fn)(void *, uint32_t, uint32_t), void *ctx) {
      for (uint32_t i = 0; i < n; ++i) fn(ctx, i, 0);
    };
    api_.n_workers = [](sluice_host *) { return 1U; };
    api_.engine_event = [](sluice_host *, const sluice_engine_event *) { return SLUICE_E_NOT_FOUND; };
    api_.get_extension = [](sluice_host *, const char *, uint32_t) -> const void * { return nullptr; };
  }
  const sluice_host_api *api() const { return &api_; }

 private:
  static const std::string *find(const sluice_config *config, const char *key) {
    if (config == nullptr) return nullptr;
    const auto &options = *reinterpret_cast<const TestConfig *>(config);
    const auto at = options.find(key);
    return at == options.end() ? nullptr : &at->second;
  }
  sluice_host_api api_{};
};

/// What a step answered, copied out.
struct Answered {
  int32_t code = SLUICE_OK;
  std::string message;
  std::vector<int32_t> token, top_ids, cand_ids;
  std::vector<float> logprob, top_logprobs, cand_logits, lse, logits;
  friend bool operator==(const Answered &, const Answered &) = default;
};

/// A mock behind some backend table, with one sequence that goes on one token a step.
class MockSteps {
 public:
  static constexpr uint32_t kVocab = 512, kTop = 3, kCandidates = 5;

  MockSteps(const TestHost &host, const sluice_backend_vtbl *table, const TestConfig &options) : table_(table) {
    sluice_backend_open open{};
    open.struct_size = SLUICE_SIZE_THROUGH(sluice_backend_open, config);
    open.config = reinterpret_cast<const sluice_config *>(&options);
    if (!ok(table->open(host.api(), &open, &backend_, &status()))) return;
    load();
  }
  MockSteps(const sluice_backend_vtbl *table, sluice_backend *backend) : table_(table), backend_(backend) { load(); }
  ~MockSteps() {
    if (model_ != nullptr) table_->model_unload(model_);
    if (backend_ != nullptr) table_->close(backend_);
  }
  MockSteps(const MockSteps &) = delete;
  MockSteps &operator=(const MockSteps &) = delete;

  bool ready() const { return ready_; }
  const std::string &why() const { return why_; }
  sluice_backend *backend() const { return backend_; }

  /// Feeds the next token and takes everything a row can give.
  Answered step() {
    Answered out;
    out.code = SLUICE_E_UNAVAILABLE, out.message = why_;
    if (!ready_) return out;
    const int32_t token = n_ == 0 ? 7 : last_, position = static_cast<int32_t>(n_);
    const uint32_t slot = n_, q_indptr[] = {0, 1}, kv_len = n_, block_indptr[] = {0, n_ / 16 + 1};
    const uint32_t blocks[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, row_token = 0, row_spec = 0, row_position = n_ + 1;
    const sluice_seq_id seq = 1;
    const uint64_t seed = 42;
    const uint8_t want = SLUICE_ROW_TOKEN | SLUICE_ROW_CANDIDATES | SLUICE_ROW_LOGITS_HOST;
    sluice_sample_spec spec{};
    spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
    spec.flags = SLUICE_SPF_LOGPROB;
    spec.n_stages = 1, spec.stage[0] = SLUICE_STAGE_TEMPERATURE, spec.temperature = 0.8f;
    spec.n_logprobs = kTop;
    sluice_step s{};
    s.struct_size = SLUICE_SIZE_THROUGH(sluice_step, row_history);
    s.step_no = n_ + 1, s.n_tokens = s.n_seqs = s.n_rows = s.n_kv_groups = 1;
    s.tokens = &token, s.positions = &position, s.slots = &slot, s.seq_ids = &seq, s.q_indptr = q_indptr;
    s.kv_len = &kv_len, s.block_indptr = block_indptr, s.block_ids = blocks, s.row_token = &row_token;
    s.row_want = &want, s.spec = &spec, s.n_specs = 1, s.spec_stride = sizeof spec, s.row_spec = &row_spec;
    s.row_seed = &seed, s.row_position = &row_position, s.n_candidates = kCandidates;
    sluice_ticket ticket = 0;
    out.code = table_->submit(model_, &s, &ticket, &status());
    if (out.code == SLUICE_OK) {
      sluice_step_result result{};
      result.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
      do {
        out.code = table_->wait(model_, ticket, 100'000'000, &result, &status());
      } while (out.code == SLUICE_E_TIMEOUT && ++timeouts_ < 50);
      if (out.code == SLUICE_OK) copy(result, out);
      table_->release(model_, ticket);
    }
    if (out.code != SLUICE_OK) {
      out.message = status_.msg;
      return out;
    }
    last_ = out.token.empty() ? 7 : out.token[0];
    ++n_;
    return out;
  }

 private:
  void load() {
    sluice_model_source source{};
    source.struct_size = SLUICE_SIZE_THROUGH(sluice_model_source, progress_ctx);
    source.path = "/dev/null";
    if (!ok(table_->model_load(backend_, &source, &model_, &status()))) return;
    sluice_model_info info{};
    info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
    if (!ok(table_->model_info(model_, &info, &status()))) return;
    sluice_model_setup setup{};
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs);
    setup.max_tokens_per_step = 16, setup.max_seqs_per_step = setup.max_rows_per_step = 4, setup.max_context = 64;
    setup.block_size = 16, setup.max_candidates = kCandidates, setup.max_logprobs = kTop;
    const uint32_t blocks = 4;
    ready_ = ok(table_->configure(model_, &setup, &blocks, nullptr, &status()));
  }
  sluice_status &status() {
    status_ = {};
    status_.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
    return status_;
  }
  bool ok(int32_t code) {
    if (code != SLUICE_OK) why_ = status_.msg;
    return code == SLUICE_OK;
  }
  template <class T> static void take(std::vector<T> &out, const T *p, size_t n) {
    if (p != nullptr) out.assign(p, p + n);
  }
  static void copy(const sluice_step_result &r, Answered &out) {
    take(out.token, r.token, 1), take(out.logprob, r.logprob, 1);
    take(out.top_ids, r.top_ids, r.n_top), take(out.top_logprobs, r.top_logprobs, r.n_top);
    take(out.cand_ids, r.cand_ids, kCandidates), take(out.cand_logits, r.cand_logits, kCandidates);
    take(out.lse, r.row_lse, 1), take(out.logits, r.logits_host, kVocab);
  }

  const sluice_backend_vtbl *table_;
  sluice_backend *backend_ = nullptr;
  sluice_model *model_ = nullptr;
  sluice_status status_{};
  std::string why_;
  bool ready_ = false;
  uint32_t n_ = 0;
  int timeouts_ = 0;
  int32_t last_ = 0;
};

}  // namespace sluice::isolation::testing

// Drives a sampler plugin through its table.
#pragma once
#include <gtest/gtest.h>
#include <sluice/sdk/sampling.hpp>

#include <cmath>
#include <limits>
#include <memory>

#include "tests/support/loaded_plugin.hpp"

namespace sluice::test {

/// All stages of v0 in any order, the canonical draw.
inline sluice_sample_caps every_cap() {
  sluice_sample_caps caps{};
  caps.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_caps, logprobs_kinds);
  caps.flags = SLUICE_SCF_ANY_ORDER | SLUICE_SCF_TOP_K_TIES | SLUICE_SCF_CANONICAL_DRAW;
  caps.stages = (SLUICE_STAGE_BIT(SLUICE_STAGE_MIN_P) << 1) - 2;
  caps.forms = SLUICE_ROW_TOKEN | SLUICE_ROW_CANDIDATES | SLUICE_ROW_LOGITS_HOST;
  return caps;
}
inline sluice_sample_spec empty_spec() {
  sluice_sample_spec spec{};
  spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  spec.temperature = spec.top_p = spec.repetition = 1;
  return spec;
}

class SamplerDriver {
 public:
  SamplerDriver(const std::string &name, uint32_t vocab, const PluginConfig::Values &options = {})
      : vocab_(vocab), desc_(load_plugin(SLUICE_PLUGIN_DIR, "sampler", name, host_)) {
    const PluginConfig config(desc_, options);
    sluice_model_info info{};
    info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch), info.vocab_size = vocab;
    check(vtbl().create(&host_.api, config.handle(), &info, &sampler_, status));
  }
  ~SamplerDriver() {
    for (sluice_sampler_seq *seq : seqs_) vtbl().seq_close(sampler_, seq);
    if (sampler_ != nullptr) vtbl().destroy(sampler_);
  }
  SamplerDriver(const SamplerDriver &) = delete;
  SamplerDriver &operator=(const SamplerDriver &) = delete;

  void check(int32_t code) {
    if (code != SLUICE_OK) throw std::runtime_error(status.text());
  }
  /// A sequence with these request options and nothing else set.
  sluice_sampler_seq *open(const PluginConfig::Values &request = {}, const std::vector<int32_t> &prompt = {1}) {
    const PluginConfig config(desc_, request, false);
    sluice_seq_start start{};
    start.struct_size = SLUICE_SIZE_THROUGH(sluice_seq_start, request);
    start.prompt = prompt.data(), start.n_prompt = static_cast<uint32_t>(prompt.size()), start.max_new = 100;
    start.request = request.empty() ? nullptr : config.handle();
    sluice_sampler_seq *seq = nullptr;
    check(vtbl().seq_open(sampler_, &start, &seq, status));
    seqs_.push_back(seq);
    return seq;
  }
  sluice_sampler_seq *fork(const sluice_sampler_seq *from) {
    sluice_sampler_seq *seq = nullptr;
    check(vtbl().seq_fork(sampler_, from, &seq, status));
    seqs_.push_back(seq);
    return seq;
  }
  int32_t validate(const PluginConfig::Values &request) {
    const PluginConfig config(desc_, request, false);
    return vtbl().validate(sampler_, config.handle(), status);
  }
  void commit(sluice_sampler_seq *seq, const std::vector<int32_t> &tokens) {
    const uint32_t indptr[] = {0, static_cast<uint32_t>(tokens.size())};
    check(vtbl().commit(sampler_, &seq, indptr, tokens.data(), nullptr, 1, status));
  }
  int32_t lower(const sluice_sampler_seq *seq, sluice_sample_spec &spec, const sluice_sample_caps &caps = every_cap()) {
    return vtbl().lower(sampler_, seq, &caps, &spec, status);
  }

  /// Rows of one call. Without parents every row is judged in the committed state.
  struct Batch {
    std::vector<sluice_sampler_seq *> seqs;
    std::vector<std::vector<float>> rows;
    std::vector<int32_t> parents{}, tokens{};
  };
  /// Edits batch.rows in place and returns the chosen tokens.
  std::vector<int32_t> apply(Batch &batch) {
    const size_t n = batch.rows.size();
    std::vector<float> flat, logprob(n, NAN);
    for (const auto &row : batch.rows) flat.insert(flat.end(), row.begin(), row.end());
    batch.parents.resize(n, -1), batch.tokens.resize(n, -1);
    std::vector<int32_t> chosen(n, -1);
    const std::vector<uint64_t> seed(n, 1);
    const std::vector<uint32_t> position(n, 1);
    sluice_sample_batch b{};
    b.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_batch, sync);
    b.form = SLUICE_ROW_LOGITS_HOST, b.n_rows = static_cast<uint32_t>(n), b.vocab_size = vocab_;
    b.row_seq = batch.seqs.data(), b.row_parent = batch.parents.data(), b.row_token = batch.tokens.data();
    b.row_seed = seed.data(), b.row_position = position.data(), b.logits_host = flat.data();
    sluice_sample_out out{};
    out.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_out, token_dev);
    out.token = chosen.data(), out.logprob = logprob.data();
    check(vtbl().apply(sampler_, &b, &out, status));
    for (size_t r = 0; r < n; ++r)
      batch.rows[r].assign(flat.begin() + static_cast<std::ptrdiff_t>(r * vocab_),
                           flat.begin() + static_cast<std::ptrdiff_t>((r + 1) * vocab_));
    return chosen;
  }
  std::vector<float> apply(sluice_sampler_seq *seq, std::vector<float> row) {
    Batch batch{{seq}, {std::move(row)}};
    apply(batch);
    return batch.rows[0];
  }
  const sluice_sampler_vtbl &vtbl() const { return *desc_.sampler; }
  sluice_sampler *sampler() { return sampler_; }

  PluginStatus status;

 private:
  PluginHost host_;
  uint32_t vocab_;
  const sluice_plugin_desc &desc_;
  sluice_sampler *sampler_ = nullptr;
  std::vector<sluice_sampler_seq *> seqs_;
};

}  // namespace sluice::test

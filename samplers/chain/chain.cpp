// The usual chain: bias, penalties, temperature, min-p, top-k and top-p, in a configurable order. It never chooses: THE
// DRAW over what it leaves does, on the device when the backend can run the stages, else on the host.
//
// source  top-p: Holtzman et al. 2020. min-p: Nguyen et al. 2024, arXiv:2407.01082. repetition: Keskar et al. 2019.
#include "settings.hpp"

#include <sluice/sdk/sampler.hpp>
#include <sluice/sdk/sampling.hpp>

#include <algorithm>

namespace sluice::chain {
namespace {

struct Sequence {
  Settings settings;
  sdk::TokenHistory history;  // kept only for penalties
};

class Chain final : public sdk::Sampler<Sequence> {
 public:
  static constexpr uint32_t kFlags = SLUICE_SMPF_PROCESSOR | SLUICE_SMPF_STATEFUL;
  /// Not candidates: a penalty may let a token that is not among them win.
  static constexpr uint32_t kForms = SLUICE_ROW_TOKEN | SLUICE_ROW_LOGITS_HOST;
  static constexpr uint32_t kMinCandidates = 0;

  Chain(const sluice_host_api &, const sdk::Config &config, const sluice_model_info &model)
      : defaults_(config, model.vocab_size) {}

  void validate(const sdk::Config &request) const override { defaults_.apply(request); }

  Sequence open(const sluice_seq_start &start, const sdk::Config &request) override {
    constexpr size_t kReserveTokens = 4096;
    Sequence s{defaults_.apply(request), {}};
    if (!s.settings.penalises()) return s;
    s.history.reset(start.n_prompt + std::min<size_t>(start.max_new, kReserveTokens));
    s.history.append_prompt(start.prompt, start.n_prompt);
    return s;
  }

  /// All of its stages or none: what is not lowered wholly, apply() does wholly.
  bool lower(const Sequence &s, const sluice_sample_caps &caps, sluice_sample_spec &spec) const override {
    const sluice_sample_spec &own = s.settings.spec;
    if (own.n_stages == 0) return true;
    if (spec.n_stages + own.n_stages > SLUICE_MAX_STAGES) return false;
    uint8_t last = 0;
    for (uint32_t i = 0; i < spec.n_stages; ++i) {
      if (spec.stage[i] != SLUICE_STAGE_MASK) return false;  // a spec holds one value per parameter
      last = std::max(last, spec.stage[i]);
    }
    for (uint32_t i = 0; i < own.n_stages; ++i) {
      const uint8_t stage = own.stage[i];
      if ((caps.stages & SLUICE_STAGE_BIT(stage)) == 0) return false;
      if ((caps.flags & SLUICE_SCF_ANY_ORDER) == 0 && stage < last) return false;
      last = stage;
      if (stage != SLUICE_STAGE_TOP_K) continue;
      if (caps.max_top_k != 0 && static_cast<uint32_t>(own.top_k) > caps.max_top_k) return false;
      if ((own.flags & SLUICE_SPF_TOP_K_TIES) != 0 && (caps.flags & SLUICE_SCF_TOP_K_TIES) == 0) return false;
    }
    std::copy_n(own.stage, own.n_stages, spec.stage + spec.n_stages);
    spec.n_stages += own.n_stages, spec.flags |= own.flags;
    spec.temperature = own.temperature, spec.top_k = own.top_k, spec.top_p = own.top_p, spec.min_p = own.min_p;
    spec.repetition = own.repetition, spec.frequency = own.frequency, spec.presence = own.presence;
    spec.penalty_prompt = own.penalty_prompt, spec.penalty_last_n = own.penalty_last_n;
    return true;
  }

  void bias(const Sequence &s, BiasOut &out) const override {
    for (size_t i = 0; i < s.settings.bias_token.size(); ++i)
      out.add(s.settings.bias_token[i], s.settings.bias_value[i]);
  }

  void apply(const sdk::Rows<Sequence> &rows, sluice_sample_out &) const override {
    for (uint32_t r = 0; r < rows.size(); ++r) {
      const Sequence &s = rows.seq(r);
      sdk::RowInputs in;
      in.bias_token = s.settings.bias_token.data(), in.bias_value = s.settings.bias_value.data();
      in.n_bias = static_cast<uint32_t>(s.settings.bias_token.size());
      if (s.settings.penalises()) count(rows, r, in);
      sampler_.run(rows.logits(r), rows.b.vocab_size, s.settings.spec, in);
      sampler_.write_back();
    }
  }

  void commit(Sequence &s, const int32_t *tokens, const float *, uint32_t n) override {
    if (s.settings.penalises()) s.history.append_output(tokens, n);
  }

 private:
  /// Counts for the row: what is committed, and the drafts on the way to it.
  void count(const sdk::Rows<Sequence> &rows, uint32_t r, sdk::RowInputs &in) const {
    path_.clear();
    for (int32_t at = static_cast<int32_t>(r); at >= 0 && rows.b.row_parent[at] >= 0; at = rows.b.row_parent[at])
      path_.push_back(rows.b.row_token[at]);
    std::reverse(path_.begin(), path_.end());
    const Sequence &s = rows.seq(r);
    const uint32_t last_n = s.settings.spec.penalty_last_n;
    const bool as_is = path_.empty() && last_n == 0;
    if (!as_is) s.history.counts(path_.data(), path_.size(), last_n, path_history_);
    const std::vector<sdk::TokenCount> &counts = as_is ? s.history.counts() : path_history_.counts();
    in.counts = counts.data(), in.n_counts = counts.size();
  }

  const Defaults defaults_;
  // memory of apply(), which runs on one thread
  mutable sdk::RowSampler sampler_;
  mutable sdk::TokenHistory path_history_;
  mutable std::vector<int32_t> path_;
};

}  // namespace
}  // namespace sluice::chain

SLUICE_SAMPLER_PLUGIN(sluice::chain::Chain, "chain", "0.1.0", sluice::chain::kFields);

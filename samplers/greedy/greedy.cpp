// The best token of every row: the largest logit, the lowest id among equals.
#include <sluice/sdk/sampler.hpp>
#include <sluice/sdk/sampling.hpp>

namespace {
using namespace sluice::sdk;

struct Nothing {};

class Greedy final : public Sampler<Nothing> {
 public:
  static constexpr uint32_t kFlags = 0;
  static constexpr uint32_t kForms = SLUICE_ROW_TOKEN | SLUICE_ROW_CANDIDATES | SLUICE_ROW_LOGITS_HOST;
  static constexpr uint32_t kMinCandidates = 1;

  Greedy(const sluice_host_api &, const Config &, const sluice_model_info &) {}
  Nothing open(const sluice_seq_start &, const Config &) override { return {}; }

  /// A temperature of 0 on the device: four bytes come back instead of a row.
  bool lower(const Nothing &, const sluice_sample_caps &caps, sluice_sample_spec &spec) const override {
    const bool runs = (caps.stages & SLUICE_STAGE_BIT(SLUICE_STAGE_TEMPERATURE)) != 0;
    const bool any_order = (caps.flags & SLUICE_SCF_ANY_ORDER) != 0;
    if (!runs || spec.n_stages == SLUICE_MAX_STAGES) return false;
    for (uint32_t i = 0; i < spec.n_stages; ++i) {
      if (spec.stage[i] == SLUICE_STAGE_TEMPERATURE) return false;  // it has one temperature only
      if (!any_order && spec.stage[i] > SLUICE_STAGE_TEMPERATURE) return false;
    }
    spec.stage[spec.n_stages++] = SLUICE_STAGE_TEMPERATURE;
    spec.temperature = 0;
    return true;
  }

  void apply(const Rows<Nothing> &rows, sluice_sample_out &out) const override {
    for (uint32_t r = 0; r < rows.size(); ++r)  // a row of -inf alone stays -1: the host fails that request only
      out.token[r] = rows.b.form == SLUICE_ROW_CANDIDATES ? best_candidate(rows, r)
                                                          : row_argmax(rows.logits(r), rows.b.vocab_size);
  }

 private:
  /// Samplers before this one may have changed logits, so the first candidate need not be the best.
  static int32_t best_candidate(const Rows<Nothing> &rows, uint32_t r) {
    DrawBest best;
    for (uint32_t i = 0; i < rows.b.n_candidates && rows.cand_ids(r)[i] >= 0; ++i)
      best.offer(rows.cand_logits(r)[i], rows.cand_ids(r)[i]);
    return best.best.id;
  }
};

constexpr sluice_config_field kFields[] = {
    f64_field("temperature", "0, the only value that greedy knows; use the sampler `chain` for others", "0", 0, 0,
              SLUICE_CFGF_PER_REQUEST)};
}  // namespace

SLUICE_SAMPLER_PLUGIN(Greedy, "greedy", "0.1.0", kFields);

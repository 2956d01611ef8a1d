#pragma once
#include "backends/graph/settings.hpp"

#include <vector>

namespace sluice::graph {

/// Refuses what a step must not contain, before anything of it is used. Keeps a stamp per slot to find two tokens that
/// would be stored in one place. [engine]
class StepCheck {
 public:
  StepCheck() = default;
  StepCheck(const ModelShape &shape, const Settings &settings);

  /// errors  INVALID_ARGUMENT, UNSUPPORTED; the message names array, index, value and bound
  void check(const sluice_step &step);
  std::vector<KvMove> check(const sluice_kv_batch &batch) const;

 private:
  void check_sequences(const sluice_step &step) const;
  void check_tokens(const sluice_step &step);
  void check_tree(const sluice_step &step) const;
  void check_rows(const sluice_step &step) const;
  void check_row_inputs(const sluice_step &step) const;
  void check_specs(const sluice_step &step) const;
  void check_history(const sluice_step &step) const;

  ModelShape shape_;
  Settings settings_;
  std::vector<uint64_t> stored_at_;  ///< by slot: the check that last stored there
  uint64_t stamp_ = 0;
};

/// Stages and forms that submit takes.
constexpr uint64_t kStages = SLUICE_STAGE_BIT(SLUICE_STAGE_MASK) | SLUICE_STAGE_BIT(SLUICE_STAGE_BIAS) |
                             SLUICE_STAGE_BIT(SLUICE_STAGE_REPETITION) | SLUICE_STAGE_BIT(SLUICE_STAGE_FREQUENCY) |
                             SLUICE_STAGE_BIT(SLUICE_STAGE_PRESENCE) | SLUICE_STAGE_BIT(SLUICE_STAGE_TEMPERATURE) |
                             SLUICE_STAGE_BIT(SLUICE_STAGE_TOP_K) | SLUICE_STAGE_BIT(SLUICE_STAGE_TOP_P) |
                             SLUICE_STAGE_BIT(SLUICE_STAGE_MIN_P);
inline uint32_t row_forms(const ModelShape &shape) {
  return SLUICE_ROW_TOKEN | SLUICE_ROW_CANDIDATES | SLUICE_ROW_LOGITS_HOST |
         (shape.n_heads > 0 ? SLUICE_ROW_HEADS : 0u);
}

}  // namespace sluice::graph

// Rows of a step: from a choice to what the host asked for.
#pragma once
#include "script.hpp"

#include <sluice/abi/step.h>
#include <sluice/sdk/sampling.hpp>

#include <cstdint>
#include <vector>

namespace sluice::mock {

/// The memory behind a sluice_step_result; kept from step to step.
struct RowResults {
  uint32_t n_rows = 0, n_top = 0;
  bool has_candidates = false, has_logits = false;
  std::vector<int32_t> token, top_ids, cand_ids;
  std::vector<float> logprob, top_logprobs, cand_logits, row_lse, logits;

  void reserve(uint32_t max_rows) { token.reserve(max_rows), logprob.reserve(max_rows); }
  /// Sets the pointers of what was asked for.
  void give(sluice_step_result &out) const;
};

/// Decides rows. A row of logits is made only when the answer does not follow from the choice alone.
class RowDecider {
 public:
  explicit RowDecider(const ScriptOptions &script) : script_(script) {}
  void configure(uint32_t max_seqs) { histories_.assign(max_seqs, {}); }

  /// Appends the step's history entries, in order.
  void update_history(const sluice_step &step);
  /// Sizes and empties the results.
  void begin(const sluice_step &step, RowResults &results) const;
  /// Row r, whose sequence begins at token seq_begin and has its first row at token first_row; tokens [n_tokens] with
  /// fed ones resolved.
  /// errors  sdk::Error kInvalidArgument (a parameter of the spec).
  void decide(const sluice_step &step, uint32_t r, const Choice &choice, const int32_t *tokens, uint32_t seq_begin,
              uint32_t first_row, RowResults &results);

 private:
  bool decide_at_once(const sluice_sample_spec &spec, uint8_t want, const Choice &choice, uint32_t r,
                      RowResults &results) const;
  sdk::RowInputs inputs(const sluice_step &step, uint32_t r, const sluice_sample_spec &spec, const int32_t *tokens,
                        uint32_t seq_begin, uint32_t first_row);

  const ScriptOptions &script_;
  sdk::RowSampler sampler_;
  std::vector<sdk::TokenHistory> histories_;  // by slot
  sdk::TokenHistory path_history_;            // of the row at hand
  std::vector<int32_t> path_;
  std::vector<float> row_;
};

inline const sluice_sample_spec &spec_of(const sluice_step &step, uint32_t index) {
  return *reinterpret_cast<const sluice_sample_spec *>(reinterpret_cast<const char *>(step.spec) +
                                                       size_t{index} * step.spec_stride);
}

}  // namespace sluice::mock

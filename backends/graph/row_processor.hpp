// From logits to what the host asked of each row: stages, draw, logprobs, candidates.
#pragma once
#include "backends/graph/settings.hpp"

#include <sluice/abi/kinds/backend.h>
#include <sluice/sdk/sampling.hpp>

#include <memory>
#include <vector>

namespace sluice::graph {

/// The arrays behind a sluice_step_result. Sized once; large ones are touched only when used.
class RowResults {
 public:
  RowResults() = default;
  RowResults(const Settings &settings, const ModelShape &shape);
  static uint64_t bytes(const Settings &settings, const ModelShape &shape);

  /// Spreads what the heads gave over the rows that asked; after process() of the same step.
  /// ids, logprobs  [head rows, n_heads, head_top]
  void take_heads(const sluice_step &step, const int32_t *ids, const float *logprobs);
  /// Points out at the arrays; what nobody asked for is NULL.
  void describe(sluice_step_result &out) const;

 private:
  friend class RowProcessor;
  uint32_t n_rows_ = 0, n_top_ = 0, n_candidates_ = 0;
  uint32_t head_entries_ = 0;  ///< n_heads * head_top
  uint32_t wanted_ = 0;  ///< union of row_want
  bool logprobs_ = false;
  std::vector<int32_t> token_, top_ids_, cand_ids_, head_ids_;
  std::vector<float> logprob_, top_logprobs_, cand_logits_, row_lse_, head_logprobs_;
  std::unique_ptr<float[]> logits_;
};

/// Keeps the token histories and runs the rows of a step, one task per row on the host's pool. [engine]
class RowProcessor {
 public:
  RowProcessor(const sluice_host_api &host, const Settings &settings, uint32_t vocab);
  /// Scratch of the workers; histories grow with what they hold.
  static uint64_t workspace_bytes(uint32_t vocab, uint32_t workers);

  /// Before the rows of the same step are processed.
  void extend_histories(const sluice_step &step);
  /// logits [n_rows, vocab] f32; overwritten by the stages.
  void process(const sluice_step &step, float *logits, RowResults &out);

 private:
  /// What one thread keeps from row to row.
  struct Worker {
    sdk::RowSampler sampler;
    sdk::TokenHistory counted;
    std::vector<int32_t> path;
  };
  void process_row(const sluice_step &step, uint32_t row, float *logits, Worker &worker, RowResults &out) const;
  sdk::RowInputs inputs_of(const sluice_step &step, uint32_t row, const sluice_sample_spec &spec, Worker &worker) const;

  const sluice_host_api &host_;
  uint32_t vocab_;
  std::vector<sdk::TokenHistory> histories_;  ///< by slot
  std::vector<Worker> workers_;
};

}  // namespace sluice::graph

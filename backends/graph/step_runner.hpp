// Brings a step to the device: fills the argument buffers, plans attention, runs the program.
#pragma once
#include "backends/graph/attention_planner.hpp"
#include "backends/graph/program.hpp"
#include "backends/graph/settings.hpp"

namespace sluice::graph {

/// Owns the argument and activation buffers of one configured model. [engine]
class StepRunner {
 public:
  /// split_tokens  visible tokens per attention split; 0 = as many splits as the device can use, so that results
  ///               depend on its number of workers
  StepRunner(Device &device, const Program &program, const Settings &settings, uint32_t split_tokens);
  ~StepRunner();
  StepRunner(const StepRunner &) = delete;
  StepRunner &operator=(const StepRunner &) = delete;

  /// Bytes of the buffers that the constructor takes.
  static uint64_t buffer_bytes(const Program &program, const StepLimits &limits);

  /// Enqueues a checked step and returns its fence.
  uint64_t run(const sluice_step &step);
  /// [step.n_rows, vocab] f32 of the last step, once its fence has passed. May be overwritten.
  float *logits() const;
  /// [head rows, n_heads, head_top] of the last step, likewise.
  const int32_t *head_ids() const;
  const float *head_logprobs() const;

 private:
  uint32_t fill_args(const sluice_step &step);  ///< how many head rows there are
  StepShape plan(const sluice_step &step, uint32_t head_rows);

  Device &device_;
  const Program &program_;
  Settings settings_;
  uint32_t split_tokens_;
  StepArgs args_;
};

}  // namespace sluice::graph

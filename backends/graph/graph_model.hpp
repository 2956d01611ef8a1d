// One loaded model behind the step interface: check, run, process rows, hand out results.
#pragma once
#include "backends/graph/row_processor.hpp"
#include "backends/graph/step_check.hpp"
#include "backends/graph/step_runner.hpp"
#include "core/model_file/safetensors.hpp"

#include <sluice/sdk/backend.hpp>

#include <memory>
#include <mutex>
#include <optional>

namespace sluice::graph {

struct ModelOptions {
  KvType default_kv = KvType::kF16;
  /// Logits of a row do not depend on its company, on chunking or on the number of workers.
  bool deterministic = true;
};

/// A model of any architecture on any device, as the backend adapter of the SDK wants it; threads and errors are those
/// of sluice_backend_vtbl.
///
/// Rows are processed on the host, in submit(), once the device has finished: that fits devices in host memory, whose
/// queue is never behind. A device with kernels of its own for it will take this over.
class GraphModel final : public sdk::Model {
 public:
  GraphModel(const sluice_host_api &host, std::unique_ptr<Device> device, const sluice_model_source &source,
             const ModelOptions &options);

  void info(sluice_model_info &out) const override;
  void plan_memory(const sluice_model_setup &setup, sluice_memory_plan &out) const override;
  std::vector<sluice_kv_group> kv_groups(const sluice_model_setup &setup) const override;
  void configure(const sluice_model_setup &setup, const uint32_t *device_blocks, const uint32_t *host_blocks) override;
  void sample_caps(sluice_sample_caps &out) const override;
  sluice_ticket submit(const sluice_step &step) override;
  sluice_ticket kv_ops(const sluice_kv_batch &batch) override;
  bool wait(sluice_ticket ticket, uint64_t timeout_ns, sluice_step_result *out) override;
  void release(sluice_ticket ticket) override;

 private:
  uint64_t workspace_bytes(const Settings &settings) const;

  const sluice_host_api &host_;
  model_file::Gguf file_;  ///< outlives device_, which borrows from it; so does heads_
  std::optional<model_file::Safetensors> heads_;
  std::unique_ptr<Device> device_;
  ModelOptions options_;
  BuiltModel built_;

  Settings settings_;
  StepCheck check_;
  std::unique_ptr<StepRunner> runner_;
  std::unique_ptr<RowProcessor> rows_;

  /// Always: a slot is in use from submit() to release().
  struct ResultSlot {
    sluice_ticket ticket = 0;
    RowResults results;
    uint64_t device_ns = 0;
  };
  static constexpr size_t kResultSlots = 2;
  std::mutex mutex_;  ///< guards results_ and last_ticket_ against wait() from other threads
  std::vector<ResultSlot> results_;
  sluice_ticket last_ticket_ = 0;
};

}  // namespace sluice::graph

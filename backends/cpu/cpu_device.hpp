// Fused operations over the host's worker pool and the kernels of the best instruction set.
#pragma once
#include "backends/cpu/kernels/kernel_table.h"
#include "backends/cpu/workers.hpp"
#include "backends/graph/host_device.hpp"

#include <sluice/sdk/row_math.hpp>

#include <vector>

namespace sluice::cpu {

/// Deterministic: a row's result does not depend on what else is in the step, on chunks, or on the number of workers.
class CpuDevice final : public graph::HostDevice {
 public:
  CpuDevice(const sluice_host_api &host, const KernelTable &kernels);

  const char *name() const override { return "cpu"; }
  bool supports(graph::OpKind, graph::TensorType) const override { return true; }
  graph::WeightId add_weight(const graph::WeightSource &source) override;
  uint64_t weights_bytes() const override { return weights_bytes_; }
  uint64_t scratch_bytes(const graph::StepLimits &limits, std::span<const graph::Op> program) const override;
  void configure(const graph::StepLimits &limits, std::span<const graph::Op> program,
                 const graph::KvShape &kv) override;
  uint32_t attention_parallelism() const override { return 2 * workers_.count(); }

  void embed(const graph::EmbedOp &op) override;
  void norm(const graph::NormOp &op) override;
  void linear(const graph::LinearOp &op) override;
  void linear_glu(const graph::LinearGluOp &op) override;
  void rope_kv(const graph::RopeKvOp &op) override;
  void attention(const graph::AttentionOp &op) override;
  void silu_add(const graph::SiluAddOp &op) override;
  void top(const graph::TopOp &op) override;

 private:
  /// One packed matrix, or for lookups its rows as the file has them.
  struct Packed {
    Layout layout{};
    graph::TensorType type{};
    uint64_t rows = 0, tile_bytes = 0;
    graph::HostBlock bytes;
    const uint8_t *tile(uint32_t i) const { return reinterpret_cast<const uint8_t *>(bytes.data()) + i * tile_bytes; }
  };
  struct Weight {
    uint64_t n_inputs = 0;
    bool quantised_input = false;
    std::vector<Packed> segments;
  };
  /// Sizes of the private scratch, for planning and for taking it.
  struct Scratch {
    uint64_t quantised_rows = 0, quantised_width = 0;  ///< of the activations in i8
    uint64_t attend_floats = 0;                        ///< per worker
    uint64_t partial_floats = 0;
    uint64_t window_words = 0;  ///< u32 per worker: visible window tokens of a tile
    uint64_t bytes(uint32_t workers) const;
  };
  static Scratch scratch_for(const graph::StepLimits &limits, std::span<const graph::Op> program);

  const Weight &weight(graph::WeightId id) const { return weights_[id.id - 1]; }
  ProductInput prepare_input(const Weight &weight, graph::Slot in, uint32_t rows);
  void attend_item(const graph::AttentionOp &op, const graph::AttentionItem &item, uint32_t kv_head, uint32_t worker);

  const Workers workers_;
  const KernelTable &kernels_;
  std::vector<Weight> weights_;
  uint64_t weights_bytes_ = 0;

  uint32_t blocks_per_seq_ = 0;
  Scratch scratch_;
  std::vector<int8_t> quantised_;
  std::vector<float> quantised_scale_;
  std::vector<int32_t> quantised_sum_;
  std::vector<float> attend_, partial_;
  std::vector<uint32_t> window_;
  std::vector<std::vector<sdk::Ranked>> ranked_;  ///< by worker
};

}  // namespace sluice::cpu

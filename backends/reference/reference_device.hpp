// The oracle: what every operation means, one obvious loop each, sums in f64 over exactly dequantised weights.
#pragma once
#include "backends/graph/host_device.hpp"

#include <vector>

namespace sluice::reference {

/// Slow on purpose; single-threaded. Weights stay in the mapped file and are decoded row by row as they are used.
class ReferenceDevice : public graph::HostDevice {
 public:
  const char *name() const override { return "reference"; }
  bool supports(graph::OpKind, graph::TensorType) const override { return true; }
  graph::WeightId add_weight(const graph::WeightSource &source) override;
  uint64_t weights_bytes() const override { return weights_bytes_; }
  uint64_t scratch_bytes(const graph::StepLimits &, std::span<const graph::Op>) const override { return 0; }
  void configure(const graph::StepLimits &limits, std::span<const graph::Op>, const graph::KvShape &kv) override;
  uint32_t attention_parallelism() const override { return 1; }

  void embed(const graph::EmbedOp &op) override;
  void norm(const graph::NormOp &op) override;
  void linear(const graph::LinearOp &op) override;
  void linear_glu(const graph::LinearGluOp &op) override;
  void rope_kv(const graph::RopeKvOp &op) override;
  void attention(const graph::AttentionOp &op) override;
  void silu_add(const graph::SiluAddOp &op) override;
  void top(const graph::TopOp &op) override;

 private:
  void store(std::byte *cell, const float *values) const;
  float load(const std::byte *cell, uint32_t i) const;
  const graph::WeightSource &weight(graph::WeightId id) const { return weights_[id.id - 1]; }

  std::vector<graph::WeightSource> weights_;
  uint64_t weights_bytes_ = 0;
  uint32_t blocks_per_seq_ = 0;
};

}  // namespace sluice::reference

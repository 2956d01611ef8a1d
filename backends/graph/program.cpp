#include "backends/graph/program.hpp"

namespace sluice::graph {

const char *op_name(OpKind op) {
  switch (op) {
    case OpKind::kEmbed:
      return "embed";
    case OpKind::kLinear:
      return "linear";
    case OpKind::kLinearGlu:
      return "linear_glu";
  }
  return "unknown";
}

uint64_t Program::activation_bytes(Slot slot, const StepLimits &limits) const {
  const Activation &a = activations[slot];
  const uint64_t rows = a.extent == Extent::kTokens ? limits.tokens : limits.rows;  // head rows: as many as rows
  return rows * a.width * sizeof(float);
}

namespace {

struct Dispatch {
  Device &device;
  void operator()(const EmbedOp &op) const { device.embed(op); }
  void operator()(const NormOp &op) const { device.norm(op); }
  void operator()(const LinearOp &op) const { device.linear(op); }
  void operator()(const LinearGluOp &op) const { device.linear_glu(op); }
  void operator()(const RopeKvOp &op) const { device.rope_kv(op); }
  void operator()(const AttentionOp &op) const { device.attention(op); }
  void operator()(const GatherRowsOp &op) const { device.gather_rows(op); }
  void operator()(const SiluAddOp &op) const { device.silu_add(op); }
  void operator()(const TopOp &op) const { device.top(op); }
};

}  // namespace

void run(const Program &program, Device &device) {
  for (const Op &op : program.ops) std::visit(Dispatch{device}, op);
}

}  // namespace sluice::graph

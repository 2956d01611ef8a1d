// The step program: what one forward pass of a model does, as a flat list built once at load.
#pragma once
#include "backends/graph/device.hpp"

#include <string>
#include <vector>

namespace sluice::graph {

/// Always: every slot that an op names is an index into activations.
struct Program {
  std::vector<Activation> activations;
  std::vector<Op> ops;
  Slot logits = 0;  ///< [rows, vocab]
  uint32_t n_heads = 0, head_top = 0;  ///< draft heads, and what a TopOp keeps of each; their ops come last

  Slot add_activation(std::string name, Extent extent, uint32_t width) {
    activations.push_back({extent, width, std::move(name)});
    return static_cast<Slot>(activations.size() - 1);
  }
  uint64_t activation_bytes(Slot slot, const StepLimits &limits) const;
};

/// Runs the ops in order. The device is between begin_step() and end_step(). [engine]
void run(const Program &program, Device &device);

}  // namespace sluice::graph

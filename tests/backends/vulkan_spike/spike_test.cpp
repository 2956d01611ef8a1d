// Does graph::Device suit Vulkan? A Q8_0 linear layer as a recorded command buffer, replayed over new inputs and
// another number of tokens, against the reference.
#include "tests/backends/device_bench.hpp"
#include "tests/backends/vulkan_spike/spike_device.hpp"

#include <gtest/gtest.h>
#include <sluice/sdk/error.hpp>

#include <cstring>

namespace sluice::test {
namespace {

constexpr uint32_t kInputs = 256, kOutputs = 80, kMostTokens = 8;

TEST(VulkanSpike, ARecordedStepIsReplayedOverNewData) {
  std::unique_ptr<SpikeDevice> device;
  try {
    device = std::make_unique<SpikeDevice>();
  } catch (const sdk::Error &e) {
    GTEST_SKIP() << e.what();
  }
  std::printf("on %s\n", device->name());
  const SpikeDevice &spike = *device;
  const Matrix w(model_file::TensorType::kQ8_0, kOutputs, kInputs, 1);
  Rig gpu(std::move(device)), oracle = Rig::reference();
  graph::LinearOp op;
  op.n_in = kInputs, op.n_out = kOutputs;
  for (Rig *rig : {&gpu, &oracle}) {
    op.weight = rig->device().add_weight({graph::WeightUse::kLinear, kInputs, {w.segment()}});
    op.in = rig->activation(kMostTokens * kInputs);
    op.out = rig->activation(kMostTokens * kOutputs);
  }
  const struct {
    uint32_t tokens;
    bool recorded;
  } steps[] = {{5, true}, {5, false}, {8, false}, {3, true}, {6, false}};
  uint32_t seed = 10;
  for (const auto &step : steps) {
    const std::vector<float> x = normal(step.tokens * kInputs, ++seed);
    std::vector<std::vector<float>> out;
    for (Rig *rig : {&gpu, &oracle}) {
      std::memcpy(rig->device().mapped(rig->args.activations[op.in]), x.data(), x.size() * sizeof(float));
      rig->shape.tokens = step.tokens;
      const bool walk = rig->device().begin_step(rig->shape, rig->args);
      if (rig == &gpu) {
        EXPECT_EQ(walk, step.recorded) << step.tokens << " tokens";
      }
      if (walk) rig->device().linear(op);
      EXPECT_TRUE(rig->device().wait(rig->device().end_step(), UINT64_MAX));
      out.push_back(rig->read(op.out));
      out.back().resize(step.tokens * kOutputs);
    }
    expect_close(out[0], out[1], 1e-10, 1e-4, std::to_string(step.tokens) + " tokens");
  }
  EXPECT_EQ(spike.recordings(), 2u);  // buckets of 8 and of 4 tokens
  EXPECT_TRUE(gpu.intact());
}

}  // namespace
}  // namespace sluice::test

// Runs single operations on two devices with the same inputs and compares what they leave behind.
#pragma once
#include "backends/cpu/cpu_device.hpp"
#include "backends/cpu/isa.hpp"
#include "backends/graph/attention_planner.hpp"
#include "backends/reference/reference_device.hpp"
#include "tests/backends/test_host.hpp"

#include <memory>
#include <random>
#include <vector>

namespace sluice::test {

using graph::Slot;

/// f32 values N(0, 1), the same for the same seed.
std::vector<float> normal(size_t n, uint32_t seed, float scale = 1.0f);

/// A matrix of a format, encoded from random values. Keeps the bytes that a WeightSource borrows.
struct Matrix {
  Matrix(model_file::TensorType type, uint64_t rows, uint64_t cols, uint32_t seed);
  graph::WeightSegment segment() const { return {"w", type, bytes.data(), rows}; }
  std::vector<float> row(uint64_t r) const;  ///< exactly dequantised
  model_file::TensorType type;
  uint64_t rows, cols;
  std::vector<std::byte> bytes;
};

/// One device with activations and argument buffers of one step.
///
/// Guard bands lie behind every activation; `intact()` says whether anything wrote there.
class Rig {
 public:
  explicit Rig(std::unique_ptr<graph::Device> device) : device_(std::move(device)) {}
  static Rig reference() { return Rig(std::make_unique<reference::ReferenceDevice>()); }
  static Rig cpu(const Host &host, const cpu::KernelTable &kernels) {
    return Rig(std::make_unique<cpu::CpuDevice>(host.api, kernels));
  }

  graph::Device &device() { return *device_; }
  Slot activation(size_t n);  ///< poisoned with NaN
  Slot activation(const std::vector<float> &values);
  std::vector<float> read(Slot slot) const;
  graph::Buffer constant(const std::vector<float> &values);
  template <class T>
  void set(graph::Buffer graph::StepArgs::*buffer, const std::vector<T> &values) {
    args.*buffer = device_->allocate(values.size() * sizeof(T) + 8, graph::BufferUse::kArgs);
    std::copy(values.begin(), values.end(), static_cast<T *>(device_->mapped(args.*buffer)));
  }
  void begin() { device_->begin_step(shape, args); }
  bool intact() const;

  graph::StepArgs args;
  graph::StepShape shape;

 private:
  static constexpr size_t kGuard = 64;
  std::unique_ptr<graph::Device> device_;
  std::vector<size_t> sizes_;
};

/// NMSE of a against b, and the largest error over the root mean square of b.
struct Difference {
  double nmse = 0, peak = 0;
};
Difference difference(const std::vector<float> &a, const std::vector<float> &b);

/// NMSE and peak within bounds, everything finite.
void expect_close(const std::vector<float> &a, const std::vector<float> &b, double nmse, double peak,
                  const std::string &what);

}  // namespace sluice::test

// The least Vulkan that answers whether graph::Device fits: one linear op, recorded once, replayed over new data.
#pragma once
#include "backends/graph/device.hpp"

#include <vulkan/vulkan.h>

#include <map>
#include <vector>

namespace sluice::test {

/// errors  the constructor throws sdk::Error UNAVAILABLE (no driver, or one without buffer device addresses)
class SpikeDevice final : public graph::Device {
 public:
  SpikeDevice();
  ~SpikeDevice() override;
  SpikeDevice(const SpikeDevice &) = delete;
  SpikeDevice &operator=(const SpikeDevice &) = delete;

  const char *name() const override { return device_name_; }
  bool supports(graph::OpKind op, graph::TensorType format) const override {
    return op == graph::OpKind::kLinear && format == graph::TensorType::kQ8_0;
  }
  graph::DeviceMemory memory() const override { return {}; }
  graph::Buffer allocate(uint64_t size_bytes, graph::BufferUse use) override;
  void upload(graph::Buffer buffer, const void *from, uint64_t size_bytes) override;
  void free(graph::Buffer buffer) override;
  void *mapped(graph::Buffer buffer) override { return buffers_[buffer.id - 1].mapped; }
  graph::WeightId add_weight(const graph::WeightSource &source) override;
  uint64_t weights_bytes() const override { return weights_bytes_; }
  uint64_t scratch_bytes(const graph::StepLimits &, std::span<const graph::Op>) const override { return 0; }
  void configure(const graph::StepLimits &, std::span<const graph::Op>, const graph::KvShape &) override {}
  uint32_t attention_parallelism() const override { return 1; }

  bool begin_step(const graph::StepShape &shape, const graph::StepArgs &args) override;
  uint64_t end_step() override;
  bool wait(uint64_t fence, uint64_t timeout_ns) override;
  void linear(const graph::LinearOp &op) override;

  // Not part of the question.
  void embed(const graph::EmbedOp &) override { refuse("embed"); }
  void norm(const graph::NormOp &) override { refuse("norm"); }
  void linear_glu(const graph::LinearGluOp &) override { refuse("linear_glu"); }
  void rope_kv(const graph::RopeKvOp &) override { refuse("rope_kv"); }
  void attention(const graph::AttentionOp &) override { refuse("attention"); }
  void gather_rows(const graph::GatherRowsOp &) override { refuse("gather_rows"); }
  void silu_add(const graph::SiluAddOp &) override { refuse("silu_add"); }
  void top(const graph::TopOp &) override { refuse("top"); }
  void kv_moves(std::span<const graph::KvMove>) override { refuse("kv_moves"); }

  uint32_t recordings() const { return static_cast<uint32_t>(recorded_.size()); }

 private:
  struct DeviceBuffer {
    VkBuffer buffer = VK_NULL_HANDLE;
    VkDeviceMemory memory = VK_NULL_HANDLE;
    VkDeviceAddress address = 0;
    void *mapped = nullptr;
  };
  struct Empty {};
  explicit SpikeDevice(Empty) {}  ///< so that the destructor also cleans up after a constructor that throws
  [[noreturn]] void refuse(const char *op) const;
  void make_device();
  void make_pipeline();
  uint32_t host_memory_type(uint32_t allowed) const;
  VkDeviceAddress address(graph::Buffer b) const { return buffers_[b.id - 1].address; }

  char device_name_[VK_MAX_PHYSICAL_DEVICE_NAME_SIZE] = {};
  VkInstance instance_ = VK_NULL_HANDLE;
  VkPhysicalDevice physical_ = VK_NULL_HANDLE;
  VkDevice device_ = VK_NULL_HANDLE;
  VkQueue queue_ = VK_NULL_HANDLE;
  uint32_t queue_family_ = 0;
  VkCommandPool pool_ = VK_NULL_HANDLE;
  VkPipelineLayout layout_ = VK_NULL_HANDLE;
  VkPipeline pipeline_ = VK_NULL_HANDLE;
  VkSemaphore timeline_ = VK_NULL_HANDLE;
  std::vector<DeviceBuffer> buffers_;
  std::vector<graph::Buffer> weights_;
  uint64_t weights_bytes_ = 0;

  std::map<uint32_t, VkCommandBuffer> recorded_;  ///< by bucket: tokens rounded up to a power of two
  graph::Buffer counts_;                          ///< u32 tokens: what a recording must not hold
  const graph::StepArgs *args_ = nullptr;
  uint32_t bucket_ = 0;
  bool recording_ = false;
  uint64_t fence_ = 0;
};

}  // namespace sluice::test

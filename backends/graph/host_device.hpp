// What all devices in host memory share: buffers, the bytes of the cache, and a queue that is never behind.
#pragma once
#include "backends/graph/host_memory.hpp"

#include <vector>

namespace sluice::graph {

/// Operations run in the call, so every fence has passed when end_step() returns.
///
/// Cache layout, by block: [layers][2: keys, values][kv_heads][block_size_tokens][head_dim].
class HostDevice : public Device {
 public:
  DeviceMemory memory() const override { return host_memory(); }
  Buffer allocate(uint64_t size_bytes, BufferUse use) override;
  void upload(Buffer buffer, const void *from, uint64_t size_bytes) override;
  void free(Buffer buffer) override;
  void *mapped(Buffer buffer) override { return buffer ? buffers_[buffer.id - 1].data() : nullptr; }
  bool begin_step(const StepShape &shape, const StepArgs &args) override;
  uint64_t end_step() override { return ++fence_; }
  bool wait(uint64_t, uint64_t) override { return true; }
  void gather_rows(const GatherRowsOp &op) override;
  void kv_moves(std::span<const KvMove> moves) override;

 protected:
  void configure_kv(const KvShape &kv);

  template <class T>
  T *at(Buffer buffer) {
    return static_cast<T *>(mapped(buffer));
  }
  float *activation(Slot slot) { return at<float>(args_->activations[slot]); }
  uint32_t extent(Extent e) const {
    return e == Extent::kTokens ? shape_.tokens : e == Extent::kRows ? shape_.rows : shape_.head_rows;
  }

  enum class KvPart : uint8_t { kKeys = 0, kValues = 1 };
  /// The head_dim elements of one cell. slot = block * block_size + offset.
  std::byte *kv_cell(uint32_t layer, KvPart part, uint32_t kv_head, uint32_t slot) const {
    const uint64_t size = kv_.block_size_tokens, row_bytes = kv_.head_dim * kv_type_bytes(kv_.type);
    const uint64_t plane = (uint64_t{layer} * 2 + static_cast<uint64_t>(part)) * kv_.kv_heads + kv_head;
    return blocks_.data() + slot / size * kv_.bytes_per_block() + (plane * size + slot % size) * row_bytes;
  }

  const StepArgs *args_ = nullptr;
  StepShape shape_;
  KvShape kv_;

 private:
  std::vector<HostBlock> buffers_;  ///< by id - 1; freed ones are empty
  HostBlock blocks_, host_blocks_;
  uint64_t fence_ = 0;
};

}  // namespace sluice::graph

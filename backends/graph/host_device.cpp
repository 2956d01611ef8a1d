#include "backends/graph/host_device.hpp"

#include <sluice/sdk/error.hpp>

#include <cstring>

namespace sluice::graph {

Buffer HostDevice::allocate(uint64_t size_bytes, BufferUse) {
  buffers_.emplace_back(std::max<uint64_t>(size_bytes, 64), "buffer");
  return {static_cast<uint32_t>(buffers_.size())};
}

void HostDevice::free(Buffer buffer) {
  if (buffer) buffers_[buffer.id - 1] = HostBlock();
}

void HostDevice::upload(Buffer buffer, const void *from, uint64_t size_bytes) {
  std::memcpy(mapped(buffer), from, size_bytes);
}

bool HostDevice::begin_step(const StepShape &shape, const StepArgs &args) {
  shape_ = shape;
  args_ = &args;
  return true;
}

void HostDevice::configure_kv(const KvShape &kv) {
  blocks_ = HostBlock();
  host_blocks_ = HostBlock();
  const uint64_t need = kv.bytes_per_block() * (uint64_t{kv.device_blocks} + kv.host_blocks);
  const uint64_t have = memory().available_bytes;
  if (need > have)  // memory is committed at first touch: too much would kill the process later
    throw sdk::Error(SLUICE_E_RESOURCE_EXHAUSTED,
                     std::to_string(kv.device_blocks) + " KV blocks and " + std::to_string(kv.host_blocks) +
                         " swap blocks need " + std::to_string(need >> 20) + " MiB; " + std::to_string(have >> 20) +
                         " MiB are available, which holds " + std::to_string(have / kv.bytes_per_block()) + " blocks");
  kv_ = kv;
  blocks_ = HostBlock(kv.bytes_per_block() * kv.device_blocks, "KV cache");
  host_blocks_ = HostBlock(kv.bytes_per_block() * kv.host_blocks, "swap space");
}

void HostDevice::gather_rows(const GatherRowsOp &op) {
  const float *in = activation(op.in);
  float *out = activation(op.out);
  const auto *rows = at<uint32_t>(op.extent == Extent::kRows ? args_->rows : args_->head_rows);
  for (uint32_t r = 0; r < extent(op.extent); ++r)
    std::memcpy(out + uint64_t{r} * op.width, in + uint64_t{rows[r]} * op.width, op.width * sizeof(float));
}

void HostDevice::kv_moves(std::span<const KvMove> moves) {
  const uint64_t size = kv_.bytes_per_block();
  for (const KvMove &m : moves) {
    switch (m.kind) {
      case KvMove::Kind::kCopyBlock:
        std::memmove(blocks_.data() + m.dst * size, blocks_.data() + m.src * size, size);
        break;
      case KvMove::Kind::kSwapOut:
        std::memcpy(host_blocks_.data() + m.dst * size, blocks_.data() + m.src * size, size);
        break;
      case KvMove::Kind::kSwapIn:
        std::memcpy(blocks_.data() + m.dst * size, host_blocks_.data() + m.src * size, size);
        break;
      case KvMove::Kind::kMoveSlot:
        for (uint32_t layer = 0; layer < kv_.layers; ++layer)
          for (const KvPart part : {KvPart::kKeys, KvPart::kValues})
            for (uint32_t head = 0; head < kv_.kv_heads; ++head)
              std::memmove(kv_cell(layer, part, head, m.dst), kv_cell(layer, part, head, m.src),
                           kv_.head_dim * kv_type_bytes(kv_.type));
        break;
    }
  }
}

}  // namespace sluice::graph

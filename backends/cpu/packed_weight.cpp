#include "backends/cpu/packed_weight.hpp"
#include "core/model_file/quantized_blocks.hpp"

#include <cstring>

namespace sluice::cpu {
namespace {

using model_file::TensorType;

void put_u16(uint8_t *unit, uint32_t offset, uint32_t index, const uint8_t *from) {
  std::memcpy(unit + offset + index * 2, from, 2);
}
float get_f16(const uint8_t *unit, uint32_t offset, uint32_t index) {
  uint16_t h;
  std::memcpy(&h, unit + offset + index * 2, 2);
  return model_file::f16_to_f32(h);
}

/// Byte of input k (below 64 * groups / 16) and row r where groups of 4 inputs lie one after the other.
uint32_t group_byte(uint32_t k, uint32_t r) { return k / 4 * 64 + r * 4 + k % 4; }
/// The same where pairs of groups share bytes; the second of a pair has the high nibble.
uint32_t pair_byte(uint32_t k, uint32_t r) { return k / 8 * 64 + r * 4 + k % 4; }
void put_nibble(uint8_t *unit, uint32_t k, uint32_t r, uint32_t q) {
  unit[pair_byte(k, r)] |= static_cast<uint8_t>(k % 8 < 4 ? q : q << 4);
}
uint32_t get_nibble(const uint8_t *unit, uint32_t k, uint32_t r) {
  const uint8_t both = unit[pair_byte(k, r)];
  return k % 8 < 4 ? both & 15u : both >> 4;
}

void pack_floats(const uint8_t *row, uint64_t n, uint32_t r, uint32_t size, uint8_t *tile) {
  for (uint64_t k = 0; k < n; ++k) std::memcpy(tile + (k * kTileRows + r) * size, row + k * size, size);
}

void pack_q8_0(const uint8_t *row, uint64_t n, uint32_t r, uint8_t *tile) {
  for (uint64_t block = 0; block < n / 32; ++block, row += 34) {
    uint8_t *unit = tile + block / 2 * kLayoutInfo[kQ8].bytes;
    put_u16(unit, 1024, static_cast<uint32_t>(block % 2) * 16 + r, row);
    for (uint32_t k = 0; k < 32; ++k) unit[group_byte(static_cast<uint32_t>(block % 2) * 32 + k, r)] = row[2 + k];
  }
}

void pack_q4_0(const uint8_t *row, uint64_t n, uint32_t r, uint8_t *tile) {
  for (uint64_t block = 0; block < n / 32; ++block, row += 18) {
    uint8_t *unit = tile + block / 2 * kLayoutInfo[kQ4].bytes;
    const auto half = static_cast<uint32_t>(block % 2);
    put_u16(unit, 512, half * 16 + r, row);
    for (uint32_t k = 0; k < 32; ++k)
      put_nibble(unit, half * 32 + k, r, k < 16 ? row[2 + k] & 15u : row[2 + k - 16] >> 4u);
  }
}

void pack_q4_k(const uint8_t *row, uint64_t n, uint32_t r, uint8_t *tile) {
  for (uint64_t block = 0; block < n / 256; ++block, row += 144, tile += kLayoutInfo[kQ4K].bytes) {
    const model_file::Q4KScales s = model_file::unpack_q4_k_scales(row + 4);
    for (uint32_t sub = 0; sub < 8; ++sub) {
      tile[2048 + sub * 16 + r] = s.scale[sub];
      tile[2176 + sub * 16 + r] = s.minimum[sub];
      const uint8_t *nibbles = row + 16 + 32 * (sub / 2);
      for (uint32_t k = 0; k < 32; ++k) put_nibble(tile, sub * 32 + k, r, (nibbles[k] >> (4 * (sub % 2))) & 15u);
    }
    put_u16(tile, 2304, r, row);
    put_u16(tile, 2336, r, row + 2);
  }
}

void pack_q6_k(const uint8_t *row, uint64_t n, uint32_t r, uint8_t *tile) {
  for (uint64_t block = 0; block < n / 256; ++block, row += 210, tile += kLayoutInfo[kQ6K].bytes) {
    for (uint32_t k = 0; k < 256; ++k) {
      const uint32_t half = k / 128, quarter = k % 128 / 32, i = k % 32;
      const uint32_t low = row[64 * half + 32 * (quarter % 2) + i] >> (quarter < 2 ? 0 : 4) & 15u;
      const uint32_t high = row[128 + 32 * half + i] >> (2 * quarter) & 3u;
      tile[group_byte(k, r)] = static_cast<uint8_t>(low | high << 4);
    }
    for (uint32_t s = 0; s < 16; ++s) tile[4096 + s * 16 + r] = row[192 + s];
    put_u16(tile, 4352, r, row + 208);
  }
}

}  // namespace

Layout layout_of(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return kF32;
    case TensorType::kF16:
      return kF16;
    case TensorType::kBF16:
      return kBF16;
    case TensorType::kQ8_0:
      return kQ8;
    case TensorType::kQ4_0:
      return kQ4;
    case TensorType::kQ4_K:
      return kQ4K;
    case TensorType::kQ6_K:
      return kQ6K;
  }
  __builtin_unreachable();
}

uint64_t tile_bytes(Layout layout, uint64_t n_inputs) {
  const LayoutInfo &info = kLayoutInfo[layout];
  return (n_inputs + info.inputs - 1) / info.inputs * info.bytes;
}

void pack_tile(const graph::WeightSegment &from, uint64_t n, uint32_t tile, std::byte *to) {
  const uint64_t row_bytes = model_file::row_bytes(from.type, n).value();
  auto *out = reinterpret_cast<uint8_t *>(to);
  for (uint32_t r = 0; r < kTileRows && uint64_t{tile} * kTileRows + r < from.rows; ++r) {
    const auto *row = reinterpret_cast<const uint8_t *>(from.data) + (uint64_t{tile} * kTileRows + r) * row_bytes;
    switch (layout_of(from.type)) {
      case kF32:
        pack_floats(row, n, r, 4, out);
        break;
      case kF16:
      case kBF16:
        pack_floats(row, n, r, 2, out);
        break;
      case kQ8:
        pack_q8_0(row, n, r, out);
        break;
      case kQ4:
        pack_q4_0(row, n, r, out);
        break;
      case kQ4K:
        pack_q4_k(row, n, r, out);
        break;
      case kQ6K:
        pack_q6_k(row, n, r, out);
        break;
    }
  }
}

void unpack_row(Layout layout, const std::byte *tile, uint32_t r, uint64_t n, float *out) {
  const LayoutInfo &info = kLayoutInfo[layout];
  for (uint64_t i = 0; i < n; ++i) {
    const auto *unit = reinterpret_cast<const uint8_t *>(tile) + i / info.inputs * info.bytes;
    const auto k = static_cast<uint32_t>(i % info.inputs);
    uint16_t half;
    switch (layout) {
      case kF32:
        std::memcpy(out + i, unit + r * 4, 4);
        break;
      case kF16:
        out[i] = get_f16(unit, 0, r);
        break;
      case kBF16:
        std::memcpy(&half, unit + r * 2, 2);
        out[i] = model_file::bf16_to_f32(half);
        break;
      case kQ8:
        out[i] = static_cast<float>(static_cast<int8_t>(unit[group_byte(k, r)])) * get_f16(unit, 1024, k / 32 * 16 + r);
        break;
      case kQ4:
        out[i] = (static_cast<float>(get_nibble(unit, k, r)) - 8) * get_f16(unit, 512, k / 32 * 16 + r);
        break;
      case kQ4K: {
        const float scale = get_f16(unit, 2304, r) * static_cast<float>(unit[2048 + k / 32 * 16 + r]);
        const float minimum = get_f16(unit, 2336, r) * static_cast<float>(unit[2176 + k / 32 * 16 + r]);
        const float scaled = scale * static_cast<float>(get_nibble(unit, k, r));
        out[i] = scaled - minimum;
        break;
      }
      case kQ6K: {
        const float scale =
            get_f16(unit, 4352, r) * static_cast<float>(static_cast<int8_t>(unit[4096 + k / 16 * 16 + r]));
        out[i] = scale * (static_cast<float>(unit[group_byte(k, r)]) - 32);
        break;
      }
    }
  }
}

}  // namespace sluice::cpu

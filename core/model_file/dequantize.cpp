#include "core/model_file/formats.hpp"
#include "core/model_file/quantized_blocks.hpp"

#include <cassert>

namespace sluice::model_file {
namespace {

uint16_t load_u16(const uint8_t *from) { return static_cast<uint16_t>(from[0] | (from[1] << 8)); }
float load_f16(const uint8_t *from) { return f16_to_f32(load_u16(from)); }

void q8_0(const uint8_t *block, float *out) {
  const float d = load_f16(block);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
}

/// The low nibbles are elements 0..15, the high nibbles 16..31.
void q4_0(const uint8_t *block, float *out) {
  const float d = load_f16(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>((block[2 + i] & 15) - 8) * d;
    out[i + 16] = static_cast<float>((block[2 + i] >> 4) - 8) * d;
  }
}

/// f16 d, f16 dmin, 12 bytes of 6-bit scales and minimums, 128 bytes of nibbles.
void q4_k(const uint8_t *block, float *out) {
  const float d = load_f16(block);
  const float dmin = load_f16(block + 2);
  const Q4KScales s = unpack_q4_k_scales(block + 4);
  for (int sub = 0; sub < 8; ++sub) {
    const float scale = d * static_cast<float>(s.scale[sub]);
    const float minimum = dmin * static_cast<float>(s.minimum[sub]);
    const uint8_t *nibbles = block + 16 + 32 * (sub / 2);
    const int shift = 4 * (sub % 2);
    for (int i = 0; i < 32; ++i) {
      const float scaled = scale * static_cast<float>((nibbles[i] >> shift) & 15);
      out[32 * sub + i] = scaled - minimum;
    }
  }
}

/// 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, then the f16 d.
void q6_k(const uint8_t *block, float *out) {
  const float d = load_f16(block + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t *low = block + 64 * half;
    const uint8_t *high = block + 128 + 32 * half;
    const uint8_t *scales = block + 192 + 8 * half;
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int i = 0; i < 32; ++i) {
        const int nibble = (low[32 * (quarter % 2) + i] >> (quarter < 2 ? 0 : 4)) & 15;
        const int q = (nibble | (((high[i] >> (2 * quarter)) & 3) << 4)) - 32;
        const auto scale = static_cast<int8_t>(scales[2 * quarter + i / 16]);
        out[128 * half + 32 * quarter + i] = d * static_cast<float>(scale) * static_cast<float>(q);
      }
    }
  }
}

}  // namespace

void dequantize_row(TensorType type, const std::byte *source, float *out, size_t n_elements) {
  const TypeInfo &info = type_info(type);
  assert(n_elements % info.block_elements == 0);
  const auto *from = reinterpret_cast<const uint8_t *>(source);
  if (type == TensorType::kF32) {
    std::memcpy(out, from, n_elements * sizeof(float));
    return;
  }
  for (size_t i = 0; i < n_elements; i += info.block_elements, from += info.block_bytes) {
    switch (type) {
      case TensorType::kF32:
        break;
      case TensorType::kF16:
        out[i] = load_f16(from);
        break;
      case TensorType::kBF16:
        out[i] = bf16_to_f32(load_u16(from));
        break;
      case TensorType::kQ8_0:
        q8_0(from, out + i);
        break;
      case TensorType::kQ4_0:
        q4_0(from, out + i);
        break;
      case TensorType::kQ4_K:
        q4_k(from, out + i);
        break;
      case TensorType::kQ6_K:
        q6_k(from, out + i);
        break;
    }
  }
}

}  // namespace sluice::model_file

#include "core/model_file/formats.hpp"
#include "core/model_file/quantized_blocks.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace sluice::model_file {
namespace {

/// Stores as f16 and returns what a reader will see, so that the integers are chosen for the real scale.
float store_f16(uint8_t *to, float value) {
  const uint16_t half = f32_to_f16(value);
  store_u16(to, half);
  return f16_to_f32(half);
}

int nearest(float value, int low, int high) { return std::clamp(static_cast<int>(std::lround(value)), low, high); }

float inverse(float value) { return value != 0.0f ? 1.0f / value : 0.0f; }

/// The element of largest magnitude, with its sign.
float signed_peak(const float *x, int n) {
  return *std::max_element(x, x + n, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
}

void q8_0(const float *x, uint8_t *block) {
  const float scale = inverse(store_f16(block, std::fabs(signed_peak(x, 32)) / 127.0f));
  for (int i = 0; i < 32; ++i) block[2 + i] = static_cast<uint8_t>(nearest(x[i] * scale, -127, 127));
}

void q4_0(const float *x, uint8_t *block) {
  const float scale = inverse(store_f16(block, signed_peak(x, 32) / -8.0f));  // signed: the peak becomes -8
  for (int i = 0; i < 16; ++i) {
    const int low = nearest(x[i] * scale + 8.0f, 0, 15);
    const int high = nearest(x[i + 16] * scale + 8.0f, 0, 15);
    block[2 + i] = static_cast<uint8_t>(low | (high << 4));
  }
}

/// Each sub-block is q * scale - minimum with minimum >= 0; scales and minimums are then 6-bit multiples of d, dmin.
void q4_k(const float *x, uint8_t *block) {
  float scale[8];
  float minimum[8];
  for (int sub = 0; sub < 8; ++sub) {
    const auto [low, high] = std::minmax_element(x + 32 * sub, x + 32 * sub + 32);
    minimum[sub] = std::max(0.0f, -*low);
    scale[sub] = std::max(0.0f, *high + minimum[sub]) / 15.0f;
  }
  const float d = store_f16(block, *std::max_element(scale, scale + 8) / 63.0f);
  const float dmin = store_f16(block + 2, *std::max_element(minimum, minimum + 8) / 63.0f);
  Q4KScales packed{};
  for (int sub = 0; sub < 8; ++sub) {
    packed.scale[sub] = static_cast<uint8_t>(nearest(scale[sub] * inverse(d), 0, 63));
    packed.minimum[sub] = static_cast<uint8_t>(nearest(minimum[sub] * inverse(dmin), 0, 63));
  }
  pack_q4_k_scales(packed, block + 4);
  std::fill_n(block + 16, 128, uint8_t{0});
  for (int sub = 0; sub < 8; ++sub) {
    const float inverse_scale = inverse(d * static_cast<float>(packed.scale[sub]));
    const float offset = dmin * static_cast<float>(packed.minimum[sub]);
    for (int i = 0; i < 32; ++i) {
      const int q = nearest((x[32 * sub + i] + offset) * inverse_scale, 0, 15);
      block[16 + 32 * (sub / 2) + i] |= static_cast<uint8_t>(q << (4 * (sub % 2)));
    }
  }
}

/// Sixteen groups of 16: q * scale with q in -32..31; the scales are signed 8-bit multiples of d.
void q6_k(const float *x, uint8_t *block) {
  float scale[16];
  for (int group = 0; group < 16; ++group) scale[group] = signed_peak(x + 16 * group, 16) / -32.0f;
  std::fill_n(block, 192, uint8_t{0});
  const float d = store_f16(block + 208, std::fabs(signed_peak(scale, 16)) / 127.0f);
  for (int group = 0; group < 16; ++group) {
    const int quantized = nearest(scale[group] * inverse(d), -127, 127);
    block[192 + group] = static_cast<uint8_t>(quantized);
    const float inverse_scale = inverse(d * static_cast<float>(quantized));
    for (int i = 0; i < 16; ++i) {
      const int element = 16 * group + i;
      const int q = nearest(x[element] * inverse_scale, -32, 31) + 32;
      const int half = element / 128, quarter = element / 32 % 4, lane = element % 32;
      block[64 * half + 32 * (quarter % 2) + lane] |= static_cast<uint8_t>((q & 15) << (quarter < 2 ? 0 : 4));
      block[128 + 32 * half + lane] |= static_cast<uint8_t>((q >> 4) << (2 * quarter));
    }
  }
}

}  // namespace

void quantize_row(TensorType type, const float *source, std::byte *out, size_t n_elements) {
  const TypeInfo &info = type_info(type);
  assert(n_elements % info.block_elements == 0);
  auto *to = reinterpret_cast<uint8_t *>(out);
  for (size_t i = 0; i < n_elements; i += info.block_elements, to += info.block_bytes) {
    switch (type) {
      case TensorType::kF32:
        std::memcpy(to, source + i, sizeof(float));
        break;
      case TensorType::kF16:
        store_u16(to, f32_to_f16(source[i]));
        break;
      case TensorType::kBF16:
        store_u16(to, f32_to_bf16(source[i]));
        break;
      case TensorType::kQ8_0:
        q8_0(source + i, to);
        break;
      case TensorType::kQ4_0:
        q4_0(source + i, to);
        break;
      case TensorType::kQ4_K:
        q4_k(source + i, to);
        break;
      case TensorType::kQ6_K:
        q6_k(source + i, to);
        break;
    }
  }
}

}  // namespace sluice::model_file

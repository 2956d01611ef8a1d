#include "core/model_file/random_weights.hpp"

#include "core/model_file/quantized_blocks.hpp"

#include <bit>
#include <cassert>
#include <cmath>

namespace sluice::model_file {
namespace {

constexpr double kDeviation = 0.02;

/// The inverse of the normal distribution function, by bisection.
double normal_quantile(double p) {
  double low = -8.0;
  double high = 8.0;
  for (int i = 0; i < 48; ++i) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

uint64_t splitmix(uint64_t &state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}


/// Sixteen f16 scales around the middle one, so that blocks differ as they do in a trained model.
std::array<uint16_t, 16> spread_scales(double middle) {
  std::array<uint16_t, 16> out{};
  for (int i = 0; i < 16; ++i) out[i] = f32_to_f16(static_cast<float>(middle * (0.7 + 0.04 * i)));
  return out;
}

}  // namespace

Xoshiro::Xoshiro(uint64_t seed) : state_{splitmix(seed), splitmix(seed), splitmix(seed), splitmix(seed)} {}

uint64_t Xoshiro::next() {
  const uint64_t result = std::rotl(state_[0] + state_[3], 23) + state_[0];
  const uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

bool RandomWeights::supports(TensorType type) {
  return type == TensorType::kQ8_0 || type == TensorType::kQ4_K || type == TensorType::kF16 || type == TensorType::kF32;
}

RandomWeights::RandomWeights(TensorType type) : type_(type) {
  assert(supports(type));
  if (type == TensorType::kQ8_0) {
    const double widest = normal_quantile(255.5 / 256);
    for (int i = 0; i < 256; ++i)
      q8_[i] = static_cast<uint8_t>(static_cast<int8_t>(std::lround(127 * normal_quantile((i + 0.5) / 256) / widest)));
    scales_ = spread_scales(kDeviation * widest / 127);
  } else if (type == TensorType::kQ4_K) {
    constexpr double kUniformDeviation = 4.61;  // of a nibble, uniform in 0..15
    constexpr double kMeanScale = 48;           // of the 6-bit scales q4_k() draws
    scales_ = spread_scales(kDeviation / (kUniformDeviation * kMeanScale));
  } else {
    f16_.resize(65536);
    for (int i = 0; i < 65536; ++i)
      f16_[i] = f32_to_f16(static_cast<float>(kDeviation * normal_quantile((i + 0.5) / 65536)));
  }
}

void RandomWeights::q8_0(Xoshiro &random, uint8_t *block) const {
  uint64_t bits[4] = {random.next(), random.next(), random.next(), random.next()};
  store_u16(block, scales_[(bits[0] ^ bits[2]) >> 60]);
  uint8_t bytes[32];
  std::memcpy(bytes, bits, sizeof bytes);
  for (int i = 0; i < 32; ++i) block[2 + i] = q8_[bytes[i]];
}

/// Nibbles are uniform in 0..15; a minimum of 7.5 scales puts the mean at zero.
void RandomWeights::q4_k(Xoshiro &random, uint8_t *block) const {
  uint64_t bits = random.next();
  const float d = f16_to_f32(scales_[bits >> 60]);
  store_u16(block, f32_to_f16(d));
  store_u16(block + 2, f32_to_f16(7.5f * d));
  Q4KScales s{};
  for (int j = 0; j < 8; ++j, bits >>= 5) s.scale[j] = s.minimum[j] = static_cast<uint8_t>(32 + (bits & 31));
  pack_q4_k_scales(s, block + 4);
  for (int i = 0; i < 128; i += 8) {
    const uint64_t nibbles = random.next();
    std::memcpy(block + 16 + i, &nibbles, sizeof nibbles);
  }
}

void RandomWeights::fill(Xoshiro &random, std::span<std::byte> out) const {
  auto *at = reinterpret_cast<uint8_t *>(out.data());
  const uint8_t *end = at + out.size();
  const uint32_t block_bytes = type_info(type_).block_bytes;
  assert(out.size() % block_bytes == 0);
  uint64_t bits = 0;
  for (unsigned i = 0; at < end; at += block_bytes, ++i) {
    if (type_ == TensorType::kQ8_0) {
      q8_0(random, at);
    } else if (type_ == TensorType::kQ4_K) {
      q4_k(random, at);
    } else {
      bits = i % 4 == 0 ? random.next() : bits >> 16;
      const uint16_t half = f16_[bits & 0xffff];
      const float value = f16_to_f32(half);
      if (type_ == TensorType::kF16)
        store_u16(at, half);
      else
        std::memcpy(at, &value, sizeof value);
    }
  }
}

}  // namespace sluice::model_file

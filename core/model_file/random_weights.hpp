#pragma once
#include "core/model_file/formats.hpp"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace sluice::model_file {

/// xoshiro256++. source: Blackman and Vigna, 2019.
class Xoshiro {
 public:
  explicit Xoshiro(uint64_t seed);
  uint64_t next();

 private:
  std::array<uint64_t, 4> state_;
};

/// Fills blocks with weights of mean 0 and standard deviation 0.02, drawn in the format itself: no f32 in between, so
/// a core writes a gigabyte in a few seconds. [any], one thread at a time
class RandomWeights {
 public:
  /// type  q8_0, q4_k, f16 or f32; supports() says so.
  explicit RandomWeights(TensorType type);
  static bool supports(TensorType type);

  /// out  a whole number of blocks
  void fill(Xoshiro &random, std::span<std::byte> out) const;

 private:
  void q8_0(Xoshiro &random, uint8_t *block) const;
  void q4_k(Xoshiro &random, uint8_t *block) const;

  TensorType type_;
  std::array<uint16_t, 16> scales_{};  // f16 block scales to choose from
  std::array<uint8_t, 256> q8_{};      // a random byte -> the int8 at that quantile of the normal distribution
  std::vector<uint16_t> f16_;          // 16 random bits -> the f16 at that quantile
};

}  // namespace sluice::model_file

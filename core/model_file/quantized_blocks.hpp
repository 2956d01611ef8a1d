#pragma once
#include <cstdint>

namespace sluice::model_file {

/// Little-endian, at any alignment.
inline void store_u16(uint8_t *to, uint16_t value) {
  to[0] = static_cast<uint8_t>(value);
  to[1] = static_cast<uint8_t>(value >> 8);
}

/// The 6-bit scale and minimum of each of the eight 32-element sub-blocks of a Q4_K block.
struct Q4KScales {
  uint8_t scale[8];
  uint8_t minimum[8];
};

/// packed  12 bytes: sub-blocks 0..3 in the low six bits of bytes 0..3 (scale) and 4..7 (minimum); sub-blocks 4..7
///         as a nibble pair in bytes 8..11 with their top two bits in the top bits of bytes 0..7.
inline Q4KScales unpack_q4_k_scales(const uint8_t *packed) {
  Q4KScales s{};
  for (int j = 0; j < 4; ++j) {
    s.scale[j] = packed[j] & 63;
    s.minimum[j] = packed[j + 4] & 63;
    s.scale[j + 4] = static_cast<uint8_t>((packed[j + 8] & 15) | ((packed[j] >> 6) << 4));
    s.minimum[j + 4] = static_cast<uint8_t>((packed[j + 8] >> 4) | ((packed[j + 4] >> 6) << 4));
  }
  return s;
}

/// The inverse. Every value is below 64.
inline void pack_q4_k_scales(const Q4KScales &s, uint8_t *packed) {
  for (int j = 0; j < 4; ++j) {
    packed[j] = static_cast<uint8_t>(s.scale[j] | ((s.scale[j + 4] >> 4) << 6));
    packed[j + 4] = static_cast<uint8_t>(s.minimum[j] | ((s.minimum[j + 4] >> 4) << 6));
    packed[j + 8] = static_cast<uint8_t>((s.scale[j + 4] & 15) | ((s.minimum[j + 4] & 15) << 4));
  }
}

}  // namespace sluice::model_file

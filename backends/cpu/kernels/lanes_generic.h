/* 16 lanes in plain C++. */
#pragma once
#include <stdint.h>

namespace {

constexpr uint32_t kProductTile = 4; /* activation rows that one pass over a tile serves */
constexpr int32_t kSignedOffset = 0; /* what a signed weight is off by in dot_signed, times -1 */

struct F32 {
  float v[16];
};
struct I32 {
  int32_t v[16];
};
struct Bytes {
  uint8_t v[64];
};

#define SLUICE_LANES for (int i = 0; i < 16; ++i)

inline F32 broadcast(float x) {
  F32 r;
  SLUICE_LANES r.v[i] = x;
  return r;
}
inline F32 load(const float *p) {
  F32 r;
  SLUICE_LANES r.v[i] = p[i];
  return r;
}
inline void store(float *p, F32 a) { SLUICE_LANES p[i] = a.v[i]; }
inline F32 add(F32 a, F32 b) {
  SLUICE_LANES a.v[i] += b.v[i];
  return a;
}
inline F32 sub(F32 a, F32 b) {
  SLUICE_LANES a.v[i] -= b.v[i];
  return a;
}
inline F32 mul(F32 a, F32 b) {
  SLUICE_LANES a.v[i] *= b.v[i];
  return a;
}
inline F32 div(F32 a, F32 b) {
  SLUICE_LANES a.v[i] /= b.v[i];
  return a;
}
inline F32 fma(F32 a, F32 b, F32 c) {
  SLUICE_LANES c.v[i] += a.v[i] * b.v[i];
  return c;
}
inline F32 max(F32 a, F32 b) {
  SLUICE_LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
inline F32 min(F32 a, F32 b) {
  SLUICE_LANES a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
  return a;
}
inline F32 abs(F32 a) {
  SLUICE_LANES a.v[i] = a.v[i] < 0 ? -a.v[i] : a.v[i];
  return a;
}

inline float bits_to_float(uint32_t bits) {
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}
inline uint32_t float_to_bits(float f) {
  uint32_t bits;
  __builtin_memcpy(&bits, &f, 4);
  return bits;
}

/* p * 2^n, where n was added to 1.5 * 2^23 and so stands in the low bits of magic. */
inline F32 scale_by_power(F32 p, F32 magic) {
  SLUICE_LANES p.v[i] = bits_to_float(float_to_bits(p.v[i]) + (float_to_bits(magic.v[i]) << 23));
  return p;
}

inline float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3FFu;
  if (exponent == 0) { /* subnormal: mantissa * 2^-24 */
    const float magnitude = float(mantissa) * (1.0f / 16777216.0f);
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return bits_to_float(sign | 0x7F800000u | (mantissa << 13));
  return bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
}
inline uint16_t float_to_half(float f) {
  const uint32_t bits = float_to_bits(f), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return uint16_t(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu)); /* NaN */
  if (magnitude >= 0x477FF000u) return uint16_t(sign | 0x7C00u);                               /* rounds to infinity */
  if (magnitude < 0x38800000u) { /* subnormal: let the FPU round at 2^-24 */
    const float rounded = bits_to_float(magnitude) + 0.5f;
    return uint16_t(sign | (float_to_bits(rounded) - 0x3F000000u));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return uint16_t(sign | ((rounded - 0x38000000u) >> 13));
}
inline F32 load_f16(const uint16_t *p) {
  F32 r;
  SLUICE_LANES r.v[i] = half_to_float(p[i]);
  return r;
}
inline void store_f16(uint16_t *p, F32 a) { SLUICE_LANES p[i] = float_to_half(a.v[i]); }
inline F32 load_bf16(const uint16_t *p) {
  F32 r;
  SLUICE_LANES r.v[i] = bits_to_float(uint32_t(p[i]) << 16);
  return r;
}
inline F32 load_u8(const uint8_t *p) {
  F32 r;
  SLUICE_LANES r.v[i] = float(p[i]);
  return r;
}
inline F32 load_i8(const int8_t *p) {
  F32 r;
  SLUICE_LANES r.v[i] = float(p[i]);
  return r;
}

inline float sum(F32 a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
  return a.v[0];
}
inline float largest(F32 a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
  return a.v[0];
}

inline I32 broadcast_int(int32_t x) {
  I32 r;
  SLUICE_LANES r.v[i] = x;
  return r;
}
inline F32 to_f32(I32 a) {
  F32 r;
  SLUICE_LANES r.v[i] = float(a.v[i]);
  return r;
}
inline Bytes load_bytes(const uint8_t *p) {
  Bytes r;
  __builtin_memcpy(r.v, p, 64);
  return r;
}
inline Bytes load_signed(const uint8_t *p) { return load_bytes(p); }
inline Bytes low_nibbles(Bytes a) {
  for (uint8_t &b : a.v) b &= 15;
  return a;
}
inline Bytes high_nibbles(Bytes a) {
  for (uint8_t &b : a.v) b = uint8_t(b >> 4);
  return a;
}

/* acc[i] += sum over 4 of w[4 i + j] * a[j] */
inline I32 dot(I32 acc, Bytes w, const int8_t *a) {
  SLUICE_LANES {
    int32_t s = 0;
    for (int j = 0; j < 4; ++j) s += int32_t(w.v[4 * i + j]) * a[j];
    acc.v[i] += s;
  }
  return acc;
}
inline I32 dot_signed(I32 acc, Bytes w, const int8_t *a) {
  SLUICE_LANES {
    int32_t s = 0;
    for (int j = 0; j < 4; ++j) s += int32_t(int8_t(w.v[4 * i + j])) * a[j];
    acc.v[i] += s;
  }
  return acc;
}
/* Rounds to nearest even, clamps to [-127, 127], writes 16 bytes, returns their sum. */
inline int32_t store_i8(int8_t *p, F32 a) {
  int32_t total = 0;
  SLUICE_LANES {
    const float rounded = (a.v[i] + 12582912.0f) - 12582912.0f;
    p[i] = int8_t(rounded > 127 ? 127 : rounded >= -127 ? rounded : -127); /* NaN as the vector units have it */
    total += p[i];
  }
  return total;
}
#undef SLUICE_LANES

}  // namespace

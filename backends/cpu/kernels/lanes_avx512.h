/* 16 lanes as one AVX-512 register. Needs F, BW, DQ, VL and VNNI. */
#pragma once
#include <immintrin.h>
#include <stdint.h>

namespace {

constexpr uint32_t kProductTile = 8;
/* vpdpbusd multiplies unsigned by signed bytes: a signed weight is flipped to weight + 128, and the sum over the
 * activations times -128 goes into the accumulator first. */
constexpr int32_t kSignedOffset = -128;

using F32 = __m512;
using I32 = __m512i;
struct Bytes {
  __m512i v;
};

inline F32 broadcast(float x) { return _mm512_set1_ps(x); }
inline F32 load(const float *p) { return _mm512_loadu_ps(p); }
inline void store(float *p, F32 x) { _mm512_storeu_ps(p, x); }
inline F32 add(F32 x, F32 y) { return _mm512_add_ps(x, y); }
inline F32 sub(F32 x, F32 y) { return _mm512_sub_ps(x, y); }
inline F32 mul(F32 x, F32 y) { return _mm512_mul_ps(x, y); }
inline F32 div(F32 x, F32 y) { return _mm512_div_ps(x, y); }
inline F32 fma(F32 x, F32 y, F32 z) { return _mm512_fmadd_ps(x, y, z); }
inline F32 max(F32 x, F32 y) { return _mm512_max_ps(x, y); }
inline F32 min(F32 x, F32 y) { return _mm512_min_ps(x, y); }
inline F32 abs(F32 x) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x); }
inline F32 scale_by_power(F32 p, F32 magic) {
  return _mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(magic), 23)));
}

inline __m256i load_256(const void *p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }
inline __m128i load_128(const void *p) { return _mm_loadu_si128(static_cast<const __m128i *>(p)); }
inline F32 load_f16(const uint16_t *p) { return _mm512_cvtph_ps(load_256(p)); }
inline void store_f16(uint16_t *p, F32 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
inline F32 load_bf16(const uint16_t *p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_256(p)), 16));
}
inline F32 load_u8(const uint8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_128(p))); }
inline F32 load_i8(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_128(p))); }

inline float sum(F32 x) {
  const __m256 v = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float largest(F32 x) {
  const __m256 v = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

inline I32 broadcast_int(int32_t x) { return _mm512_set1_epi32(x); }
inline F32 to_f32(I32 x) { return _mm512_cvtepi32_ps(x); }
inline Bytes load_bytes(const uint8_t *p) { return {_mm512_loadu_si512(p)}; }
inline Bytes load_signed(const uint8_t *p) { return {_mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(-128))}; }
inline Bytes low_nibbles(Bytes x) { return {_mm512_and_si512(x.v, _mm512_set1_epi8(15))}; }
inline Bytes high_nibbles(Bytes x) { return {_mm512_and_si512(_mm512_srli_epi16(x.v, 4), _mm512_set1_epi8(15))}; }
inline I32 dot(I32 acc, Bytes w, const int8_t *a) {
  int32_t x;
  __builtin_memcpy(&x, a, 4);
  return _mm512_dpbusd_epi32(acc, w.v, _mm512_set1_epi32(x));
}
inline I32 dot_signed(I32 acc, Bytes w, const int8_t *a) { return dot(acc, w, a); }
inline int32_t store_i8(int8_t *p, F32 x) {
  const __m512i limit = _mm512_set1_epi32(127), low = _mm512_set1_epi32(-127);
  const __m512i v = _mm512_max_epi32(_mm512_min_epi32(_mm512_cvtps_epi32(x), limit), low);
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_cvtepi32_epi8(v));
  return _mm512_reduce_add_epi32(v);
}

}  // namespace

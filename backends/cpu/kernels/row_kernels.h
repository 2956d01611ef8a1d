/* Kernels that work on one row. Include after a lanes_*.h. */
#pragma once
#include "backends/cpu/kernels/kernel_table.h"

namespace {

/* The next up to 16 floats; lanes from n on are `rest`. */
inline F32 load_some(const float *p, uint32_t n, float rest) {
  if (n >= 16) return load(p);
  float v[16];
  for (uint32_t i = 0; i < 16; ++i) v[i] = i < n ? p[i] : rest;
  return load(v);
}
inline void store_some(float *p, uint32_t n, F32 x) {
  if (n >= 16) return store(p, x);
  float v[16];
  store(v, x);
  for (uint32_t i = 0; i < n; ++i) p[i] = v[i];
}

/* e^x: Cody-Waite reduction and a polynomial of degree 6, relative error below 2e-7; 0 below -87, clamped above 88. */
inline F32 exponential(F32 x) {
  const F32 clamped = max(min(x, broadcast(88.0f)), broadcast(-87.0f));
  const F32 magic = fma(clamped, broadcast(1.44269504f), broadcast(12582912.0f)); /* adding 1.5 * 2^23 rounds */
  const F32 n = sub(magic, broadcast(12582912.0f));
  const F32 r = fma(n, broadcast(2.12194440e-4f), fma(n, broadcast(-0.693359375f), clamped));
  F32 p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = add(fma(mul(p, r), r, r), broadcast(1.0f));
  return scale_by_power(p, magic);
}

void quantise(const float *x, uint32_t n, uint32_t n_padded, int8_t *q, float *d, int32_t *sum16) {
  for (uint32_t block = 0; block < n_padded / 32; ++block) {
    const uint32_t at = block * 32, left = at < n ? n - at : 0;
    const F32 a = load_some(x + at, left, 0), b = left > 16 ? load_some(x + at + 16, left - 16, 0) : broadcast(0);
    const float peak = largest(max(abs(a), abs(b)));
    d[block] = peak / 127.0f;
    const F32 inverse = broadcast(peak > 0 ? 127.0f / peak : 0.0f);
    sum16[2 * block] = store_i8(q + at, mul(a, inverse));
    sum16[2 * block + 1] = store_i8(q + at + 16, mul(b, inverse));
  }
}

void rms_norm(const float *x, const float *weight, uint32_t n, float eps, float *out) {
  F32 squares = broadcast(0);
  for (uint32_t i = 0; i < n; i += 16) {
    const F32 v = load_some(x + i, n - i, 0);
    squares = fma(v, v, squares);
  }
  const F32 scale = broadcast(1.0f / __builtin_sqrtf(sum(squares) / float(n) + eps));
  for (uint32_t i = 0; i < n; i += 16)
    store_some(out + i, n - i, mul(mul(load_some(x + i, n - i, 0), scale), load_some(weight + i, n - i, 0)));
}

inline F32 silu(F32 x) { return div(x, add(broadcast(1.0f), exponential(sub(broadcast(0), x)))); }

void silu_mul(float *gate, const float *up, uint32_t n) {
  for (uint32_t i = 0; i < n; i += 16) {
    const F32 g = load_some(gate + i, n - i, 0), u = load_some(up + i, n - i, 0);
    store_some(gate + i, n - i, mul(silu(g), u));
  }
}

void silu_add(const float *x, const float *base, uint32_t n, float *out) {
  for (uint32_t i = 0; i < n; i += 16)
    store_some(out + i, n - i, add(load_some(base + i, n - i, 0), silu(load_some(x + i, n - i, 0))));
}

void to_f16(const float *from, uint16_t *to, uint32_t n) {
  uint32_t i = 0;
  for (; i + 16 <= n; i += 16) store_f16(to + i, load(from + i));
  if (i == n) return;
  uint16_t rest[16];
  store_f16(rest, load_some(from + i, n - i, 0));
  for (uint32_t j = 0; i + j < n; ++j) to[i + j] = rest[j];
}

}  // namespace

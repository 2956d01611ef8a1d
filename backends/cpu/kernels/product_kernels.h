/* Products of a 16-row weight tile with up to kProductTile activation rows. Include after a lanes_*.h.
 *
 * Every output is a lane of its own accumulator and meets its inputs in one fixed order. So a row has the same bits
 * alone, in a batch, and whatever template width serves it. */
#pragma once
#include "backends/cpu/kernels/kernel_table.h"

namespace {

using sluice::cpu::ProductInput;

template <F32 (*kLoad)(const void *), uint32_t kBytes, uint32_t kN>
void float_product(const ProductInput &in, const uint8_t *tile, uint32_t token, float *acc) {
  const float *x[kN];
  F32 even[kN], odd[kN]; /* two chains hide the latency of the multiply-add */
  for (uint32_t m = 0; m < kN; ++m) {
    x[m] = in.x + uint64_t(token + m) * in.n_inputs;
    even[m] = odd[m] = broadcast(0);
  }
  uint32_t k = 0;
  for (; k + 2 <= in.n_inputs; k += 2) {
    const F32 w0 = kLoad(tile + uint64_t(k) * kBytes), w1 = kLoad(tile + uint64_t(k + 1) * kBytes);
    for (uint32_t m = 0; m < kN; ++m) {
      even[m] = fma(w0, broadcast(x[m][k]), even[m]);
      odd[m] = fma(w1, broadcast(x[m][k + 1]), odd[m]);
    }
  }
  if (k < in.n_inputs) {
    const F32 w = kLoad(tile + uint64_t(k) * kBytes);
    for (uint32_t m = 0; m < kN; ++m) even[m] = fma(w, broadcast(x[m][k]), even[m]);
  }
  for (uint32_t m = 0; m < kN; ++m) store(acc + m * 16, add(even[m], odd[m]));
}

/* One activation row in quantised form. */
struct QuantisedRow {
  const int8_t *q;
  const float *d;
  const int32_t *sum16;
};
inline QuantisedRow quantised_row(const ProductInput &in, uint32_t token) {
  const uint64_t at = uint64_t(token) * in.q_stride;
  return {in.q + at, in.d + at / 32, in.sum16 + at / 16};
}
inline int32_t sum32(const QuantisedRow &row, uint32_t block) {
  return row.sum16[2 * block] + row.sum16[2 * block + 1];
}

template <uint32_t kN>
void q8_product(const ProductInput &in, const uint8_t *tile, uint32_t token, float *acc) {
  QuantisedRow row[kN];
  F32 out[kN];
  for (uint32_t m = 0; m < kN; ++m) row[m] = quantised_row(in, token + m), out[m] = broadcast(0);
  const uint32_t units = (in.n_inputs + 63) / 64;
  for (uint32_t unit = 0; unit < units; ++unit, tile += 1088) {
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t block = 2 * unit + half;
      const uint8_t *groups = tile + half * 512;
      I32 s[kN];
      for (uint32_t m = 0; m < kN; ++m) s[m] = broadcast_int(kSignedOffset * sum32(row[m], block));
      for (uint32_t g = 0; g < 8; ++g) {
        const Bytes w = load_signed(groups + g * 64);
        for (uint32_t m = 0; m < kN; ++m) s[m] = dot_signed(s[m], w, row[m].q + block * 32 + g * 4);
      }
      const F32 scale = load_f16(reinterpret_cast<const uint16_t *>(tile + 1024) + half * 16);
      for (uint32_t m = 0; m < kN; ++m) out[m] = fma(to_f32(s[m]), mul(scale, broadcast(row[m].d[block])), out[m]);
    }
  }
  for (uint32_t m = 0; m < kN; ++m) store(acc + m * 16, out[m]);
}

/* s += 32 inputs whose groups lie in pairs of nibbles. */
template <uint32_t kN>
void nibble_dots(const uint8_t *pairs, const QuantisedRow *row, uint32_t block, I32 *s) {
  for (uint32_t p = 0; p < 4; ++p) {
    const Bytes both = load_bytes(pairs + p * 64), low = low_nibbles(both), high = high_nibbles(both);
    for (uint32_t m = 0; m < kN; ++m) {
      const int8_t *q = row[m].q + block * 32 + p * 8;
      s[m] = dot(dot(s[m], low, q), high, q + 4);
    }
  }
}

template <uint32_t kN>
void q4_product(const ProductInput &in, const uint8_t *tile, uint32_t token, float *acc) {
  QuantisedRow row[kN];
  F32 out[kN];
  for (uint32_t m = 0; m < kN; ++m) row[m] = quantised_row(in, token + m), out[m] = broadcast(0);
  const uint32_t units = (in.n_inputs + 63) / 64;
  for (uint32_t unit = 0; unit < units; ++unit, tile += 576) {
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t block = 2 * unit + half;
      I32 s[kN];
      for (uint32_t m = 0; m < kN; ++m) s[m] = broadcast_int(-8 * sum32(row[m], block));
      nibble_dots<kN>(tile + half * 256, row, block, s);
      const F32 scale = load_f16(reinterpret_cast<const uint16_t *>(tile + 512) + half * 16);
      for (uint32_t m = 0; m < kN; ++m) out[m] = fma(to_f32(s[m]), mul(scale, broadcast(row[m].d[block])), out[m]);
    }
  }
  for (uint32_t m = 0; m < kN; ++m) store(acc + m * 16, out[m]);
}

template <uint32_t kN>
void q4k_product(const ProductInput &in, const uint8_t *tile, uint32_t token, float *acc) {
  QuantisedRow row[kN];
  F32 out[kN];
  for (uint32_t m = 0; m < kN; ++m) row[m] = quantised_row(in, token + m), out[m] = broadcast(0);
  const uint32_t units = (in.n_inputs + 255) / 256;
  for (uint32_t unit = 0; unit < units; ++unit, tile += 2368) {
    const uint8_t *scales = tile + 2048, *mins = scales + 128;
    const F32 d = load_f16(reinterpret_cast<const uint16_t *>(mins + 128));
    const F32 dmin = load_f16(reinterpret_cast<const uint16_t *>(mins + 160));
    for (uint32_t sub = 0; sub < 8; ++sub) {
      const uint32_t block = 8 * unit + sub;
      I32 s[kN];
      for (uint32_t m = 0; m < kN; ++m) s[m] = broadcast_int(0);
      nibble_dots<kN>(tile + sub * 256, row, block, s);
      const F32 scale = mul(d, load_u8(scales + sub * 16)), offset = mul(dmin, load_u8(mins + sub * 16));
      for (uint32_t m = 0; m < kN; ++m) {
        const float da = row[m].d[block];
        out[m] = fma(to_f32(s[m]), mul(scale, broadcast(da)), out[m]);
        out[m] = fma(offset, broadcast(-da * float(sum32(row[m], block))), out[m]);
      }
    }
  }
  for (uint32_t m = 0; m < kN; ++m) store(acc + m * 16, out[m]);
}

template <uint32_t kN>
void q6k_product(const ProductInput &in, const uint8_t *tile, uint32_t token, float *acc) {
  QuantisedRow row[kN];
  F32 out[kN];
  for (uint32_t m = 0; m < kN; ++m) row[m] = quantised_row(in, token + m), out[m] = broadcast(0);
  const uint32_t units = (in.n_inputs + 255) / 256;
  for (uint32_t unit = 0; unit < units; ++unit, tile += 4416) {
    const int8_t *scales = reinterpret_cast<const int8_t *>(tile + 4096);
    const F32 d = load_f16(reinterpret_cast<const uint16_t *>(tile + 4352));
    for (uint32_t sub = 0; sub < 8; ++sub) {
      const uint32_t block = 8 * unit + sub;
      F32 scaled[kN];
      for (uint32_t half = 0; half < 2; ++half) { /* 16 inputs share a scale */
        I32 s[kN];
        for (uint32_t m = 0; m < kN; ++m) s[m] = broadcast_int(-32 * row[m].sum16[2 * block + half]);
        for (uint32_t g = 0; g < 4; ++g) {
          const Bytes w = load_bytes(tile + (sub * 8 + half * 4 + g) * 64);
          for (uint32_t m = 0; m < kN; ++m) s[m] = dot(s[m], w, row[m].q + block * 32 + half * 16 + g * 4);
        }
        const F32 scale = load_i8(scales + (2 * sub + half) * 16);
        for (uint32_t m = 0; m < kN; ++m)
          scaled[m] = half == 0 ? mul(to_f32(s[m]), scale) : fma(to_f32(s[m]), scale, scaled[m]);
      }
      for (uint32_t m = 0; m < kN; ++m) out[m] = fma(scaled[m], mul(d, broadcast(row[m].d[block])), out[m]);
    }
  }
  for (uint32_t m = 0; m < kN; ++m) store(acc + m * 16, out[m]);
}

inline F32 float_weights(const void *p) { return load(static_cast<const float *>(p)); }
inline F32 f16_weights(const void *p) { return load_f16(static_cast<const uint16_t *>(p)); }
inline F32 bf16_weights(const void *p) { return load_bf16(static_cast<const uint16_t *>(p)); }

/* The layouts as policies, so that one function cuts n rows into template widths. */
struct F32Layout {
  template <uint32_t kN>
  static constexpr auto kRun = float_product<float_weights, 64, kN>;
};
struct F16Layout {
  template <uint32_t kN>
  static constexpr auto kRun = float_product<f16_weights, 32, kN>;
};
struct BF16Layout {
  template <uint32_t kN>
  static constexpr auto kRun = float_product<bf16_weights, 32, kN>;
};
struct Q8Layout {
  template <uint32_t kN>
  static constexpr auto kRun = q8_product<kN>;
};
struct Q4Layout {
  template <uint32_t kN>
  static constexpr auto kRun = q4_product<kN>;
};
struct Q4KLayout {
  template <uint32_t kN>
  static constexpr auto kRun = q4k_product<kN>;
};
struct Q6KLayout {
  template <uint32_t kN>
  static constexpr auto kRun = q6k_product<kN>;
};

template <class T>
void product(const ProductInput *in, const uint8_t *tile, uint32_t token, uint32_t n, float *acc) {
  while (n > 0) {
    uint32_t done;
    if (kProductTile >= 8 && n >= 8) {
      T::template kRun<kProductTile >= 8 ? 8 : 1>(*in, tile, token, acc);
      done = 8;
    } else if (n >= 4) {
      T::template kRun<4>(*in, tile, token, acc);
      done = 4;
    } else if (n >= 2) {
      T::template kRun<2>(*in, tile, token, acc);
      done = 2;
    } else {
      T::template kRun<1>(*in, tile, token, acc);
      done = 1;
    }
    token += done, n -= done, acc += done * 16;
  }
}

}  // namespace

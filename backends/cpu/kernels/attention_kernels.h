/* Attention of a tile of queries to the paged cache. Include after a lanes_*.h.
 *
 * Every (query, head) row runs through its own visible tokens in order, in splits of a fixed length, and merges them in
 * order. The other rows of the tile only share the loads. So the bits of a row depend on nothing but itself. */
#pragma once
#include "backends/cpu/kernels/kernel_table.h"
#include "backends/cpu/kernels/row_kernels.h"

namespace {

using sluice::cpu::AttendArgs;

constexpr uint32_t kChunkTokens = 64; /* cache rows whose addresses are looked up together and stay in L1 */

/* Up to 16 elements of a cache row as f32. */
template <bool kF16>
inline F32 load_cache(const uint8_t *row, uint32_t i, uint32_t n) {
  if (!kF16) return load_some(reinterpret_cast<const float *>(row) + i, n, 0);
  const uint16_t *p = reinterpret_cast<const uint16_t *>(row) + i;
  if (n >= 16) return load_f16(p);
  uint16_t v[16] = {};
  for (uint32_t j = 0; j < n; ++j) v[j] = p[j];
  return load_f16(v);
}

/* Offsets from keys or values to the rows of visible tokens [begin, end) of one query token. */
inline void cache_rows(const AttendArgs &a, uint32_t token, uint32_t begin, uint32_t end, uint64_t row_bytes,
                       uint64_t *offset) {
  const uint32_t *window = a.window == nullptr ? nullptr : a.window + uint64_t(token) * a.window_stride;
  for (uint32_t i = begin; i < end; ++i) {
    const uint32_t cell = i < a.cached || window == nullptr ? i : a.cached + window[i - a.cached];
    offset[i - begin] = a.blocks[cell / a.block_size] * a.block_bytes + cell % a.block_size * row_bytes;
  }
}

template <bool kF16>
inline void scores_of(const AttendArgs &a, const float *q, const uint64_t *offset, uint32_t n, float *score) {
  for (uint32_t t = 0; t < n; ++t) {
    const uint8_t *key = a.keys + offset[t];
    F32 s = broadcast(0);
    for (uint32_t i = 0; i < a.head_dim; i += 16)
      s = fma(load_some(q + i, a.head_dim - i, 0), load_cache<kF16>(key, i, a.head_dim - i), s);
    score[t] = sum(s) * a.scale;
  }
}

/* out += sum of p[t] * value[t], 64 elements at a time to stay in registers. */
template <bool kF16>
inline void add_values(const AttendArgs &a, const float *p, const uint64_t *offset, uint32_t n, float *out) {
  uint32_t i = 0;
  for (; i + 64 <= a.head_dim; i += 64) {
    F32 o0 = load(out + i), o1 = load(out + i + 16), o2 = load(out + i + 32), o3 = load(out + i + 48);
    for (uint32_t t = 0; t < n; ++t) {
      const uint8_t *value = a.values + offset[t];
      const F32 weight = broadcast(p[t]);
      o0 = fma(weight, load_cache<kF16>(value, i, 16), o0);
      o1 = fma(weight, load_cache<kF16>(value, i + 16, 16), o1);
      o2 = fma(weight, load_cache<kF16>(value, i + 32, 16), o2);
      o3 = fma(weight, load_cache<kF16>(value, i + 48, 16), o3);
    }
    store(out + i, o0), store(out + i + 16, o1), store(out + i + 32, o2), store(out + i + 48, o3);
  }
  for (; i < a.head_dim; i += 16) {
    const uint32_t left = a.head_dim - i;
    F32 o = load_some(out + i, left, 0);
    for (uint32_t t = 0; t < n; ++t) o = fma(broadcast(p[t]), load_cache<kF16>(a.values + offset[t], i, left), o);
    store_some(out + i, left, o);
  }
}

/* A row's result over a split: the largest score, the sum of exp(score - largest), and the weighted values. */
struct Partial {
  float largest, total;
  float values[]; /* [head_dim], not normalised */
};
inline Partial *partial_at(float *base, uint64_t index, uint32_t head_dim) {
  return reinterpret_cast<Partial *>(base + index * (head_dim + 2));
}

/* Turns n scores into weights; returns the largest and the sum. score has room up to a multiple of 16. */
inline void softmax(float *score, uint32_t n, Partial *out) {
  const uint32_t padded = (n + 15) / 16 * 16;
  F32 peak = broadcast(score[0]);
  for (uint32_t i = n; i < padded; ++i) score[i] = score[0];
  for (uint32_t i = 0; i < padded; i += 16) peak = max(peak, load(score + i));
  out->largest = largest(peak);
  for (uint32_t i = 0; i < padded; i += 16)
    store(score + i, exponential(sub(load(score + i), broadcast(out->largest))));
  for (uint32_t i = n; i < padded; ++i) score[i] = 0;
  F32 total = broadcast(0);
  for (uint32_t i = 0; i < padded; i += 16) total = add(total, load(score + i));
  out->total = sum(total);
}

inline void merge_into(Partial *into, const Partial *next, bool first, uint32_t head_dim) {
  if (first) {
    into->largest = next->largest, into->total = next->total;
    for (uint32_t i = 0; i < head_dim; ++i) into->values[i] = next->values[i];
    return;
  }
  const float peak = into->largest > next->largest ? into->largest : next->largest;
  float factor[16] = {into->largest - peak, next->largest - peak};
  store(factor, exponential(load(factor)));
  const float old_factor = factor[0], new_factor = factor[1];
  into->largest = peak;
  into->total = into->total * old_factor + next->total * new_factor;
  for (uint32_t i = 0; i < head_dim; ++i) into->values[i] = into->values[i] * old_factor + next->values[i] * new_factor;
}

inline void finish(const Partial *p, uint32_t head_dim, float *out) {
  const float inverse = 1.0f / p->total;
  for (uint32_t i = 0; i < head_dim; ++i) out[i] = p->values[i] * inverse;
}

/* One split of all rows of the tile: scores, weights, weighted values. Rows that see less take part for less. */
template <bool kF16>
void attend_split(const AttendArgs &a, uint32_t split, float *scores, float *partials) {
  const uint64_t row_bytes = uint64_t(a.head_dim) * (kF16 ? 2 : 4);
  const uint32_t begin = split * a.split_tokens;
  uint64_t offset[kChunkTokens];
  for (uint32_t phase = 0; phase < 2; ++phase) { /* keys, then values */
    for (uint32_t chunk = begin; chunk < begin + a.split_tokens; chunk += kChunkTokens) {
      bool looked_up = false;
      for (uint32_t t = 0; t < a.tokens; ++t) {
        const uint32_t limit = chunk + kChunkTokens, end = a.visible[t] < limit ? a.visible[t] : limit;
        if (end <= chunk) continue;
        if (a.window != nullptr || !looked_up) {
          /* causal rows share the addresses: look up what the last one, which sees most, will need */
          const uint32_t most = a.window != nullptr               ? end
                                : a.visible[a.tokens - 1] < limit ? a.visible[a.tokens - 1]
                                                                  : limit;
          cache_rows(a, t, chunk, most, row_bytes, offset);
          looked_up = true;
        }
        for (uint32_t g = 0; g < a.group; ++g) {
          const uint32_t row = t * a.group + g;
          float *score = scores + uint64_t(row) * a.split_tokens + (chunk - begin);
          if (phase == 0)
            scores_of<kF16>(a, a.q + (uint64_t(t) * a.q_heads + g) * a.head_dim, offset, end - chunk, score);
          else
            add_values<kF16>(a, score, offset, end - chunk, partial_at(partials, row, a.head_dim)->values);
        }
      }
    }
    if (phase == 1) break;
    for (uint32_t row = 0; row < a.tokens * a.group; ++row) {
      const uint32_t seen = a.visible[row / a.group];
      if (seen <= begin) continue;
      Partial *p = partial_at(partials, row, a.head_dim);
      softmax(scores + uint64_t(row) * a.split_tokens, seen - begin < a.split_tokens ? seen - begin : a.split_tokens,
              p);
      for (uint32_t i = 0; i < a.head_dim; ++i) p->values[i] = 0;
    }
  }
}

template <bool kF16>
void attend_typed(const AttendArgs &a) {
  const uint64_t rows = uint64_t(a.tokens) * a.group, row_floats = a.head_dim + 2;
  float *scores = a.scratch, *now = scores + rows * a.split_tokens, *sum_so_far = now + rows * row_floats;
  for (uint32_t split = a.split_begin; split < a.split_end; ++split) {
    attend_split<kF16>(a, split, scores, now);
    for (uint32_t row = 0; row < rows; ++row) {
      if (a.visible[row / a.group] <= split * a.split_tokens) continue;
      const Partial *p = partial_at(now, row, a.head_dim);
      if (a.partial != nullptr) /* one split per item: hand it out */
        merge_into(partial_at(a.partial, uint64_t(row / a.group) * a.q_heads + row % a.group, a.head_dim), p, true,
                   a.head_dim);
      else
        merge_into(partial_at(sum_so_far, row, a.head_dim), p, split == a.split_begin, a.head_dim);
    }
  }
  if (a.partial != nullptr) return;
  for (uint32_t row = 0; row < rows; ++row)
    finish(partial_at(sum_so_far, row, a.head_dim), a.head_dim,
           a.out + (uint64_t(row / a.group) * a.q_heads + row % a.group) * a.head_dim);
}

void attend(const AttendArgs *a) { a->is_f16 ? attend_typed<true>(*a) : attend_typed<false>(*a); }

void merge(const float *partials, uint32_t n, uint64_t stride, uint32_t head_dim, float *out) {
  float space[sluice::cpu::kMaxHeadDim + 2] = {};
  Partial *total = reinterpret_cast<Partial *>(space);
  for (uint32_t i = 0; i < n; ++i)
    merge_into(total, reinterpret_cast<const Partial *>(partials + i * stride), i == 0, head_dim);
  finish(total, head_dim, out);
}

}  // namespace

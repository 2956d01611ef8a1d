// sluice/sdk/row_math.hpp - passes over one long row of f32, at the speed of memory or nearly.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace sluice::sdk {
inline namespace v0 {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();  ///< an entry that cannot be chosen

/// An entry of a row. The order of the ABI: the larger logit first, the lower id among equals.
struct Ranked {
  float logit;
  int32_t id;
};
inline bool better(const Ranked &a, const Ranked &b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

namespace detail {
// Vectors of 16 bytes exist on every CPU we build for, and GCC and Clang agree on their syntax.
typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));

inline F4 load(const float *p) {
  F4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline I4 to_int(F4 v) { return __builtin_convertvector(v, I4); }
inline F4 to_float(I4 v) { return __builtin_convertvector(v, F4); }
inline F4 as_float(I4 v) {
  F4 f;
  std::memcpy(&f, &v, sizeof f);
  return f;
}
inline int32_t to_int(float v) { return static_cast<int32_t>(v); }
inline float to_float(int32_t v) { return static_cast<float>(v); }
inline float as_float(int32_t v) {
  float f;
  std::memcpy(&f, &v, sizeof f);
  return f;
}

/// exp for x <= 0, T a float or a vector of them. Cephes' expf: 2^k times a polynomial on [-ln 2 / 2, ln 2 / 2].
template <class T> T exp_below(T x) {
  const T low = T{} - 87.0f;
  const T c = x < low ? low : x;
  const auto k = to_int(c * 1.44269504f - 0.5f);  // nearest integer, since c <= 0
  const T kf = to_float(k);
  const T r = (c - kf * 0.693359375f) + kf * 2.12194440e-4f;  // ln 2 in two parts
  T p = T{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return x < low ? T{} : p * as_float((k + 127) << 23);
}

/// Has one of the kLanes entries at p reached the limit?
constexpr uint32_t kLanes = 16;
inline bool any_from(const float *p, F4 limit) {
  const I4 hit = (load(p) >= limit) | (load(p + 4) >= limit) | (load(p + 8) >= limit) | (load(p + 12) >= limit);
  uint64_t half[2];
  std::memcpy(half, &hit, sizeof half);
  return (half[0] | half[1]) != 0;
}
}  // namespace detail

/// exp(x) for x <= 0, relative error below 2e-7; 0 below -87.
inline float exp_nonpositive(float x) { return detail::exp_below(x); }

/// Largest entry; -inf for an empty row or one of NaNs.
inline float row_max(const float *row, uint32_t n) {
  using detail::load;
  detail::F4 m[4];
  for (auto &v : m) v = detail::F4{} + kRemoved;
  uint32_t i = 0;
  for (; i + detail::kLanes <= n; i += detail::kLanes)
    for (uint32_t j = 0; j < 4; ++j) {
      const detail::F4 x = load(row + i + 4 * j);
      m[j] = x > m[j] ? x : m[j];
    }
  float best = kRemoved;
  for (const auto &v : m)
    for (uint32_t j = 0; j < 4; ++j) best = v[j] > best ? v[j] : best;
  for (; i < n; ++i) best = row[i] > best ? row[i] : best;
  return best;
}

/// Lowest id of the largest entry, or -1 when nothing can be chosen. NaN is never chosen.
inline int32_t row_argmax(const float *row, uint32_t n) {
  const float best = row_max(row, n);
  if (best == kRemoved) return -1;
  uint32_t i = 0;
  while (i + detail::kLanes <= n && !detail::any_from(row + i, detail::F4{} + best)) i += detail::kLanes;
  while (row[i] != best) ++i;
  return static_cast<int32_t>(i);
}

/// sum of exp(row[i] - max), accumulated so that 200,000 terms keep six digits. max >= every entry.
inline double exp_sum(const float *row, uint32_t n, float max) {
  constexpr uint32_t kChunk = 1024;  // f32 adds 64 terms per lane at most, f64 adds the chunks
  double total = 0;
  uint32_t i = 0;
  while (i + detail::kLanes <= n) {
    detail::F4 sum[4] = {};
    const uint32_t end = n - i < kChunk ? i + (n - i) / detail::kLanes * detail::kLanes : i + kChunk;
    for (; i < end; i += detail::kLanes)
      for (uint32_t j = 0; j < 4; ++j) sum[j] += detail::exp_below(detail::load(row + i + 4 * j) - max);
    for (const auto &v : sum)
      for (uint32_t j = 0; j < 4; ++j) total += static_cast<double>(v[j]);
  }
  for (; i < n; ++i) total += static_cast<double>(exp_nonpositive(row[i] - max));
  return total;
}

/// row[i] /= divisor.
inline void divide_row(float *row, uint32_t n, float divisor) {
  uint32_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const detail::F4 v = detail::load(row + i) / divisor;
    std::memcpy(row + i, &v, sizeof v);
  }
  for (; i < n; ++i) row[i] /= divisor;
}

/// log(sum(exp(row))); -inf when nothing can be chosen.
inline float log_sum_exp(const float *row, uint32_t n) {
  const float max = row_max(row, n);
  return max == kRemoved ? kRemoved : max + static_cast<float>(std::log(exp_sum(row, n, max)));
}

/// Calls f(id) for each entry >= limit(), in order of id. The limit may rise on the way: entries that it has passed by
/// then may or may not be seen. Blocks without a hit cost one comparison.
template <class L, class F> void for_each_from(const float *row, uint32_t n, L &&limit, F &&f) {
  uint32_t i = 0;
  for (; i + detail::kLanes <= n; i += detail::kLanes) {
    if (!detail::any_from(row + i, detail::F4{} + limit())) continue;
    for (uint32_t j = 0; j < detail::kLanes; ++j)
      if (row[i + j] >= limit()) f(static_cast<int32_t>(i + j));
  }
  for (; i < n; ++i)
    if (row[i] >= limit()) f(static_cast<int32_t>(i));
}

/// The k best entries of a row, in no order; fewer when fewer can be chosen. `out` is reused memory.
inline void top_k_of_row(const float *row, uint32_t n, uint32_t k, std::vector<Ranked> &out) {
  out.clear();
  if (k == 0) return;
  const bool few = k <= n / 16;  // then a heap of the best so far discards nearly every block at once
  float limit = std::numeric_limits<float>::lowest();
  const auto take = [&](int32_t id) {
    const Ranked r{row[id], id};
    if (few && out.size() == k) {
      if (!better(r, out.front())) return;
      std::pop_heap(out.begin(), out.end(), better);
      out.back() = r;
      std::push_heap(out.begin(), out.end(), better);
      limit = out.front().logit;
      return;
    }
    out.push_back(r);
    if (few && out.size() == k) {
      std::make_heap(out.begin(), out.end(), better);
      limit = out.front().logit;
    }
  };
  for_each_from(row, n, [&] { return limit; }, take);
  if (out.size() > k) {
    std::nth_element(out.begin(), out.begin() + (k - 1), out.end(), better);
    out.resize(k);
  }
}

/// Keeps the fewest best whose exp(logit - max) add up to `target`, at least one. Expected time O(entries).
inline void keep_best_mass(std::vector<Ranked> &entries, float max, double target) {
  size_t low = 0, high = entries.size();  // the cut lies in [low, high): entries before `low` stay
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    std::nth_element(entries.begin() + static_cast<std::ptrdiff_t>(low),
                     entries.begin() + static_cast<std::ptrdiff_t>(middle),
                     entries.begin() + static_cast<std::ptrdiff_t>(high), better);
    double mass = 0;
    for (size_t i = low; i < middle; ++i) mass += static_cast<double>(exp_nonpositive(entries[i].logit - max));
    if (mass >= target) {
      high = middle;
    } else {
      target -= mass;
      low = middle;
    }
  }
  entries.resize(low + (entries.empty() ? 0 : 1));
}

}  // namespace v0
}  // namespace sluice::sdk

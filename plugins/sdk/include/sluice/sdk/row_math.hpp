// sluice/sdk/row_math.hpp - passes over one long row of f32. Loops run in blocks of kLanes with a constant trip count,
// which compilers turn into vector code at -O2 without being asked for an instruction set.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace sluice::sdk {
inline namespace v0 {

constexpr uint32_t kLanes = 16;
constexpr float kRemoved = -std::numeric_limits<float>::infinity();  ///< an entry that cannot be chosen

/// An entry of a row. The order of the ABI: the larger logit first, the lower id among equals.
struct Ranked {
  float logit;
  int32_t id;
};
inline bool better(const Ranked &a, const Ranked &b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

/// Largest entry; -inf for an empty row or one of NaNs.
inline float row_max(const float *row, uint32_t n) {
  float lane[kLanes];
  for (float &l : lane) l = kRemoved;
  uint32_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (uint32_t j = 0; j < kLanes; ++j) lane[j] = row[i + j] > lane[j] ? row[i + j] : lane[j];
  float best = kRemoved;
  for (const float l : lane) best = l > best ? l : best;
  for (; i < n; ++i) best = row[i] > best ? row[i] : best;
  return best;
}

/// Lowest id of the largest entry, or -1 when nothing can be chosen. NaN is never chosen.
inline int32_t row_argmax(const float *row, uint32_t n) {
  const float best = row_max(row, n);
  if (best == kRemoved) return -1;
  for (uint32_t i = 0;; ++i)
    if (row[i] == best) return static_cast<int32_t>(i);
}

/// exp(x) for x <= 0, relative error below 2e-7; 0 below -87.
inline float exp_nonpositive(float x) {
  const float c = x < -87.0f ? -87.0f : x;
  const int32_t k = static_cast<int32_t>(c * 1.44269504f - 0.5f);  // nearest integer, since c <= 0
  const float kf = static_cast<float>(k);
  const float r = (c - kf * 0.693359375f) + kf * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.9875691500e-4f;                                     // minimax on [-ln 2 / 2, ln 2 / 2] (Cephes expf)
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (k + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return x < -87.0f ? 0.0f : p * scale;
}

/// sum of exp(row[i] - max), accumulated so that 200,000 terms keep six digits. max >= every entry.
inline double exp_sum(const float *row, uint32_t n, float max) {
  constexpr uint32_t kChunk = 64 * kLanes;
  double total = 0;
  uint32_t i = 0;
  while (i + kLanes <= n) {
    float lane[kLanes] = {};
    const uint32_t end = n - i < kChunk ? i + (n - i) / kLanes * kLanes : i + kChunk;
    for (; i < end; i += kLanes)
      for (uint32_t j = 0; j < kLanes; ++j) lane[j] += exp_nonpositive(row[i + j] - max);
    for (const float l : lane) total += static_cast<double>(l);
  }
  for (; i < n; ++i) total += static_cast<double>(exp_nonpositive(row[i] - max));
  return total;
}

/// log(sum(exp(row))); -inf when nothing can be chosen.
inline float log_sum_exp(const float *row, uint32_t n) {
  const float max = row_max(row, n);
  return max == kRemoved ? kRemoved : max + static_cast<float>(std::log(exp_sum(row, n, max)));
}

/// Calls f(id) for each entry >= limit, in order of id; skips blocks without one.
template <class F> void for_each_from(const float *row, uint32_t n, float limit, F &&f) {
  uint32_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    int32_t hits = 0;
    for (uint32_t j = 0; j < kLanes; ++j) hits |= row[i + j] >= limit ? 1 : 0;
    if (hits == 0) continue;
    for (uint32_t j = 0; j < kLanes; ++j)
      if (row[i + j] >= limit) f(static_cast<int32_t>(i + j));
  }
  for (; i < n; ++i)
    if (row[i] >= limit) f(static_cast<int32_t>(i));
}

/// The k best entries of a row, in no order; fewer when fewer can be chosen. `out` is reused memory.
inline void top_k_of_row(const float *row, uint32_t n, uint32_t k, std::vector<Ranked> &out) {
  out.clear();
  if (k == 0) return;
  const bool few = k <= n / 16;  // then a heap of the best so far discards nearly every block at once
  float limit = std::numeric_limits<float>::lowest();
  const auto take = [&](uint32_t i) {
    if (few && out.size() == k) {
      const Ranked r{row[i], static_cast<int32_t>(i)};
      if (!better(r, out.front())) return;
      std::pop_heap(out.begin(), out.end(), better);
      out.back() = r;
      std::push_heap(out.begin(), out.end(), better);
      limit = out.front().logit;
      return;
    }
    out.push_back({row[i], static_cast<int32_t>(i)});
    if (few && out.size() == k) {
      std::make_heap(out.begin(), out.end(), better);
      limit = out.front().logit;
    }
  };
  uint32_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    int32_t hits = 0;
    for (uint32_t j = 0; j < kLanes; ++j) hits |= row[i + j] >= limit ? 1 : 0;
    if (hits == 0) continue;
    for (uint32_t j = 0; j < kLanes; ++j)
      if (row[i + j] >= limit) take(i + j);
  }
  for (; i < n; ++i)
    if (row[i] >= limit) take(i);
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

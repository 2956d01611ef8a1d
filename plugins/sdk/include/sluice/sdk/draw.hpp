// sluice/sdk/draw.hpp - THE DRAW of sluice/abi/rng.h, on the host.
#pragma once
#include <sluice/abi/rng.h>
#include <sluice/sdk/row_math.hpp>

namespace sluice::sdk {
inline namespace v0 {

/// Largest noise there is: -log(-log(u)) at the largest unit, rounded up.
constexpr float kGumbelMax = 16.64f;

inline float gumbel(uint32_t random) { return -std::log(-std::log(sluice_rng_unit(random))); }

/// Noise of one token.
inline float gumbel_of(uint64_t seed, uint32_t position, uint32_t stream, int32_t token) {
  uint32_t r[4];
  const auto v = static_cast<uint32_t>(token);
  sluice_rng(seed, position, stream, v / 4, r);
  return gumbel(r[v % 4]);
}

/// Perturbed logits compared as the rule says.
struct DrawBest {
  Ranked best{kRemoved, -1};
  void offer(float perturbed, int32_t id) {
    if (perturbed > best.logit || (perturbed == best.logit && perturbed != kRemoved && id < best.id))
      best = {perturbed, id};
  }
};

/// argmax(row + noise) over a whole row; -1 when all of it is -inf. Noise is made only where it can still win.
inline int32_t draw_row(const float *row, uint32_t n, uint64_t seed, uint32_t position,
                        uint32_t stream = SLUICE_RNG_DRAW) {
  const int32_t top = row_argmax(row, n);
  if (top < 0) return -1;
  DrawBest d;
  d.offer(row[top] + gumbel_of(seed, position, stream, top), top);
  uint32_t noise[4], group = UINT32_MAX;
  for_each_from(row, n, [&] { return d.best.logit - kGumbelMax; },
                [&](int32_t id) {
                  const auto v = static_cast<uint32_t>(id);
                  if (v / 4 != group) sluice_rng(seed, position, stream, group = v / 4, noise);
                  d.offer(row[v] + gumbel(noise[v % 4]), id);
                });
  return d.best.id;
}

/// The same over a list; ids below 0 and logits of -inf are passed over. -1 when nothing is left.
inline int32_t draw_list(const Ranked *entries, size_t n, uint64_t seed, uint32_t position,
                         uint32_t stream = SLUICE_RNG_DRAW) {
  DrawBest d;
  for (size_t i = 0; i < n; ++i) {
    const Ranked &e = entries[i];
    if (e.id < 0 || !(e.logit > kRemoved) || e.logit + kGumbelMax < d.best.logit) continue;
    d.offer(e.logit + gumbel_of(seed, position, stream, e.id), e.id);
  }
  return d.best.id;
}

}  // namespace v0
}  // namespace sluice::sdk

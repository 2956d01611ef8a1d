#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace sluice::engine {

/// THE DRAW several times without replacement: the n tokens with the largest logit + noise, in that order, then -1. The
/// first is the one that draw_row() gives. (Gumbel top-k; Kool et al. 2019.)
///   row  [vocab] logits, -inf = removed;  out  [n]
void draw_distinct(std::span<const float> row, uint32_t n, uint64_t seed, uint32_t position, uint32_t stream,
                   int32_t *out);

/// Softmax of a row of logits, -inf = removed; all zeros when nothing is left. out [vocab], float or double.
template <class T> void probabilities_of(std::span<const float> row, std::vector<T> &out);

}  // namespace sluice::engine

#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/engine/draft_tree.hpp"

namespace sluice::engine {

/// How siblings were drawn from their common distribution.
enum class Siblings : uint8_t { kWithoutReplacement, kIndependent };

/// Exact rejection sampling at one node of a tree: drafts are tried in the order drawn, and what is chosen in the end
/// has the target's distribution. (Leviathan et al. 2023; Miao et al. 2024 for several drafts.)
///
///   Residual at(p);
///   for every draft x: if (unit < at.acceptance(x, q)) take x; else at.reject(x, q);
///   none was taken: draw from at.left()
///
/// Before the t-th try `p` is what the tries before have left of the target, and `q` what a draw can still be: without
/// replacement the drafts before are removed from it and the rest is scaled up.
class Residual {
 public:
  /// p  [vocab] probabilities; taken over
  Residual(std::vector<double> &p, Siblings siblings) : p_(p), siblings_(siblings) {}

  /// Probability with which draft x, drawn from q, is to be accepted: min(1, p(x) / q(x)), 0 where q(x) is 0.
  double acceptance(int32_t x, const DraftDistribution &q) const;
  /// Draft x was not accepted: p becomes the normalised positive part of p - q.
  void reject(int32_t x, const DraftDistribution &q);
  /// [vocab] probabilities to draw from when no draft was accepted.
  std::span<const double> left() const { return p_; }

 private:
  double q_of(int32_t x, const DraftDistribution &q) const;

  std::vector<double> &p_;
  const Siblings siblings_;
  std::vector<int32_t> tried_;
  double left_of_q_ = 1;  ///< without replacement: the mass of q that a draw can still hit
};

}  // namespace sluice::engine

#include "core/engine/residual.hpp"

#include <algorithm>

namespace sluice::engine {

double Residual::q_of(int32_t x, const DraftDistribution &q) const {
  const double raw = static_cast<double>(q.of(x));
  if (siblings_ == Siblings::kIndependent) return raw;
  if (std::find(tried_.begin(), tried_.end(), x) != tried_.end()) return 0;
  return left_of_q_ > 0 ? raw / left_of_q_ : 0;
}

double Residual::acceptance(int32_t x, const DraftDistribution &q) const {
  const double p = p_[static_cast<size_t>(x)];
  const double drawn = q_of(x, q);
  if (!(drawn > 0) || !(p > 0)) return 0;
  return std::min(1.0, p / drawn);
}

void Residual::reject(int32_t x, const DraftDistribution &q) {
  std::vector<double> rest(p_);
  const auto take = [&](int32_t token) {
    auto &left = rest[static_cast<size_t>(token)];
    left = std::max(0.0, left - q_of(token, q));
  };
  if (!q.dense.empty()) {
    for (int32_t token = 0; token < static_cast<int32_t>(rest.size()); ++token) take(token);
  } else {
    for (const int32_t token : q.ids) take(token);
  }
  double sum = 0;
  for (const double value : rest) sum += value;
  // Nothing is left only when p and q agree up to rounding; then a draw from p is a draw from the residual's limit.
  if (sum > 1e-12) {
    for (size_t i = 0; i < rest.size(); ++i) p_[i] = rest[i] / sum;
  }
  if (siblings_ == Siblings::kIndependent) return;
  tried_.push_back(x);
  // Summed, not taken from 1: a row of f32 sums to 1 but for rounding, which would be large in a small rest.
  left_of_q_ = 0;
  const auto mass = q.dense.empty() ? q.probs : q.dense;
  for (size_t i = 0; i < mass.size(); ++i) {
    const auto token = q.dense.empty() ? q.ids[i] : static_cast<int32_t>(i);
    if (std::find(tried_.begin(), tried_.end(), token) == tried_.end()) left_of_q_ += static_cast<double>(mass[i]);
  }
}

}  // namespace sluice::engine

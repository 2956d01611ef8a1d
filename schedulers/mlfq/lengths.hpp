// How much output lengths differ: what decides whether feedback can help at all.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace sluice::mlfq {

/// Mean and mean square of output lengths, weighted towards the last `window` or so.
class Lengths {
 public:
  explicit Lengths(uint32_t window) : window_(window) {}

  void add(uint32_t tokens) {
    const double share = 1.0 / static_cast<double>(n_ < window_ ? ++n_ : window_), x = tokens;
    mean_ += share * (x - mean_);
    square_ += share * (x * x - square_);
  }
  /// Before the window is full, short answers are over-represented, because they end first.
  bool known() const { return n_ == window_; }
  /// Standard deviation over mean.
  double cv() const { return mean_ > 0 ? std::sqrt(std::max(0.0, square_ - mean_ * mean_)) / mean_ : 0; }
  template <class F> void visit(F &&f) { f(n_), f(mean_), f(square_); }

 private:
  const uint64_t window_;
  uint64_t n_ = 0;
  double mean_ = 0, square_ = 0;
};

}  // namespace sluice::mlfq

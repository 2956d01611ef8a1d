// How much output lengths differ: what decides whether feedback can help at all.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace sluice::mlfq {

/// The last `window` output lengths.
class Lengths {
 public:
  explicit Lengths(uint32_t window) : last_(window, 0) {}

  void add(uint32_t tokens) {
    uint32_t &slot = last_[n_ % last_.size()];
    sum_ += tokens - uint64_t{slot};  // modulo 2^64 both sums stay exact
    squares_ += uint64_t{tokens} * tokens - uint64_t{slot} * slot;
    slot = tokens;
    ++n_;
  }
  uint64_t count() const { return std::min<uint64_t>(n_, last_.size()); }
  /// Enough of them to say anything: a quarter of the window.
  bool known() const { return count() * 4 >= last_.size(); }
  /// Standard deviation over mean.
  double cv() const {
    if (sum_ == 0) return 0;
    const auto n = static_cast<double>(count()), mean = static_cast<double>(sum_) / n;
    return std::sqrt(std::max(0.0, static_cast<double>(squares_) / n - mean * mean)) / mean;
  }
  template <class F> void visit(F &&f) { f(last_), f(n_), f(sum_), f(squares_); }

 private:
  std::vector<uint32_t> last_;
  uint64_t n_ = 0, sum_ = 0, squares_ = 0;
};

}  // namespace sluice::mlfq

#pragma once
#include <sluice/abi/kinds/backend.h>

#include <cstdint>
#include <limits>

#include "core/base/clock.hpp"
#include "core/base/error.hpp"

namespace sluice::engine {

struct SwapRates {
  double out_bytes_per_s = 0, in_bytes_per_s = 0;  ///< 0 = not known yet
};

/// Copies some blocks out and in again, and times the faster of a few rounds.
/// Contents of the blocks are lost: call before anything is stored. At most `n_blocks` of either side are used.
/// errors  the backend's; Timeout when a copy does not end within seconds
/// thread  [init]
Result<SwapRates> measure_swap(const sluice_backend_vtbl &backend, sluice_model *model, const Clock &clock,
                               uint32_t n_blocks, uint64_t bytes_per_block);

/// What moving blocks between device and host is likely to take, corrected by the transfers that were.
class SwapCost {
 public:
  explicit SwapCost(const SwapRates &measured);

  /// A transfer ended at some time within [at_least_ns, at_most_ns] after it was queued; nobody looked in between, so
  /// only an estimate outside of that is known to be wrong.
  void observe(bool in, uint64_t bytes, uint64_t at_least_ns, uint64_t at_most_ns);
  uint64_t predict_ns(bool in, uint64_t bytes) const {
    return static_cast<uint64_t>(ns_per_byte_[in] * static_cast<double>(bytes));
  }
  double bytes_per_s(bool in) const { return 1e9 / ns_per_byte_[in]; }

 private:
  double ns_per_byte_[2];
};

}  // namespace sluice::engine

#include "core/engine/swap_cost.hpp"

#include <algorithm>

#include "core/engine/abi_call.hpp"
#include "core/engine/transfer.hpp"

namespace sluice::engine {
namespace {

constexpr double kUnknownBytesPerSecond = 8e9;  // of a middling bus, until a transfer says otherwise
constexpr double kFastestBytesPerSecond = 1e15;  // a clock that stands still must not divide by zero
constexpr uint64_t kCalibrationBytes = 8u << 20;
constexpr uint64_t kPatienceNs = 5'000'000'000;
constexpr int kRounds = 3;

double ns_per_byte(double bytes_per_s) {
  return 1e9 / std::min(bytes_per_s > 0 ? bytes_per_s : kUnknownBytesPerSecond, kFastestBytesPerSecond);
}

Result<uint64_t> time_copies(const sluice_backend_vtbl &backend, sluice_model *model, const Clock &clock, uint8_t op,
                             uint32_t n_blocks) {
  KvOps ops;
  for (uint32_t i = 0; i < n_blocks; ++i) ops.add(op, i, i);
  const auto batch = ops.abi();
  sluice_ticket ticket = 0;
  const uint64_t began = clock.now_ns();
  if (auto r = call({"measuring swaps", "kv_ops"}, backend.kv_ops, model, &batch, &ticket); !r) return r.error().error;
  if (auto r = call({"measuring swaps", "wait"}, backend.wait, model, ticket, kPatienceNs, nullptr); !r) return r.error().error;
  return clock.now_ns() - began;
}

}  // namespace

Result<SwapRates> measure_swap(const sluice_backend_vtbl &backend, sluice_model *model, const Clock &clock,
                               uint32_t n_blocks, uint64_t bytes_per_block) {
  const auto n = static_cast<uint32_t>(
      std::clamp<uint64_t>(kCalibrationBytes / std::max<uint64_t>(1, bytes_per_block), 1, std::max(1U, n_blocks)));
  double best[2] = {0, 0};
  for (int round = 0; round < kRounds; ++round) {
    for (const bool in : {false, true}) {
      auto ns = time_copies(backend, model, clock, in ? SLUICE_KV_SWAP_IN : SLUICE_KV_SWAP_OUT, n);
      if (!ns) return ns.error();
      const double bytes = static_cast<double>(n) * static_cast<double>(bytes_per_block);
      best[in] = std::max(best[in], bytes * 1e9 / static_cast<double>(std::max<uint64_t>(1, *ns)));
    }
  }
  return SwapRates{best[0], best[1]};
}

SwapCost::SwapCost(const SwapRates &measured)
    : ns_per_byte_{ns_per_byte(measured.out_bytes_per_s), ns_per_byte(measured.in_bytes_per_s)} {}

void SwapCost::observe(bool in, uint64_t bytes, uint64_t at_least_ns, uint64_t at_most_ns) {
  if (bytes == 0) return;
  const uint64_t expected = predict_ns(in, bytes);
  if (expected >= at_least_ns && expected <= at_most_ns) return;
  const uint64_t nearest = expected < at_least_ns ? at_least_ns : at_most_ns;
  const double seen = std::max(static_cast<double>(nearest) / static_cast<double>(bytes), 1e9 / kFastestBytesPerSecond);
  ns_per_byte_[in] += (seen - ns_per_byte_[in]) / 4;
}

}  // namespace sluice::engine

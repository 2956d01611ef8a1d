#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/sim/simulation.hpp"

namespace sluice::sim {

/// Of one quantity over requests.
struct Spread {
  double mean = 0, p50 = 0, p95 = 0, p99 = 0, max = 0;
};

/// The requests of one decile of output length.
struct Decile {
  double output_tokens = 0, jct_s = 0, jct_per_token_s = 0;  ///< means
};

/// What the counted requests of one run, or of several runs, experienced. Times in seconds.
///   jct             arrival to last token
///   ttft            arrival to first token
///   normalized      jct over output tokens
///   longest_pause   between two tokens of one answer
struct Measures {
  Spread jct, ttft, normalized, longest_pause;
  std::array<Decile, 10> deciles;
  double throughput_of_arrivals = 0;  ///< requests finished over requests arrived, while the counted ones arrived
  double preemptions = 0, swaps_out_gb = 0, swaps_in_gb = 0;  ///< per run; gigabytes
  double recompute_tax = 0;           ///< prompt tokens computed again, over all that were computed
  double device_busy = 0;             ///< fraction of the time
  double end_s = 0;                   ///< when the last request was done
  double kv_used = 0;                 ///< fraction, mean over time
};

/// Measures one run. counted: the middle part of the requests that counts.
Measures measure(const Outcome &outcome, const std::vector<Arrival> &arrivals, double counted, const Setup &setup);

/// The mean of each figure over runs; percentiles are averaged, maxima too. max of longest_pause is the largest.
Measures average(std::span<const Measures> runs);

/// Points of a distribution function, at most `n`, ascending, from all values.
std::vector<std::pair<double, double>> distribution(std::vector<double> values, size_t n);

/// Values of the counted requests, for distribution().
std::vector<double> counted_jct_s(const Outcome &outcome, const std::vector<Arrival> &arrivals, double counted);
std::vector<double> counted_ttft_s(const Outcome &outcome, const std::vector<Arrival> &arrivals, double counted);

}  // namespace sluice::sim

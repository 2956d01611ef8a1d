#pragma once
#include <cstdint>
#include <vector>

#include "core/base/error.hpp"
#include "core/sim/setup.hpp"

namespace sluice::sim {

/// A request as it comes, whatever the policy.
struct Arrival {
  uint64_t at_ns = 0;
  uint32_t input = 1, output = 1;  ///< tokens, at least 1
};

/// The requests of one run by time. Every number is a function of (seed, request, purpose), so two policies, two
/// compilers and two machines see the same ones, and another rate sees the same lengths.
///   rate_per_s  mean; not used with a trace
/// errors  InvalidArgument: the trace (file and line), or lengths that practically never fit their limits
Result<std::vector<Arrival>> make_workload(const Setup &setup, uint64_t seed, double rate_per_s);

/// Standard deviation over mean of the output lengths.
double output_cv(const std::vector<Arrival> &arrivals);

}  // namespace sluice::sim

#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/sim/measures.hpp"
#include "core/sim/simulation.hpp"

namespace sluice::sim {

/// One policy at one load, over all seeds.
struct PolicyResult {
  std::string name;
  std::vector<Measures> runs;    ///< by seed
  std::vector<uint64_t> hashes;  ///< by seed, see Outcome::hash
  Measures mean;
  std::vector<std::pair<double, double>> jct_cdf, ttft_cdf;  ///< of the first seed, seconds
  std::vector<Moment> moments;                               ///< of the first seed
  uint64_t plan_fallbacks = 0, output_tokens = 0;            ///< of all seeds
  uint32_t most_held_back = 0;
};

struct LoadResult {
  double rho = 0, rate_per_s = 0;  ///< rho 0 = not known
  double output_cv = 0;            ///< of the first seed's workload
  std::vector<PolicyResult> policies;
};

struct Comparison {
  std::string step_model;
  double saturation_per_s = 0;  ///< 0 = not needed
  bool saturation_measured = false;
  std::vector<LoadResult> loads;
};

/// What is under way, for whoever waits.
struct Under {
  std::string policy;
  double rho = 0, rate_per_s = 0;
  uint64_t seed = 0;
  uint32_t run = 0, n_runs = 0, finished = 0, n_requests = 0;
};
using Watcher = std::function<void(const Under &)>;

/// Runs every policy on the same workloads, one after the other. Policies are ratio'd against the first.
///   plugins  one per policy of the setup, in its order
/// errors     of make_workload, StepModel::create and simulate; the latter name the policy
Result<Comparison> compare(const Setup &setup, const std::vector<Plugins> &plugins, VirtualClock &clock,
                           const Watcher &watcher);

/// Requests per second that the policy finishes when all of them are there from the start.
Result<double> measure_saturation(const Setup &setup, const Plugins &plugins, const StepModel &steps,
                                  VirtualClock &clock);

/// Everything that was measured, as JSON text.
std::string to_json(const Setup &setup, const Comparison &comparison);

/// One page without references to anything outside it.
std::string to_html(const Setup &setup, const Comparison &comparison);

}  // namespace sluice::sim

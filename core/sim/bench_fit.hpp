#pragma once
#include <string>
#include <vector>

#include "core/base/error.hpp"
#include "core/sim/setup.hpp"
#include "core/sim/step_model.hpp"

namespace sluice::sim {

struct BenchFit {
  StepConstants constants;
  size_t n_points = 0;
  double mean_error = 0, largest_error = 0;  ///< relative to what was measured
};

/// Fits the step model to what `sluice bench --json` printed, one file per run. Several prompt lengths are needed to
/// tell the price of context from that of a step: with one, context costs nothing.
/// errors  InvalidArgument: a file that cannot be read or is not such an output
Result<BenchFit> fit_bench(const std::vector<std::string> &paths);

/// The same from points: max(floor, per_token * tokens) + base + per_context * context, no constant below 0, with the
/// least sum of squared relative errors.
BenchFit fit_points(const std::vector<StepPoint> &points);

}  // namespace sluice::sim

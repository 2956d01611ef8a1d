#include "core/sim/comparison.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace sluice::sim {
namespace {

constexpr size_t kCdfPoints = 400;
constexpr uint32_t kBacklogRequests = 20'000;

struct RatePoint {
  double rho, rate_per_s;
};

std::vector<RatePoint> rates_of(const Load &load, double saturation_per_s) {
  if (load.arrivals == Arrivals::kTrace) return {{0, 0}};
  std::vector<RatePoint> points;
  for (const double rho : load.rho) points.push_back({rho, rho * saturation_per_s});
  for (const double rate : load.rates_per_s) points.push_back({0, rate});
  return points;
}

Error in_policy(const Setup &setup, size_t policy, Error error) {
  error.message = fmt::format("policy {}: {}", setup.policies[policy].name, error.message);
  return error;
}

void take(PolicyResult &result, const Outcome &outcome, const std::vector<Arrival> &arrivals, const Setup &setup) {
  if (result.runs.empty()) {
    result.jct_cdf = distribution(counted_jct_s(outcome, arrivals, setup.counted), kCdfPoints);
    result.ttft_cdf = distribution(counted_ttft_s(outcome, arrivals, setup.counted), kCdfPoints);
    result.moments = outcome.moments;
  }
  result.runs.push_back(measure(outcome, arrivals, setup.counted, setup));
  result.hashes.push_back(outcome.hash);
  result.plan_fallbacks += outcome.stats.plan_fallbacks;
  result.output_tokens += outcome.stats.output_tokens;
  result.most_held_back = std::max(result.most_held_back, outcome.most_held_back);
}

}  // namespace

Result<double> measure_saturation(const Setup &setup, const Plugins &plugins, const StepModel &steps,
                                  VirtualClock &clock) {
  // All at once, in effect: the first come so close together that the engine never waits for one.
  Setup backlog = setup;
  backlog.requests = std::min(setup.requests, kBacklogRequests);
  auto arrivals = make_workload(backlog, setup.seeds.front(), 1e6);
  if (!arrivals) return arrivals.error();
  auto outcome = simulate(backlog, plugins, steps, *arrivals, clock, {});
  if (!outcome) return outcome.error();
  // The first and the last tenth to finish are the filling and the emptying of the batch.
  std::vector<uint64_t> finished;
  for (const auto &served : outcome->served) finished.push_back(served.finish_ns);
  std::sort(finished.begin(), finished.end());
  const size_t n = finished.size(), from = n / 10, to = n - 1 - n / 10;
  if (to <= from || finished[to] == finished[from])
    return invalid_argument(fmt::format("{} requests are too few to measure saturation; set load.saturation_per_s", n));
  return static_cast<double>(to - from) * 1e9 / static_cast<double>(finished[to] - finished[from]);
}

Result<Comparison> compare(const Setup &setup, const std::vector<Plugins> &plugins, VirtualClock &clock,
                           const Watcher &watcher) {
  auto steps = StepModel::create(setup.device);
  if (!steps) return steps.error();
  Comparison out;
  out.step_model = steps->description();
  out.saturation_per_s = setup.load.rho.empty() ? 0 : setup.load.saturation_per_s;
  if (!setup.load.rho.empty() && out.saturation_per_s == 0) {
    auto measured = measure_saturation(setup, plugins.front(), *steps, clock);
    if (!measured) return in_policy(setup, 0, measured.error());
    out.saturation_per_s = *measured;
    out.saturation_measured = true;
  }
  const auto rates = rates_of(setup.load, out.saturation_per_s);
  Under under;
  under.n_runs = static_cast<uint32_t>(rates.size() * setup.seeds.size() * plugins.size());
  for (const auto &rate : rates) {
    LoadResult load{rate.rho, rate.rate_per_s, 0, {}};
    for (const auto &policy : setup.policies) load.policies.emplace_back().name = policy.name;
    for (const uint64_t seed : setup.seeds) {
      auto arrivals = make_workload(setup, seed, rate.rate_per_s);
      if (!arrivals) return arrivals.error();
      if (seed == setup.seeds.front()) load.output_cv = output_cv(*arrivals);
      for (size_t p = 0; p < plugins.size(); ++p) {
        under.policy = setup.policies[p].name;
        under.rho = rate.rho, under.rate_per_s = rate.rate_per_s, under.seed = seed;
        under.n_requests = static_cast<uint32_t>(arrivals->size());
        ++under.run;
        auto outcome = simulate(setup, plugins[p], *steps, *arrivals, clock, [&](uint32_t finished) {
          under.finished = finished;
          if (watcher) watcher(under);
        });
        if (!outcome) return in_policy(setup, p, outcome.error());
        take(load.policies[p], *outcome, *arrivals, setup);
      }
    }
    for (auto &policy : load.policies) policy.mean = average(policy.runs);
    out.loads.push_back(std::move(load));
  }
  return out;
}

}  // namespace sluice::sim

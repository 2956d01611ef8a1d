// The figures that setups must show, on a scale that a test can bear: one seed and fewer requests, so with wider limits.
// tests/bench/RESULTS.md has the full ones.
#include "tests/core/sim/laboratory.hpp"

namespace sluice::sim::testing {
namespace {

struct Pair {
  Measures fcfs, mlfq;
};

Pair both(const Setup &setup, double rate_per_s, const Options &options = {}) {
  Laboratory lab;
  const auto arrivals = workload(setup, 1, rate_per_s);
  return {lab.measured(setup, "fcfs", {}, arrivals), lab.measured(setup, "mlfq", options, arrivals)};
}

TEST(Gates, FeedbackPaysWhereSeatsAreShort) {
  auto setup = shipped("setup_s.toml");
  setup.requests = 6000;
  const auto [fcfs, mlfq] = both(setup, 0.95 * 1.86);
  EXPECT_GE(fcfs.normalized.mean / mlfq.normalized.mean, 1.3);
  EXPECT_GE(fcfs.ttft.mean / mlfq.ttft.mean, 20);
  EXPECT_LE(mlfq.jct.mean / fcfs.jct.mean, 1.08);
  EXPECT_LE(mlfq.longest_pause.max, 1.1 * 30);
}

TEST(Gates, FeedbackPaysMostWhereATenthReasons) {
  auto setup = shipped("setup_r.toml");
  setup.requests = 4000;
  const auto [fcfs, mlfq] = both(setup, 0.95 * 6.15);
  EXPECT_GE(fcfs.jct.mean / mlfq.jct.mean, 1.2);
  EXPECT_GE(fcfs.normalized.mean / mlfq.normalized.mean, 3);
}

TEST(Gates, NothingIsLostWhereLittleIsShort) {
  auto setup = shipped("setup_s.toml");
  setup.requests = 3000;
  const auto [fcfs, mlfq] = both(setup, 0.5 * 1.86);
  EXPECT_NEAR(mlfq.jct.mean / fcfs.jct.mean, 1, 0.01);
  EXPECT_NEAR(mlfq.normalized.mean / fcfs.normalized.mean, 1, 0.01);
  EXPECT_LE(mlfq.ttft.mean / fcfs.ttft.mean, 1.01);
}

TEST(Gates, UncontendedItIsFcfsToTheNanosecond) {
  auto setup = shipped("uncontended.toml");
  setup.requests = 2000;
  Laboratory lab;
  const auto arrivals = workload(setup, 1, 40);
  EXPECT_EQ(lab.run(setup, "mlfq", {}, arrivals).hash, lab.run(setup, "fcfs", {}, arrivals).hash);
}

TEST(Gates, ConstantLengthsTurnFeedbackOff) {
  auto setup = shipped("constant.toml");
  setup.requests = 3000;
  const auto [fcfs, mlfq] = both(setup, 1.7, {{"length_window", "200"}});
  EXPECT_LE(mlfq.jct.mean / fcfs.jct.mean, 1.05);
  const auto forced = both(setup, 1.7, {{"min_length_cv", "0"}}).mlfq;
  EXPECT_GT(forced.jct.mean / fcfs.jct.mean, 1.1) << "what the guard spares them";
}

TEST(Gates, TheGuardsKeepThroughputWhereBlocksAreShort) {
  auto setup = shipped("kv_bound.toml");
  setup.requests = 1500;
  Laboratory lab;
  const auto arrivals = workload(setup, 1, 0.95 * 2.79);
  const auto guarded = lab.measured(setup, "mlfq", {}, arrivals);
  const auto unguarded = lab.measured(setup, "mlfq", {{"variant", "unguarded"}, {"alpha_s", "0.3"}}, arrivals);
  EXPECT_GE(guarded.throughput_of_arrivals, 0.98);
  EXPECT_GT(unguarded.jct.mean, 2 * guarded.jct.mean);
}

}  // namespace
}  // namespace sluice::sim::testing

#include "tests/core/sim/laboratory.hpp"

namespace sluice::sim::testing {
namespace {

/// One seat and constant service: Pollaczek and Khinchine say what waiting must be.
TEST(Simulation, AgreesWithTheFormulaForASingleServer) {
  sim::Setup setup;
  setup.requests = 40'000;
  setup.lengths.input = {{1, 10, 0}};
  setup.lengths.output = {{1, 5, 0}};
  setup.device.kv_tokens = 1600;
  setup.device.step.floor_ps = 1'000'000'000;  // 1 ms, so a request takes 5
  setup.engine.max_seqs = 1;
  Laboratory lab;
  for (const double rho : {0.3, 0.6}) {
    const auto m = lab.measured(setup, "fcfs", {}, workload(setup, 2, rho / 0.005));
    const double wait_s = rho * 0.005 / (2 * (1 - rho));
    EXPECT_NEAR(m.ttft.mean, wait_s + 0.001, 0.05 * wait_s) << rho;
    EXPECT_NEAR(m.jct.mean, wait_s + 0.005, 0.05 * wait_s) << rho;
    EXPECT_NEAR(m.device_busy, rho, 0.01) << rho;
  }
}

/// Whoever changes these numbers changes what the engine core or a policy does, or how a simulation draws.
TEST(Simulation, FinishTimesAreGolden) {
  auto setup = shipped("setup_s.toml");
  setup.requests = 1500;
  Laboratory lab;
  const auto arrivals = workload(setup, 1, 0.95 * 1.86);
  EXPECT_EQ(lab.run(setup, "fcfs", {}, arrivals).hash, 10112889201588485306ULL);
  EXPECT_EQ(lab.run(setup, "mlfq", {}, arrivals).hash, 121995397481394141ULL);
  setup.engine.prefix_cache = true;
  EXPECT_EQ(lab.run(setup, "fcfs", {}, arrivals).hash, lab.run(setup, "fcfs", {}, arrivals).hash);
}

/// Blocks are short and everybody moves; the ledger is checked after every step.
TEST(Simulation, TheLedgerIsExactAfterEveryStep) {
  auto setup = shipped("kv_bound.toml");
  setup.requests = 150;
  setup.audit_every = 1;
  Laboratory lab;
  for (const bool prefix_cache : {false, true}) {
    setup.engine.prefix_cache = prefix_cache;
    const auto arrivals = workload(setup, 1, 6.0);
    const auto guarded = lab.run(setup, "mlfq", {}, arrivals);
    EXPECT_GT(guarded.swapped_in_blocks, 100U);
    EXPECT_EQ(guarded.stats.plan_fallbacks, 0U);
    const auto unguarded = lab.run(setup, "mlfq", {{"variant", "unguarded"}, {"alpha_s", "0.3"}}, arrivals);
    EXPECT_GT(unguarded.swapped_in_blocks, guarded.swapped_in_blocks);
    EXPECT_EQ(unguarded.stats.plan_fallbacks, 0U);
    EXPECT_EQ(lab.run(setup, "fcfs", {}, arrivals).stats.plan_fallbacks, 0U);
  }
}

TEST(Simulation, TransfersTakeTheirTimeAndOverlapAsSaid) {
  auto setup = shipped("setup_s.toml");
  setup.requests = 800;
  Laboratory lab;
  const auto arrivals = workload(setup, 1, 1.86);
  const auto end = [&](Overlap overlap) {
    setup.device.overlap = overlap;
    const auto outcome = lab.run(setup, "mlfq", {}, arrivals);
    EXPECT_GT(outcome.swapped_out_blocks, 100U);
    return outcome.end_ns;
  };
  const uint64_t full = end(Overlap::kFull), by_block = end(Overlap::kByBlock), none = end(Overlap::kNone);
  EXPECT_LE(full, by_block);
  EXPECT_LT(by_block, none);
}

TEST(Simulation, WhoeverFindsTheEngineFullWaitsOutsideInOrder) {
  auto setup = shipped("setup_s.toml");
  setup.requests = 300;
  setup.engine.max_live = 20;
  Laboratory lab;
  const auto outcome = lab.run(setup, "fcfs", {}, workload(setup, 1, 100));
  EXPECT_GT(outcome.most_held_back, 200U);
  for (size_t i = 1; i < outcome.served.size(); ++i) ASSERT_GE(outcome.served[i].first_ns, outcome.served[i - 1].first_ns);
}

TEST(Simulation, APolicyThatDoesNotMoveIsToldFromALongRun) {
  auto setup = shipped("setup_s.toml");
  setup.requests = 10;
  setup.lengths.input = {{1, 30'000, 0}};  // a trace could ask for it
  setup.lengths.max_input = setup.lengths.max_total = 0;
  std::vector<Arrival> arrivals{{0, 12'190, 1}};
  Laboratory lab;
  EXPECT_GT(lab.run(setup, "fcfs", {}, arrivals).served[0].finish_ns, 0U) << "the largest that fits";
}

}  // namespace
}  // namespace sluice::sim::testing

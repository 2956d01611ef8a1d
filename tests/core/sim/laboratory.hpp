#pragma once
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "core/sim/comparison.hpp"
#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::sim::testing {

using Options = engine::testing::TestConfig;

/// A setup file of configs/sim, without problems.
inline Setup shipped(const std::string &name) {
  std::vector<config::Problem> problems;
  auto setup = read_setup(std::string(SLUICE_SOURCE_DIR) + "/configs/sim/" + name, problems);
  for (const auto &problem : problems) ADD_FAILURE() << config::to_string(problem);
  return setup;
}

/// Runs first-party policies, as built, on a virtual clock.
class Laboratory {
 public:
  Laboratory() {
    decoder_ = engine::testing::load_plugin(host_, "decoder", "plain")->decoder;
    sluice_model_info info{};
    info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
    sluice_decoder_setup setup{};
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_setup, target);
    setup.max_seqs = 256;
    setup.target = &info;
    sluice_status status{};
    status.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
    EXPECT_EQ(decoder_->create(host_.api(), nullptr, &setup, &decoder_instance_, &status), SLUICE_OK) << status.msg;
  }
  ~Laboratory() { decoder_->destroy(decoder_instance_); }

  Outcome run(const Setup &setup, const std::string &policy, const Options &options,
              const std::vector<Arrival> &arrivals) {
    const Plugins plugins{host_.api(), policy, engine::testing::load_plugin(host_, "scheduler", policy)->scheduler,
                          engine::testing::handle(options), decoder_, decoder_instance_};
    auto steps = StepModel::create(setup.device);
    EXPECT_TRUE(steps.has_value()) << steps.error().message;
    auto outcome = simulate(setup, plugins, *steps, arrivals, clock_, {});
    EXPECT_TRUE(outcome.has_value()) << outcome.error().message;
    return outcome ? std::move(*outcome) : Outcome{};
  }
  Measures measured(const Setup &setup, const std::string &policy, const Options &options,
                    const std::vector<Arrival> &arrivals) {
    return measure(run(setup, policy, options, arrivals), arrivals, setup.counted, setup);
  }

 private:
  engine::testing::TestHost host_;
  VirtualClock clock_;
  const sluice_decoder_vtbl *decoder_ = nullptr;
  sluice_decoder *decoder_instance_ = nullptr;
};

inline std::vector<Arrival> workload(const Setup &setup, uint64_t seed, double rate_per_s) {
  auto arrivals = make_workload(setup, seed, rate_per_s);
  EXPECT_TRUE(arrivals.has_value()) << arrivals.error().message;
  return arrivals ? std::move(*arrivals) : std::vector<Arrival>{};
}

}  // namespace sluice::sim::testing

#include <gtest/gtest.h>

#include <random>

#include "core/engine/step_cost.hpp"
#include "core/engine/swap_cost.hpp"

namespace sluice::engine {
namespace {

/// A card: max(20 ms, 0.13 ms a token) and 0.63 us per cached token.
uint64_t card_ns(uint32_t tokens, uint64_t context) { return std::max(20'000'000U, 130'000 * tokens) + 630 * context; }

TEST(StepCost, LearnsTheThreePricesOfASteadyCard) {
  StepCost cost;
  std::mt19937 random(5);
  for (int i = 0; i < 400; ++i) {
    const uint32_t decode = 1 + random() % 16, prefill = i % 5 == 0 ? 200 + random() % 800 : 0;
    const uint64_t context = 500 + random() % 10'000;
    cost.observe(prefill, decode, context, card_ns(prefill + decode, context));
  }
  const auto near = [](uint64_t seen, uint64_t expected) {
    EXPECT_NEAR(static_cast<double>(seen), static_cast<double>(expected), 0.03 * static_cast<double>(expected));
  };
  near(cost.predict_ns(0, 16, 8'000), card_ns(16, 8'000));
  near(cost.predict_ns(0, 1, 0), card_ns(1, 0));
  near(cost.predict_ns(1'000, 0, 2'000), card_ns(1'000, 2'000));
  EXPECT_NEAR(static_cast<double>(cost.prefill_ns(0, 1'000, 500)), 130e6 + 630 * 1'000, 7e6);
  EXPECT_EQ(cost.prefill_ns(64, 64, 500), 0U) << "nothing to compute again costs nothing";
}

TEST(StepCost, ContextsThatDoNotDifferHaveNoPrice) {
  StepCost cost;
  for (int i = 0; i < 100; ++i) cost.observe(0, 4, 1'000, 5'000'000 + static_cast<uint64_t>(i % 3) * 1'000);
  EXPECT_NEAR(static_cast<double>(cost.predict_ns(0, 4, 100'000)), 5e6, 1e4);
}

TEST(SwapCost, KeepsAnEstimateThatNothingContradicts) {
  SwapCost cost({1e9, 2e9});
  EXPECT_EQ(cost.predict_ns(false, 1'000'000), 1'000'000U);
  EXPECT_EQ(cost.predict_ns(true, 1'000'000), 500'000U);
  cost.observe(false, 1'000'000, 0, 30'000'000);  // seen after a long step: says nothing
  EXPECT_EQ(cost.predict_ns(false, 1'000'000), 1'000'000U);
  for (int i = 0; i < 50; ++i) cost.observe(false, 1'000'000, 3'000'000, 4'000'000);
  EXPECT_NEAR(static_cast<double>(cost.predict_ns(false, 1'000'000)), 3e6, 1e4) << "still moving after 3 ms";
  for (int i = 0; i < 50; ++i) cost.observe(true, 1'000'000, 0, 100'000);
  EXPECT_NEAR(static_cast<double>(cost.predict_ns(true, 1'000'000)), 1e5, 1e3) << "done within 0.1 ms";
  EXPECT_GT(SwapCost({}).bytes_per_s(true), 1e9) << "not known yet is not impossible";
}

}  // namespace
}  // namespace sluice::engine

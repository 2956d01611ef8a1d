// How much is drafted, with made-up prices and a decoder that is right as often as the test says.
#include "core/engine/draft_control.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace sluice::engine {
namespace {

struct World {
  double acceptance = 0.8;
  double token_ns = 0;  ///< of each token in a step beside the first
  uint32_t sequences = 1;
  double noise = 0.02;
};

struct Figures {
  double tokens_per_ns = 0, plain_tokens_per_ns = 0;
  double share_of_steps_with_drafts = 0;
  uint32_t last_drafts = 0;
};

class Bench {
 public:
  explicit Bench(DraftControl &control) : control_(control) {}
  /// Figures of the second half of the steps.
  Figures run(const World &world, uint32_t steps) {
    std::uniform_real_distribution<double> unit;
    double ns = 0, tokens = 0, drafted_steps = 0;
    Figures out;
    const std::vector<uint32_t> wishes(world.sequences, 4);
    for (uint32_t step = 0; step < steps; ++step) {
      const uint32_t drafts = std::min(control_.decide(wishes), 4U);
      double came = world.sequences;
      for (uint32_t s = 0; s < world.sequences && drafts > 0; ++s) {
        std::vector<uint8_t> right(drafts, 0);
        for (uint32_t k = 0; k < drafts && unit(random_) < world.acceptance; ++k) right[k] = 1, came += 1;
        control_.observe_ranks(right);
      }
      const double price = price_of(world, world.sequences * (1 + drafts)) * (1 + world.noise * (unit(random_) - 0.5));
      control_.observe_step(world.sequences, world.sequences * drafts, static_cast<uint64_t>(price), 0);
      if (step < steps / 2) continue;
      ns += price;
      tokens += came;
      drafted_steps += drafts > 0 ? 1 : 0;
      if (drafts > 0) out.last_drafts = drafts;
    }
    out.tokens_per_ns = tokens / ns;
    out.plain_tokens_per_ns = world.sequences / price_of(world, world.sequences);
    out.share_of_steps_with_drafts = drafted_steps / (steps - steps / 2);
    return out;
  }

 private:
  static double price_of(const World &world, uint32_t tokens) { return 1e6 + world.token_ns * (tokens - 1); }
  DraftControl &control_;
  std::mt19937 random_{3};
};

TEST(DraftControl, DraftsWhereTokensOfAStepAreCheap) {
  DraftControl control(4, false);
  const auto figures = Bench(control).run({0.8, 20'000, 1}, 1000);
  EXPECT_GT(figures.share_of_steps_with_drafts, 0.95);
  EXPECT_GT(figures.tokens_per_ns, 2.9 * figures.plain_tokens_per_ns);
  EXPECT_EQ(figures.last_drafts, 4U);
  EXPECT_FALSE(control.off());
  EXPECT_NE(control.why().find("on for batches of 1 to 1: at 4 drafts"), std::string::npos) << control.why();
}

TEST(DraftControl, DraftsLessWhereTheyCostMore) {
  DraftControl control(4, false);
  const auto figures = Bench(control).run({0.6, 300'000, 1}, 2000);  // 1 draft: 1.6 tokens for 1.3; 4: 2.3 for 2.2
  EXPECT_EQ(figures.last_drafts, 1U);
  EXPECT_GT(figures.tokens_per_ns, 1.15 * figures.plain_tokens_per_ns);
}

TEST(DraftControl, StopsWhereItDoesNotPayAndLosesNextToNothing) {
  struct Case {
    World world;
    bool for_acceptance;
  };
  for (const auto &c : {Case{{0.8, 1'000'000, 16}, false},    // a step's time goes with its tokens
                        Case{{0.05, 100'000, 1}, true}}) {  // nothing is ever right
    DraftControl control(4, false);
    const auto figures = Bench(control).run(c.world, 4000);
    EXPECT_TRUE(control.off());
    EXPECT_LT(figures.share_of_steps_with_drafts, 0.03);
    EXPECT_GT(figures.tokens_per_ns, 0.96 * figures.plain_tokens_per_ns);
    EXPECT_GT(c.for_acceptance ? control.switched_off_for_acceptance() : control.switched_off_for_cost(), 0U);
    EXPECT_LT(control.switched_off_for_acceptance() + control.switched_off_for_cost(), 4U) << "it does not flutter";
    EXPECT_NE(control.why().find("off"), std::string::npos);
  }
}

TEST(DraftControl, ComesBackWhenDraftsAreRightAgain) {
  DraftControl control(4, false);
  Bench bench(control);
  bench.run({0.02, 100'000, 1}, 2000);
  ASSERT_TRUE(control.off());
  const auto figures = bench.run({0.9, 100'000, 1}, 8000);
  EXPECT_FALSE(control.off());
  EXPECT_GT(figures.tokens_per_ns, 1.8 * figures.plain_tokens_per_ns);
}

TEST(DraftControl, JudgesBatchSizesApart) {
  DraftControl control(4, false);
  Bench bench(control);
  bench.run({0.8, 400'000, 16}, 2000);
  EXPECT_TRUE(control.off());
  const auto alone = bench.run({0.8, 20'000, 1}, 600);
  EXPECT_GT(alone.share_of_steps_with_drafts, 0.9);
}

TEST(DraftControl, PinnedDraftsWhateverItCosts) {
  DraftControl control(4, true);
  const auto figures = Bench(control).run({0.01, 1'000'000, 16}, 300);
  EXPECT_EQ(figures.share_of_steps_with_drafts, 1);
  EXPECT_EQ(figures.last_drafts, 4U);
  EXPECT_FALSE(control.off());
}

TEST(DraftControl, OneStepThatTookVeryLongChangesLittle) {
  DraftControl control(4, false);
  Bench bench(control);
  bench.run({0.8, 20'000, 1}, 300);
  const double drafted = control.step_ns(5), plain = control.step_ns(1);
  control.observe_step(1, 4, 1'000'000'000, 0);
  control.observe_step(1, 0, 1'000'000'000, 0);
  EXPECT_LT(control.step_ns(5), 1.3 * drafted);
  EXPECT_LT(control.step_ns(1), 1.3 * plain);
  for (int i = 0; i < 100; ++i) control.observe_step(1, 0, 2'000'000, 0);
  EXPECT_NEAR(control.step_ns(1), 2e6, 1e4) << "what lasts is believed";
}

TEST(DraftControl, DoesNotBelieveThatTheFirstStepIsLikeTheOthers) {
  DraftControl control(4, false);
  for (const uint64_t ns : {900'000'000, 1'000'000, 1'000'000, 1'000'000}) control.observe_step(1, 0, ns, 0);
  EXPECT_NEAR(control.step_ns(1), 1e6, 1);
}

TEST(DraftControl, SaysThatNothingWasMeasured) {
  DraftControl control(4, false);
  const std::vector<uint32_t> wishes = {4};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(control.decide(wishes), 0U);
    EXPECT_EQ(control.reason(), request::DraftsOff::kNotMeasured);
    EXPECT_NE(control.why().find("not measured yet"), std::string::npos);
    control.observe_step(1, 0, 1'000'000, 0);
  }
  EXPECT_GT(control.decide(wishes), 0U);
  EXPECT_EQ(control.reason(), request::DraftsOff::kNone);
}

TEST(DraftControl, MeasuresBesidePrompts) {
  DraftControl control(4, false);
  const std::vector<uint32_t> wishes = {4};
  uint32_t drafted = 0;
  for (int i = 0; i < 100; ++i) {  // no step ever only decodes
    const uint32_t drafts = std::min(control.decide(wishes, 200), 4U);
    drafted += drafts > 0 ? 1 : 0;
    if (drafts > 0) control.observe_ranks(std::vector<uint8_t>(drafts, 1));
    control.observe_step(1, drafts, 5'000'000 + 25'000 * drafts, 0, 200);
  }
  EXPECT_GT(drafted, 85U);
}

TEST(DraftControl, ASizeSwitchesWhenItDoesAndNotWhenTheSizeChanges) {
  DraftControl control(4, false);
  Bench bench(control);
  uint32_t switched = 0, changes = 0;
  bool was_off = false;
  for (int i = 0; i < 4000; ++i) {
    bench.run(i % 2 == 0 ? World{0.8, 400'000, 16} : World{0.8, 20'000, 1}, 1);
    switched += control.switched() ? 1 : 0;
    changes += control.off() != was_off ? 1 : 0;
    was_off = control.off();
  }
  EXPECT_GT(changes, 100U);
  EXPECT_GE(switched, 1U);
  EXPECT_LT(switched, 6U);
}

TEST(DraftControl, JudgesOneSequenceByWhatItBringsNotByItsShareOfNodes) {
  DraftControl control(63, false);
  const std::vector<uint32_t> wishes = {63};
  control.decide(wishes);
  EXPECT_TRUE(control.pays(0, 63)) << "nothing is known";
  for (int i = 0; i < 8; ++i) control.observe_step(1, 0, 1'000'000, 0), control.observe_step(1, 63, 1'500'000, 0);
  EXPECT_TRUE(control.pays(2, 63)) << "2 tokens for half a step";
  EXPECT_FALSE(control.pays(0.1, 63));
}

}  // namespace
}  // namespace sluice::engine

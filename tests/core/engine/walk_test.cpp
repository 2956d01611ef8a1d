// The verifier against arithmetic: the distribution of what it emits is computed, not sampled, and compared with the
// target's; and the walks on written-down cases.
#include "core/engine/walk.hpp"

#include <gtest/gtest.h>
#include <sluice/sdk/draw.hpp>

#include <cmath>
#include <functional>
#include <random>

#include "core/engine/row_draws.hpp"

namespace sluice::engine {
namespace {

using Law = std::vector<double>;

/// A law over n tokens, with zeros, peaks and ties now and then.
Law random_law(std::mt19937_64 &random, size_t n) {
  Law law(n);
  std::uniform_real_distribution<double> unit;
  const auto shape = random() % 4;
  for (auto &p : law) p = shape == 0 ? 1 : shape == 1 && random() % 2 == 0 ? 0 : std::pow(unit(random), 1 + 3.0 * unit(random));
  if (shape == 3) std::fill(law.begin(), law.end(), 0.0), law[random() % n] = 1;
  double sum = 0;
  for (const double p : law) sum += p;
  if (sum == 0) law[0] = sum = 1;
  for (auto &p : law) p /= sum;
  return law;
}

std::vector<float> as_float(const Law &law) { return {law.begin(), law.end()}; }

/// The rule under test and its planted bugs: what a try may get wrong.
enum class Bug {
  kNone,
  kResampleFromTarget,   // after a rejection the target is drawn from instead of the residual
  kAcceptanceWithoutQ,   // p is compared with the unit itself, but the residual is p - q
  kLenient,              // 5 % more is accepted
  kReportsAnotherQ,      // the drafts come from a top-p of the q that is reported
  kNotRenormalised,      // without replacement: q keeps the mass of what was drawn
  kTriesTopKAsDraws,     // the best tokens of q are tried as if they had been drawn
};

/// The law of the token emitted at a node with `tries` siblings drawn from q, by enumeration of every ordered draw.
Law law_of(const Law &p, const Law &q, uint32_t tries, Siblings siblings, Bug bug = Bug::kNone) {
  const auto n = static_cast<int32_t>(p.size());
  const auto reported = as_float(q);
  Law drawn_from(reported.begin(), reported.end());  // what is reported is what is drawn from, up to its sum
  double all = 0;
  for (const double mass : drawn_from) all += mass;
  for (auto &mass : drawn_from) mass /= all;
  if (bug == Bug::kReportsAnotherQ) {
    for (auto &mass : drawn_from) mass = mass >= 0.5 / n ? mass : 0;
    double sum = 0;
    for (const double mass : drawn_from) sum += mass;
    for (auto &mass : drawn_from) mass /= sum;
  }
  Law out(p.size(), 0);
  // weight: probability of the draws so far and of their rejection
  const std::function<void(std::vector<int32_t> &, double)> go = [&](std::vector<int32_t> &drawn, double weight) {
    if (weight < 1e-14) return;
    // Replays the tries, since a Residual remembers them.
    Law left_memory = p;
    Residual at(left_memory, bug == Bug::kNotRenormalised ? Siblings::kIndependent : siblings);
    const DraftDistribution distribution{reported, {}, {}};
    for (const int32_t x : drawn) at.reject(x, distribution);
    if (drawn.size() == tries) {
      const auto left = bug == Bug::kResampleFromTarget && tries > 0 ? std::span<const double>(p) : at.left();
      for (int32_t x = 0; x < n; ++x) out[static_cast<size_t>(x)] += weight * left[static_cast<size_t>(x)];
      return;
    }
    double gone = 0;
    if (siblings == Siblings::kWithoutReplacement)
      for (const int32_t x : drawn) gone += drawn_from[static_cast<size_t>(x)];
    std::vector<int32_t> order;
    if (bug == Bug::kTriesTopKAsDraws) {
      for (int32_t x = 0; x < n; ++x) order.push_back(x);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return q[static_cast<size_t>(a)] > q[static_cast<size_t>(b)]; });
    }
    for (int32_t x = 0; x < n; ++x) {
      const bool again = std::find(drawn.begin(), drawn.end(), x) != drawn.end();
      if (siblings == Siblings::kWithoutReplacement && again) continue;
      double chance = drawn_from[static_cast<size_t>(x)] / std::max(1e-300, 1 - gone);
      if (bug == Bug::kTriesTopKAsDraws) chance = order[drawn.size()] == x ? 1 : 0;
      if (chance <= 0) continue;
      double accepted = at.acceptance(x, distribution);
      if (bug == Bug::kAcceptanceWithoutQ) accepted = left_memory[static_cast<size_t>(x)];
      if (bug == Bug::kLenient) accepted = std::min(1.0, accepted / 0.95);
      out[static_cast<size_t>(x)] += weight * chance * accepted;
      drawn.push_back(x);
      go(drawn, weight * chance * (1 - accepted));
      drawn.pop_back();
    }
    if (gone >= 1 - 1e-12) {  // nothing is left to be drawn: the node has fewer children
      for (int32_t x = 0; x < n; ++x) out[static_cast<size_t>(x)] += weight * at.left()[static_cast<size_t>(x)];
    }
  };
  std::vector<int32_t> drawn;
  go(drawn, 1);
  return out;
}

double distance(const Law &a, const Law &b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

TEST(Residual, EmitsTheTargetsDistributionExactly) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 400; ++round) {
    const size_t n = 2 + random() % 5;
    const Law p = random_law(random, n);
    const Law q = random() % 8 == 0 ? p : random_law(random, n);
    for (const auto siblings : {Siblings::kWithoutReplacement, Siblings::kIndependent})
      for (uint32_t tries = 0; tries <= 3; ++tries)
        ASSERT_LT(distance(law_of(p, q, tries, siblings), p), 1e-6)
            << "round " << round << ", " << tries << " tries, siblings " << static_cast<int>(siblings);
  }
}

TEST(Residual, OneTryOverALargeVocabulary) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 100; ++round) {
    const Law p = random_law(random, 64);
    const Law q = random_law(random, 64);
    ASSERT_LT(distance(law_of(p, q, 1, Siblings::kWithoutReplacement), p), 1e-6);
  }
}

TEST(Residual, EveryPlantedBugShowsInTheLaw) {
  std::mt19937_64 random(3);
  for (const auto bug : {Bug::kResampleFromTarget, Bug::kAcceptanceWithoutQ, Bug::kLenient, Bug::kReportsAnotherQ,
                         Bug::kNotRenormalised, Bug::kTriesTopKAsDraws}) {
    double worst = 0;
    for (int round = 0; round < 50; ++round) {
      const Law p = random_law(random, 5);
      const Law q = random_law(random, 5);
      worst = std::max(worst, distance(law_of(p, q, 2, Siblings::kWithoutReplacement, bug), p));
    }
    EXPECT_GT(worst, 1e-3) << "bug " << static_cast<int>(bug);
  }
}

TEST(Residual, RefusesWhereEitherProbabilityIsZero) {
  Law p = {0, 0.5, 0.5};
  const std::vector<float> q = {0.5F, 0.5F, 0};
  Residual at(p, Siblings::kIndependent);
  EXPECT_EQ(at.acceptance(0, {q, {}, {}}), 0);  // a unit of 0 must not let it pass: the test is strict
  EXPECT_EQ(at.acceptance(1, {q, {}, {}}), 1);
  EXPECT_EQ(at.acceptance(2, {q, {}, {}}), 0) << "the draft cannot have been drawn";
  at.reject(0, {q, {}, {}});
  EXPECT_NEAR(at.left()[2], 1, 1e-12);
}

TEST(Residual, KeepsTheTargetWhereNothingIsLeftOfIt) {
  Law p = {0.25, 0.75};
  const std::vector<float> q = {0.25F, 0.75F};
  Residual at(p, Siblings::kIndependent);
  at.reject(0, {q, {}, {}});
  EXPECT_NEAR(at.left()[1], 0.75, 1e-6);
}

TEST(RowDraws, AreDistinctAndBeginWithTheDraw) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> row(300);
  for (uint32_t position = 0; position < 50; ++position) {
    for (auto &logit : row) logit = 3 * normal(random);
    row[position] = sdk::kRemoved;
    int32_t one = -1;
    std::vector<int32_t> four(4);
    draw_distinct(row, 1, 9, position, SLUICE_RNG_DRAW, &one);
    draw_distinct(row, 4, 9, position, SLUICE_RNG_DRAW, four.data());
    EXPECT_EQ(one, four[0]);
    EXPECT_EQ(one, sdk::draw_row(row.data(), 300, 9, position));
    for (size_t i = 0; i < 4; ++i)
      for (size_t k = 0; k < i; ++k) EXPECT_NE(four[i], four[k]);
    // The noise by hand.
    std::vector<sdk::Ranked> all;
    for (int32_t v = 0; v < 300; ++v)
      if (row[static_cast<size_t>(v)] > sdk::kRemoved)
        all.push_back({row[static_cast<size_t>(v)] + sdk::gumbel_of(9, position, SLUICE_RNG_DRAW, v), v});
    std::sort(all.begin(), all.end(), sdk::better);
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(four[i], all[i].id);
  }
  std::vector<float> peak(8, sdk::kRemoved);
  peak[3] = 0;
  std::vector<int32_t> two(2);
  draw_distinct(peak, 2, 1, 1, SLUICE_RNG_DRAW, two.data());
  EXPECT_EQ(two, (std::vector<int32_t>{3, -1}));
}

// ---- walks on written-down cases ----

DraftNode node(int32_t token, int32_t parent, uint32_t depth, int32_t q = -1) { return {token, parent, depth, q, 0, 0}; }

Walk match(const std::vector<DraftNode> &drafts, const std::vector<int32_t> &chosen, WalkEnds ends = {{}, 100}) {
  Walk out;
  walk_match(drafts, chosen, ends, out);
  return out;
}

TEST(WalkMatch, FollowsTheChildThatEqualsTheToken) {
  // root: 5 -> (7 -> 9), 6 -> 8
  const std::vector<DraftNode> tree = {node(5, -1, 1), node(6, -1, 1), node(7, 0, 2), node(8, 1, 2), node(9, 2, 3)};
  auto walk = match(tree, {6, 0, 8, 0, 3, 0});
  EXPECT_EQ(walk.accepted, (std::vector<uint32_t>{1, 3}));
  EXPECT_EQ(walk.tokens, (std::vector<int32_t>{6, 8, 3}));
  walk = match(tree, {5, 7, 0, 9, 0, 1});
  EXPECT_EQ(walk.accepted, (std::vector<uint32_t>{0, 2, 4}));
  EXPECT_EQ(walk.tokens, (std::vector<int32_t>{5, 7, 9, 1}));
  walk = match(tree, {4, 0, 0, 0, 0, 0});
  EXPECT_TRUE(walk.accepted.empty());
  EXPECT_EQ(walk.tokens, (std::vector<int32_t>{4}));
  EXPECT_EQ(match({}, {2}).tokens, (std::vector<int32_t>{2}));
}

TEST(WalkMatch, EndsAtAStopTokenAtTheLimitAndWhereNoTokenIsLeft) {
  const std::vector<DraftNode> chain = {node(1, -1, 1), node(2, 0, 2), node(3, 1, 3)};
  const std::vector<int32_t> stop = {2};
  auto walk = match(chain, {1, 2, 3, 4}, {stop, 100});
  EXPECT_EQ(walk.tokens, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(walk.accepted, (std::vector<uint32_t>{0})) << "nobody needs the KV of the last token";
  walk = match(chain, {1, 2, 3, 4}, {{}, 3});
  EXPECT_EQ(walk.tokens, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(walk.accepted.size(), 2U);
  walk = match(chain, {1, -1, 3, 4});
  EXPECT_TRUE(walk.no_token);
  EXPECT_EQ(walk.tokens, (std::vector<int32_t>{1})) << "what was said before stays";
  walk = match(chain, {-1, 2, 3, 4});
  EXPECT_TRUE(walk.no_token);
  EXPECT_TRUE(walk.tokens.empty());
}

class WrittenRows final : public WalkRows {
 public:
  std::vector<Law> p;
  std::vector<int32_t> draws;
  std::vector<std::vector<float>> q;
  void probabilities(int32_t node, std::vector<double> &out) const override { out = p[static_cast<size_t>(node + 1)]; }
  int32_t drawn(int32_t node) const override { return draws[static_cast<size_t>(node + 1)]; }
  DraftDistribution distribution(int32_t row) const override { return {q[static_cast<size_t>(row)], {}, {}}; }
  uint64_t seed() const override { return 77; }
  uint32_t position(int32_t node) const override { return static_cast<uint32_t>(10 + node); }
};

TEST(WalkRejection, OfTheVectorsThatFlashInferDocuments) {
  WrittenRows rows;
  rows.q = {{.1F, .2F, .3F, .4F}, {.2F, .3F, .4F, .1F}};
  rows.p = {{0, .1, .6, .3}, {1, 0, 0, 0}, {.7, .1, .1, .1}};
  rows.draws = {1, 0, 0};
  const std::vector<DraftNode> drafts = {node(2, -1, 1, 0), node(1, 0, 2, 1)};
  Walk walk;
  walk_rejection(drafts, rows, Siblings::kWithoutReplacement, {{}, 100}, walk);
  EXPECT_EQ(walk.tokens, (std::vector<int32_t>{2, 0})) << "2 is sure to be accepted, then only 0 is possible";
  EXPECT_EQ(walk.accepted, (std::vector<uint32_t>{0}));
}

TEST(WalkTypical, KeepsTheLongestPathOfTypicalTokens) {
  WrittenRows rows;
  rows.p = {{.5, .3, .2, 0}, {.97, .01, .01, .01}, {.25, .25, .25, .25}, {.25, .25, .25, .25}};
  rows.draws = {0, 0, 3, 2};
  // 1 is typical and so is 2 behind it; 0 is likelier but ends.
  const std::vector<DraftNode> drafts = {node(0, -1, 1), node(1, -1, 1), node(2, 1, 2)};
  Walk walk;
  walk_typical(drafts, rows, 0.09, 0.3, {{}, 100}, walk);
  EXPECT_EQ(walk.tokens, (std::vector<int32_t>{1, 2, 2}));
  EXPECT_EQ(walk.accepted, (std::vector<uint32_t>{1, 2}));
  const std::vector<int32_t> stop = {1};
  walk_typical(drafts, rows, 0.09, 0.3, {stop, 100}, walk);
  EXPECT_EQ(walk.tokens, (std::vector<int32_t>{0, 0})) << "of two equal depths the likelier";
}

}  // namespace
}  // namespace sluice::engine

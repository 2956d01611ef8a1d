#include <gtest/gtest.h>
#include <sluice/sdk/draw.hpp>

#include <cmath>
#include <random>
#include <vector>

namespace {
using namespace sluice::sdk;

constexpr float kInf = std::numeric_limits<float>::infinity();

// The rule as rng.h states it, without any shortcut.
int32_t draw_by_definition(const std::vector<float> &row, uint64_t seed, uint32_t position) {
  int32_t best = -1;
  float most = -kInf;
  for (int32_t v = 0; v < static_cast<int32_t>(row.size()); ++v) {
    if (row[v] == -kInf) continue;
    uint32_t r[4];
    sluice_rng(seed, position, SLUICE_RNG_DRAW, static_cast<uint32_t>(v) / 4, r);
    const float perturbed = row[v] + -std::log(-std::log(sluice_rng_unit(r[v % 4])));
    if (perturbed > most) most = perturbed, best = v;
  }
  return best;
}

std::vector<float> random_row(uint32_t n, float spread, std::mt19937 &random) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(n);
  for (float &l : row) l = normal(random);
  return row;
}

TEST(Draw, NoiseIsNeverAboveTheBoundThatPrunes) {
  EXPECT_LT(gumbel(0xffffffffu), kGumbelMax);
  EXPECT_GT(gumbel(0), -3.0f);
}

TEST(Draw, IsExactlyTheDefinitionForEveryShapeOfRow) {
  std::mt19937 random(1);
  for (const uint32_t n : {1u, 2u, 3u, 5u, 15u, 16u, 17u, 31u, 64u, 1000u, 4099u})
    for (const float spread : {0.0f, 0.5f, 3.0f, 20.0f})
      for (uint64_t seed = 0; seed < 20; ++seed) {
        auto row = random_row(n, spread, random);
        if (seed % 2 == 1)
          for (uint32_t i = 0; i < n; i += 3) row[i] = -kInf;
        ASSERT_EQ(draw_row(row.data(), n, seed, 17), draw_by_definition(row, seed, 17)) << n << " " << spread;
      }
}

TEST(Draw, AListInAnyOrderGivesTheTokenOfTheRow) {
  std::mt19937 random(2);
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto row = random_row(300, 2, random);
    std::vector<Ranked> list;
    for (int32_t v = 0; v < 300; ++v) list.push_back({row[v], v});
    std::shuffle(list.begin(), list.end(), random);
    list.push_back({100.0f, -1});
    EXPECT_EQ(draw_list(list.data(), list.size(), seed, 3), draw_row(row.data(), 300, seed, 3));
  }
}

TEST(Draw, NeverTakesWhatWasRemovedAndSaysWhenNothingIsLeft) {
  std::vector<float> row(64, -kInf);
  EXPECT_EQ(draw_row(row.data(), 64, 1, 1), -1);
  row[41] = -1000.0f;
  EXPECT_EQ(draw_row(row.data(), 64, 1, 1), 41);
  const Ranked removed{-kInf, 3};
  EXPECT_EQ(draw_list(&removed, 1, 1, 1), -1);
}

TEST(Draw, TiesGoToTheLowestId) {
  DrawBest d;
  d.offer(1.0f, 9), d.offer(1.0f, 4), d.offer(1.0f, 7);
  EXPECT_EQ(d.best.id, 4);
  const std::vector<float> row(100, 2.0f);
  EXPECT_EQ(row_argmax(row.data(), 100), 0);
}

// Critical values are those of the chi-square distribution at p = 1e-6 for the degrees of freedom at hand.
double chi_square(const std::vector<float> &row, uint32_t n_draws) {
  std::vector<double> p(row.size());
  double total = 0;
  for (size_t v = 0; v < row.size(); ++v) total += p[v] = std::exp(static_cast<double>(row[v]));
  std::vector<uint32_t> seen(row.size());
  for (uint32_t i = 0; i < n_draws; ++i)
    ++seen[static_cast<size_t>(draw_row(row.data(), static_cast<uint32_t>(row.size()), 42, i))];
  double sum = 0;
  for (size_t v = 0; v < row.size(); ++v) {
    const double expected = p[v] / total * n_draws;
    sum += (seen[v] - expected) * (seen[v] - expected) / expected;
  }
  return sum;
}

TEST(Draw, FollowsTheSoftmax) {
  EXPECT_LT(chi_square({0, 0, 0, 0, 0, 0, 0, 0}, 200000), 40.5);                  // 7 degrees of freedom
  EXPECT_LT(chi_square({2, 1, 0, -1, -2, 0.5f, 1.5f, -3, 0.25f, 3}, 200000), 44.8);  // 9
}

TEST(Draw, NeighbouringSeedsAreIndependent) {
  const std::vector<float> row{0, 0, 0, 0};
  std::vector<double> seen(16);
  for (uint64_t seed = 0; seed < 100000; ++seed) {
    const int32_t a = draw_row(row.data(), 4, seed, 5), b = draw_row(row.data(), 4, seed + 1, 5);
    ++seen[static_cast<size_t>(a * 4 + b)];
  }
  double sum = 0;
  for (const double s : seen) sum += (s - 6250) * (s - 6250) / 6250;
  EXPECT_LT(sum, 56.5);  // 15 degrees of freedom, p = 1e-6
}

}  // namespace

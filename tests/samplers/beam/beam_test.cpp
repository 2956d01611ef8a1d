#include "tests/samplers/beam/beam_driver.hpp"

namespace sluice::test {
namespace {

const char *const kEarly[] = {"true", "false", "never"};
constexpr double kPenalties[] = {0, 0.5, 1, 2};

/// A language without sense: the next token depends on the last `memory` ones, and the last id ends an answer.
Model toy(uint32_t vocab, uint64_t seed, size_t memory = 3, double end_bias = 0) {
  return [=](const std::vector<int32_t> &tokens) {
    uint64_t key = seed * 0x9e3779b97f4a7c15ull + tokens.size();
    for (size_t i = tokens.size() - std::min(tokens.size(), memory); i < tokens.size(); ++i)
      key = (key ^ static_cast<uint64_t>(tokens[i] + 1)) * 0xff51afd7ed558ccdull, key ^= key >> 29;
    std::vector<double> logits;
    for (uint32_t v = 0; v < vocab; ++v) {
      key = key * 6364136223846793005ull + 1442695040888963407ull;
      logits.push_back(static_cast<double>(key >> 40) / (1 << 23) * 3);
    }
    logits.back() += end_bias;
    std::vector<double> row;  // as a backend gives it
    for (const double l : log_softmax(logits)) row.push_back(static_cast<float>(l));
    return row;
  };
}

void expect_equal(const std::vector<Found> &found, const std::vector<Found> &expected, const std::string &what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (size_t k = 0; k < found.size(); ++k) {
    EXPECT_EQ(found[k].tokens, expected[k].tokens) << what << ", answer " << k;
    EXPECT_NEAR(found[k].score, expected[k].score, 1e-5 * (1 + std::abs(expected[k].score))) << what << ", answer " << k;
  }
}

std::string name_of(const SearchCase &c, uint64_t seed) {
  return "beams " + std::to_string(c.beams) + ", length_penalty " + std::to_string(c.length_penalty) +
         ", early_stopping " + c.early_stopping + ", max_new " + std::to_string(c.max_new) + ", seed " + std::to_string(seed);
}

TEST(Beam, FullWidthFindsWhatTryingAllFinds) {
  BeamDriver driver(4, {{"max_beams", "64"}});
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const Model model = toy(4, seed);
    for (const double penalty : kPenalties)
      for (const char *early : kEarly) {
        SearchCase c{64, 3, 4, penalty, early, {3}};
        auto expected = brute_force(model, c);
        expected.resize(3);
        expect_equal(driver.search(model, c), expected, name_of(c, seed));
      }
  }
  EXPECT_EQ(driver.widest, 27U) << "three tokens go on, three times";
}

TEST(Beam, IsTheReferenceAtTwoToEightBeams) {
  BeamDriver driver(24, {});
  size_t ended_early = 0;
  for (uint32_t beams = 2; beams <= 8; ++beams)
    for (const double penalty : {-0.5, 0.0, 0.5, 1.0, 2.0})
      for (const char *early : kEarly)
        for (uint64_t seed = 0; seed < 12; ++seed) {
          const Model model = toy(24, seed + 100 * beams, 3, static_cast<double>(seed % 4) - 1);
          SearchCase c{beams, beams, 4 + static_cast<uint32_t>(seed % 9), penalty, early, {23}};
          if (seed % 3 == 0) c.stops.push_back(5);
          const auto expected = hf_beam_search(model, c);
          expect_equal(driver.search(model, c), expected, name_of(c, seed));
          ended_early += expected[0].tokens.size() < c.max_new ? 1 : 0;
        }
  EXPECT_GT(ended_early, 200U) << "answers end in many ways";
  EXPECT_EQ(driver.widest, 8U);
}

TEST(Beam, TheKindsOfEarlyStoppingDiffer) {
  // From the documentation: true stops with as many answers as beams, false by a heuristic, never only when nothing can
  // get better. So the best score never falls from one to the next, and it does rise somewhere.
  BeamDriver driver(24, {});
  size_t false_is_better = 0, never_is_better = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const Model model = toy(24, seed, 3, 1);
    double best[3];
    for (int i = 0; i < 3; ++i) {
      const SearchCase c{3, 1, 16, 2, kEarly[i], {23}};
      best[i] = driver.search(model, c)[0].score;
    }
    EXPECT_LE(best[0], best[1] + 1e-9);
    EXPECT_LE(best[1], best[2] + 1e-9);
    false_is_better += best[1] > best[0] ? 1 : 0;
    never_is_better += best[2] > best[1] ? 1 : 0;
  }
  EXPECT_GT(false_is_better, 0U);
  EXPECT_GT(never_is_better, 0U);
}

TEST(Beam, OneBeamIsGreedy) {
  BeamDriver driver(24, {});
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const Model model = toy(24, seed, 3, 1);
    std::vector<int32_t> greedy;
    while (greedy.size() < 12 && (greedy.empty() || greedy.back() != 23))
      greedy.push_back(static_cast<int32_t>(top_k(model(greedy), 1)[0]));
    for (const char *early : kEarly)
      for (const double penalty : kPenalties)
        EXPECT_EQ(driver.search(model, {1, 1, 12, penalty, early, {23}})[0].tokens, greedy) << seed;
  }
}

TEST(Beam, ScoresFollowFromTheTokens) {
  BeamDriver driver(24, {});
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Model model = toy(24, seed, 3, 1);
    const SearchCase c{4, 4, 10, 0.7, "never", {23}};
    const auto found = driver.search(model, c);
    for (const auto &answer : found) EXPECT_NEAR(answer.score, score_of(model, c, answer.tokens), 1e-5);
    for (size_t k = 1; k < found.size(); ++k) EXPECT_GE(found[k - 1].score, found[k].score);
  }
}

TEST(Beam, RequestsOfOneStepDoNotMix) {
  BeamDriver driver(24, {});
  std::vector<std::pair<Model, SearchCase>> requests;
  for (uint32_t i = 0; i < 7; ++i)
    requests.push_back({toy(24, i, 3, 1), {1 + i, 1, 3 + 2 * i, 0.5 * i, kEarly[i % 3], {23}}});
  const auto together = driver.search(requests);
  for (size_t i = 0; i < requests.size(); ++i)
    expect_equal(together[i], driver.search(requests[i].first, requests[i].second), "request " + std::to_string(i));
}

TEST(Beam, AskForRowsWideEnoughAndRefusesWhatIsBeyond) {
  BeamDriver driver(1000, {{"max_beams", "6"}, {"num_beams", "3"}});
  EXPECT_EQ(driver.needs().max_branches, 6U);
  EXPECT_EQ(driver.needs().n_top, 14U) << "six beams and eight end tokens";
  EXPECT_EQ(driver.needs().logprobs_kind, static_cast<uint32_t>(SLUICE_LOGPROBS_RAW));
  EXPECT_EQ(driver.needs().max_nodes, 0U);
  EXPECT_EQ(driver.validate({{"num_beams", "6"}}), SLUICE_OK);
  EXPECT_EQ(driver.validate({{"num_beams", "7"}}), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_NE(driver.status.text().find("num_beams is 7; this model is configured for at most 6"), std::string::npos);
  SearchCase many{6, 1, 4, 1, "false", {1, 2, 3, 4, 5, 6, 7, 8, 9}};
  EXPECT_THROW(driver.open(many, BeamDriver::request(many)), std::invalid_argument);
  EXPECT_THROW(BeamDriver(1000, {{"max_beams", "4"}, {"num_beams", "5"}}), std::invalid_argument);
}

}  // namespace
}  // namespace sluice::test

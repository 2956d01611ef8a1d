// What each parameter does to a row, on the host.
#include "tests/samplers/sampler_driver.hpp"

namespace sluice::test {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
using Row = std::vector<float>;

Row log_of(const std::vector<double> &p) {
  Row row;
  for (const double x : p) row.push_back(static_cast<float>(std::log(x)));
  return row;
}
/// Softmax.
std::vector<double> probabilities(const Row &row) {
  double sum = 0;
  std::vector<double> p;
  for (const float l : row) p.push_back(std::exp(static_cast<double>(l))), sum += p.back();
  for (double &x : p) x /= sum;
  return p;
}
void expect_near(const Row &row, const std::vector<double> &expected, double tolerance = 1e-5) {
  const auto p = probabilities(row);
  ASSERT_EQ(p.size(), expected.size());
  for (size_t i = 0; i < p.size(); ++i) EXPECT_NEAR(p[i], expected[i], tolerance) << i;
}

TEST(Chain, DefaultsChangeNothing) {
  SamplerDriver c("chain", 4);
  const Row row{0.5f, -2, 3, 1};
  EXPECT_EQ(c.apply(c.open(), row), row);
}

TEST(Chain, NeverChooses) {
  SamplerDriver c("chain", 3);
  SamplerDriver::Batch b{{c.open({{"temperature", "0"}})}, {{1, 2, 0}}};
  EXPECT_EQ(c.apply(b), (std::vector<int32_t>{-1}));
  EXPECT_EQ(b.rows[0], (Row{kNever, 2, kNever}));
  EXPECT_EQ(c.vtbl().flags & SLUICE_SMPF_PROCESSOR, SLUICE_SMPF_PROCESSOR);
}

// Vectors: llama.cpp tests/test-sampling.cpp, as probabilities.
TEST(Chain, TopKTopPMinP) {
  SamplerDriver c("chain", 4);
  const Row ramp = log_of({0.1, 0.2, 0.3, 0.4});
  expect_near(c.apply(c.open({{"top_k", "1"}}), ramp), {0, 0, 0, 1});
  expect_near(c.apply(c.open({{"top_k", "3"}}), ramp), {0, 0.22222, 0.33333, 0.44444});
  expect_near(c.apply(c.open({{"top_k", "-1"}}), ramp), {0.1, 0.2, 0.3, 0.4});
  expect_near(c.apply(c.open({{"top_p", "0"}}), ramp), {0, 0, 0, 1});
  expect_near(c.apply(c.open({{"top_p", "0.69"}}), ramp), {0, 0, 0.428571, 0.571429});
  expect_near(c.apply(c.open({{"top_p", "0.8"}}), ramp), {0, 0.22222, 0.33333, 0.44444});
  expect_near(c.apply(c.open({{"top_p", "1"}}), ramp), {0.1, 0.2, 0.3, 0.4});
  expect_near(c.apply(c.open({{"min_p", "0.24"}}), ramp), {0.1, 0.2, 0.3, 0.4});
  expect_near(c.apply(c.open({{"min_p", "0.26"}}), ramp), {0, 0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9});
  expect_near(c.apply(c.open({{"min_p", "0.51"}}), ramp), {0, 0, 0.3 / 0.7, 0.4 / 0.7});
  expect_near(c.apply(c.open({{"min_p", "0.76"}}), ramp), {0, 0, 0, 1});
}

TEST(Chain, TiesAtTheKthGoByIdUnlessKept) {
  const Row row{1, 2, 2, 2, 0};
  SamplerDriver exact("chain", 5), ties("chain", 5, {{"top_k_ties", "true"}});
  EXPECT_EQ(exact.apply(exact.open({{"top_k", "2"}}), row), (Row{kNever, 2, 2, kNever, kNever}));
  EXPECT_EQ(ties.apply(ties.open({{"top_k", "2"}}), row), (Row{kNever, 2, 2, 2, kNever}));
}

TEST(Chain, TemperatureDividesAndTinyOnesAreGreedy) {
  SamplerDriver c("chain", 3);
  const Row row{1, 4, 4};
  EXPECT_EQ(c.apply(c.open({{"temperature", "0.5"}}), row), (Row{2, 8, 8}));
  EXPECT_EQ(c.apply(c.open({{"temperature", "0.000001"}}), row), (Row{kNever, 4, kNever}));
}

// Vectors: llama.cpp tests/test-sampling.cpp; r = 50, f = s = 5.
TEST(Chain, PenaltiesAsElsewhere) {
  SamplerDriver c("chain", 5, {{"frequency_prompt", "true"}, {"presence_prompt", "true"}});
  const Row flat = log_of({0.2, 0.2, 0.2, 0.2, 0.2});
  expect_near(c.apply(c.open({{"repetition_penalty", "50"}}, {0}), flat), {0, 0.25, 0.25, 0.25, 0.25});
  const PluginConfig::Values both{{"frequency_penalty", "2"}, {"presence_penalty", "2"}};
  const double once = std::exp(-4), twice = std::exp(-6), three = std::exp(-8);
  expect_near(c.apply(c.open(both, {0}), flat),
              {once / (once + 4), 1 / (once + 4), 1 / (once + 4), 1 / (once + 4), 1 / (once + 4)});
  const double sum = three + twice + once + 2;
  expect_near(c.apply(c.open(both, {0, 1, 2, 0, 0, 1}), flat),
              {three / sum, twice / sum, once / sum, 1 / sum, 1 / sum});
}

// Vector: HF tests/generation/test_logits_process.py, penalty 2.
TEST(Chain, RepetitionDividesWhatIsPositiveAndMultipliesWhatIsNot) {
  SamplerDriver c("chain", 4);
  EXPECT_EQ(c.apply(c.open({{"repetition_penalty", "2"}}, {0, 1, 1}), {-0.25f, 0.5f, 0.125f, 0}),
            (Row{-0.5f, 0.25f, 0.125f, 0}));
}

TEST(Chain, ScopesArePromptForRepetitionAndOutputForTheRest) {
  SamplerDriver c("chain", 4);
  auto *s = c.open({{"repetition_penalty", "2"}, {"presence_penalty", "1"}, {"frequency_penalty", "0.5"}}, {0, 1});
  const Row row{8, 8, 8, 8};
  EXPECT_EQ(c.apply(s, row), (Row{4, 4, 8, 8}));
  c.commit(s, {2, 1, 2});
  EXPECT_EQ(c.apply(s, row), (Row{4, 4 - 0.5f - 1, 4 - 2 * 0.5f - 1, 8}));
}

TEST(Chain, LastNLooksAtTheEndOnly) {
  SamplerDriver c("chain", 4, {{"penalty_last_n", "2"}});
  auto *s = c.open({{"repetition_penalty", "2"}}, {0, 1});
  const Row row{8, 8, 8, 8};
  c.commit(s, {2});
  EXPECT_EQ(c.apply(s, row), (Row{8, 4, 4, 8}));
}

TEST(Chain, BiasNamesTheIdThatIsWrong) {
  SamplerDriver c("chain", 100);
  Row row(100, 0.0f);
  row[3] = 1.5f, row[99] = -7;
  Row zero(100, 0.0f);
  EXPECT_EQ(c.apply(c.open({{"logit_bias", "3 = 1.5\n\"99\" = -7\n"}}), zero), row);
  EXPECT_EQ(c.validate({{"logit_bias", "3 = 1.5"}}), SLUICE_OK);
  const auto said = [&](const std::string &table) {
    EXPECT_EQ(c.validate({{"logit_bias", table}}), SLUICE_E_INVALID_ARGUMENT);
    return c.status.text();
  };
  EXPECT_EQ(said("100 = 1"), "logit_bias: token 100 is not in the vocabulary of 100");
  EXPECT_EQ(said("-1 = 1"), "logit_bias: '-1' is not a token id");
  EXPECT_EQ(said("cat = 1"), "logit_bias: 'cat' is not a token id");
  EXPECT_EQ(said("5 = 101"), "logit_bias.5 is 101.000000; it must be -100..100");
  EXPECT_EQ(said("5 = inf"), "logit_bias.5 is inf; it must be -100..100");
}

TEST(Chain, ConfigurationGivesTheDefaultsAndTheRequestChangesThem) {
  SamplerDriver c("chain", 4, {{"top_k", "1"}, {"temperature", "0.5"}});
  const Row row{1, 4, 2, 0};
  EXPECT_EQ(c.apply(c.open(), row), (Row{kNever, 8, kNever, kNever}));
  EXPECT_EQ(c.apply(c.open({{"top_k", "0"}}), row), (Row{2, 8, 4, 0}));
}

// Camelid #534: logits [3, 2, 1], top_p 0.8, T 0.5 keep one token or two, as the order has it.
TEST(Chain, OrderIsAsConfigured) {
  const Row row{3, 2, 1};
  const PluginConfig::Values request{{"top_p", "0.8"}, {"temperature", "0.5"}};
  SamplerDriver first("chain", 3), last("chain", 3, {{"order", "top_p,temperature"}});
  EXPECT_EQ(first.apply(first.open(request), row), (Row{6, kNever, kNever}));
  EXPECT_EQ(last.apply(last.open(request), row), (Row{6, 4, kNever}));
  EXPECT_EQ(last.validate({{"top_k", "5"}}), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_NE(last.status.text().find("without the stage 'top_k'"), std::string::npos);
  EXPECT_EQ(last.validate({{"top_k", "0"}}), SLUICE_OK);
}

TEST(Chain, RefusesAnOrderThatMakesNoSense) {
  EXPECT_THROW(SamplerDriver("chain", 3, {{"order", "top_p,top_q"}}), std::runtime_error);
  EXPECT_THROW(SamplerDriver("chain", 3, {{"order", "top_p,top_p"}}), std::runtime_error);
}

TEST(Chain, SchemaRefusesWhatIsOutOfRange) {
  SamplerDriver c("chain", 4);
  for (const auto &[key, value] : std::vector<std::pair<std::string, std::string>>{{"temperature", "2.1"},
                                                                                   {"temperature", "-1"},
                                                                                   {"top_p", "1.01"},
                                                                                   {"min_p", "-0.1"},
                                                                                   {"top_k", "-2"},
                                                                                   {"repetition_penalty", "0"},
                                                                                   {"frequency_penalty", "2.5"},
                                                                                   {"presence_penalty", "-3"}})
    EXPECT_THROW(c.open({{key, value}}), std::invalid_argument) << key;
}

TEST(Chain, ARowWithoutTokensStaysSo) {
  SamplerDriver c("chain", 3);
  auto *s = c.open({{"temperature", "0.7"}, {"top_p", "0.9"}, {"top_k", "2"}, {"min_p", "0.1"}});
  EXPECT_EQ(c.apply(s, {kNever, kNever, kNever}), (Row{kNever, kNever, kNever}));
}

/// THE DRAW over the edited row has the probabilities that the formulas give.
TEST(Chain, DrawsFollowTheDistribution) {
  SamplerDriver c("chain", 8);
  const Row row = log_of({0.02, 0.3, 0.05, 0.2, 0.11, 0.01, 0.25, 0.06});
  const Row edited = c.apply(c.open({{"temperature", "0.8"}, {"top_p", "0.95"}, {"min_p", "0.1"}}), row);
  // by hand: p^(1/0.8) renormalised, then p >= 0.1 max, then the shortest prefix with 0.95
  std::vector<double> p(8);
  double sum = 0, kept = 0;
  for (size_t i = 0; i < 8; ++i) p[i] = std::pow(std::exp(static_cast<double>(row[i])), 1 / 0.8), sum += p[i];
  for (double &x : p) x /= sum;
  const double limit = 0.1 * p[1];
  for (double &x : p) x = x < limit ? 0 : x, kept += x;
  const std::vector<size_t> rank{1, 6, 3, 4, 7, 2, 0, 5};
  double mass = 0, total = 0;
  for (const size_t i : rank) {
    if (mass >= 0.95 * kept) p[i] = 0;
    mass += p[i];
  }
  for (const double x : p) total += x;
  std::vector<int> count(8);
  const int n = 200000;
  for (int i = 0; i < n; ++i) {
    const int32_t token = sdk::draw_row(edited.data(), 8, static_cast<uint64_t>(i), 5);
    ++count[static_cast<size_t>(token)];
  }
  double chi2 = 0;
  int cells = 0;
  for (size_t i = 0; i < 8; ++i) {
    if (p[i] == 0) {
      EXPECT_EQ(count[i], 0) << i;
      continue;
    }
    const double expected = n * p[i] / total;
    chi2 += (count[i] - expected) * (count[i] - expected) / expected, ++cells;
  }
  EXPECT_GE(cells, 4);
  EXPECT_LT(chi2, 45) << "p < 1e-6 with up to 7 degrees of freedom";
}

}  // namespace
}  // namespace sluice::test

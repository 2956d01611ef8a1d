// Lowered or not, a row gives the same token; trees and forks see the right history.
#include <random>

#include "tests/samplers/sampler_driver.hpp"

namespace sluice::test {
namespace {

using Row = std::vector<float>;
using Ids = std::vector<int32_t>;

PluginConfig::Values random_request(std::mt19937 &rng) {
  const auto pick = [&](std::vector<std::string> values) { return values[rng() % values.size()]; };
  PluginConfig::Values r{{"temperature", pick({"0", "0.000001", "0.7", "1", "1.9"})},
                         {"top_k", pick({"-1", "0", "1", "5", "40", "500"})},
                         {"top_p", pick({"0", "0.1", "0.8", "0.95", "1"})},
                         {"min_p", pick({"0", "0.02", "0.3"})},
                         {"repetition_penalty", pick({"1", "1.3", "0.8"})},
                         {"frequency_penalty", pick({"0", "0.7", "-1.1"})},
                         {"presence_penalty", pick({"0", "0.9", "-0.4"})}};
  if (rng() % 2 != 0) r["logit_bias"] = "3 = 2.5\n17 = -100\n60 = 0.125\n";
  return r;
}

Row random_row(std::mt19937 &rng, uint32_t vocab) {
  std::normal_distribution<float> normal(0, 3);
  Row row(vocab);
  for (float &l : row) l = rng() % 8 == 0 ? 1.0f : normal(rng);  // some ties
  return row;
}

/// What a backend does with the lowered spec.
int32_t device_token(SamplerDriver &c, sluice_sampler_seq *seq, const sluice_sample_spec &spec, Row row,
                     const sdk::TokenHistory &history, const Ids &path, uint64_t seed, Row *edited) {
  std::vector<int32_t> bias_token(16);
  std::vector<float> bias_value(16);
  uint32_t n_bias = 16;
  c.check(c.vtbl().bias(c.sampler(), seq, bias_token.data(), bias_value.data(), &n_bias, c.status));
  sdk::TokenHistory seen;
  history.counts(path.data(), path.size(), spec.penalty_last_n, seen);
  sdk::RowInputs in;
  in.bias_token = bias_token.data(), in.bias_value = bias_value.data(), in.n_bias = n_bias;
  in.counts = seen.counts().data(), in.n_counts = seen.counts().size();
  sdk::RowSampler sampler;
  sampler.run(row.data(), static_cast<uint32_t>(row.size()), spec, in);
  const int32_t token = sampler.draw(seed, 9);
  sampler.write_back();
  *edited = row;
  return token;
}

TEST(ChainLower, GivesTheSameBitsAsApply) {
  std::mt19937 rng(3);
  constexpr uint32_t kVocab = 97;
  const std::vector<PluginConfig::Values> configurations{
      {},
      {{"penalty_last_n", "3"}, {"top_k_ties", "true"}, {"presence_prompt", "true"}},
      {{"order", "top_k,top_p,min_p,temperature,bias,presence,frequency,repetition"}}};
  for (const auto &options : configurations) {
    SamplerDriver c("chain", kVocab, options);
    for (int round = 0; round < 400; ++round) {
      const Ids prompt{3, 5, 3, 60, static_cast<int32_t>(rng() % kVocab)}, output{7, 3, 8};
      auto *seq = c.open(random_request(rng), prompt);
      c.commit(seq, output);
      sdk::TokenHistory history;
      history.reset(), history.append_prompt(prompt.data(), prompt.size());
      history.append_output(output.data(), output.size());
      sluice_sample_spec spec = empty_spec();
      ASSERT_EQ(c.lower(seq, spec), SLUICE_OK) << c.status.text();
      const Row row = random_row(rng, kVocab);
      Row by_spec;
      const int32_t token = device_token(c, seq, spec, row, history, {}, 77 + static_cast<uint64_t>(round), &by_spec);
      const Row by_apply = c.apply(seq, row);
      ASSERT_EQ(std::memcmp(by_spec.data(), by_apply.data(), kVocab * sizeof(float)), 0) << "round " << round;
      EXPECT_EQ(sdk::draw_row(by_apply.data(), kVocab, 77 + static_cast<uint64_t>(round), 9), token);
    }
  }
}

TEST(ChainLower, ListsOnlyStagesWithAnEffectInTheConfiguredOrder) {
  SamplerDriver c("chain", 10);
  const auto stages = [&](const PluginConfig::Values &request) {
    sluice_sample_spec spec = empty_spec();
    EXPECT_EQ(c.lower(c.open(request), spec), SLUICE_OK);
    return std::vector<int>(spec.stage, spec.stage + spec.n_stages);
  };
  EXPECT_EQ(stages({}), (std::vector<int>{}));
  EXPECT_EQ(stages({{"temperature", "0"}, {"top_p", "0.5"}, {"presence_penalty", "1"}}),
            (std::vector<int>{SLUICE_STAGE_PRESENCE, SLUICE_STAGE_TEMPERATURE}));
  EXPECT_EQ(stages({{"temperature", "0.5"},
                    {"top_p", "0.5"},
                    {"top_k", "3"},
                    {"min_p", "0.1"},
                    {"logit_bias", "1 = 2"},
                    {"repetition_penalty", "1.1"},
                    {"frequency_penalty", "0.1"},
                    {"presence_penalty", "0.1"}}),
            (std::vector<int>{SLUICE_STAGE_BIAS, SLUICE_STAGE_REPETITION, SLUICE_STAGE_FREQUENCY, SLUICE_STAGE_PRESENCE,
                              SLUICE_STAGE_TEMPERATURE, SLUICE_STAGE_MIN_P, SLUICE_STAGE_TOP_K, SLUICE_STAGE_TOP_P}));
}

TEST(ChainLower, IsAllOrNothing) {
  SamplerDriver c("chain", 10);
  auto *seq = c.open({{"temperature", "0.5"}, {"min_p", "0.1"}, {"top_k", "3"}});
  const auto lowers = [&](const sluice_sample_caps &caps, sluice_sample_spec spec = empty_spec()) {
    const uint32_t before = spec.n_stages;
    const int32_t code = c.lower(seq, spec, caps);
    if (code != SLUICE_OK) {
      EXPECT_EQ(code, SLUICE_E_UNSUPPORTED);
      EXPECT_EQ(spec.n_stages, before);
    }
    return code == SLUICE_OK;
  };
  EXPECT_TRUE(lowers(every_cap()));
  sluice_sample_caps caps = every_cap();
  caps.flags &= ~SLUICE_SCF_ANY_ORDER;
  EXPECT_FALSE(lowers(caps)) << "min_p before top_k is not ascending";
  caps = every_cap(), caps.stages &= ~SLUICE_STAGE_BIT(SLUICE_STAGE_MIN_P);
  EXPECT_FALSE(lowers(caps));
  caps = every_cap(), caps.max_top_k = 2;
  EXPECT_FALSE(lowers(caps));
  sluice_sample_spec masked = empty_spec(), taken = empty_spec();
  masked.stage[masked.n_stages++] = SLUICE_STAGE_MASK;
  taken.stage[taken.n_stages++] = SLUICE_STAGE_TEMPERATURE;
  EXPECT_TRUE(lowers(every_cap(), masked));
  EXPECT_FALSE(lowers(every_cap(), taken)) << "a spec holds one set of parameters";
}

TEST(ChainLower, BiasSaysHowMuchRoomItNeeds) {
  SamplerDriver c("chain", 10);
  auto *seq = c.open({{"logit_bias", "1 = 2\n2 = 3\n4 = 5"}});
  int32_t token[3];
  float value[3];
  uint32_t n = 2;
  EXPECT_EQ(c.vtbl().bias(c.sampler(), seq, token, value, &n, c.status), SLUICE_E_RESOURCE_EXHAUSTED);
  EXPECT_EQ(n, 3u);
  EXPECT_EQ(c.vtbl().bias(c.sampler(), seq, token, value, &n, c.status), SLUICE_OK);
  EXPECT_EQ(Ids(token, token + 3), (Ids{1, 2, 4}));
  EXPECT_EQ(Row(value, value + 3), (Row{2, 3, 5}));
}

TEST(ChainLower, ApplyLeavesTheStateAloneAndOrderOfRowsDoesNotMatter) {
  std::mt19937 rng(4);
  SamplerDriver c("chain", 40);
  auto *a = c.open({{"presence_penalty", "1"}, {"top_p", "0.9"}}, {1, 2}), *b = c.open({{"top_k", "3"}});
  c.commit(a, {5, 6});
  const Row first = random_row(rng, 40), second = random_row(rng, 40);
  SamplerDriver::Batch one{{a, b}, {first, second}}, other{{b, a}, {second, first}};
  c.apply(one), c.apply(other);
  EXPECT_EQ(one.rows[0], other.rows[1]);
  EXPECT_EQ(one.rows[1], other.rows[0]);
  EXPECT_EQ(c.apply(a, first), one.rows[0]);
}

TEST(ChainLower, ATreesRowsAreJudgedAsIfTheirPathWereCommitted) {
  std::mt19937 rng(5);
  for (const std::string last_n : {"0", "4"}) {
    SamplerDriver c("chain", 40, {{"penalty_last_n", last_n}});
    const PluginConfig::Values request{
        {"presence_penalty", "1"}, {"frequency_penalty", "0.5"}, {"repetition_penalty", "1.2"}};
    auto *seq = c.open(request, {1, 2, 3});
    c.commit(seq, {5, 6});
    const Row row = random_row(rng, 40);
    // root, two children 7 and 8, 7 again under 7
    SamplerDriver::Batch tree{{seq, seq, seq, seq}, {row, row, row, row}, {-1, 0, 0, 1}, {-1, 7, 8, 7}};
    c.apply(tree);
    const std::vector<Ids> paths{{}, {7}, {8}, {7, 7}};
    for (size_t r = 0; r < paths.size(); ++r) {
      auto *plain = c.open(request, {1, 2, 3});
      c.commit(plain, {5, 6});
      c.commit(plain, paths[r]);
      EXPECT_EQ(tree.rows[r], c.apply(plain, row)) << "row " << r;
    }
  }
}

TEST(ChainLower, AForkGoesItsOwnWay) {
  SamplerDriver c("chain", 4);
  auto *a = c.open({{"presence_penalty", "1"}}, {0});
  c.commit(a, {1});
  auto *b = c.fork(a);
  c.commit(a, {2});
  c.commit(b, {3});
  const Row row{8, 8, 8, 8};
  EXPECT_EQ(c.apply(a, row), (Row{8, 7, 7, 8}));
  EXPECT_EQ(c.apply(b, row), (Row{8, 7, 8, 7}));
}

}  // namespace
}  // namespace sluice::test

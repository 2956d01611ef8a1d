// Forms of rows: tokens, candidates, logits, logprobs, stages.
#include <sluice/sdk/sampling.hpp>

#include "tests/backends/mock/mock_driver.hpp"

namespace sluice::test {
namespace {

using Ids = std::vector<int32_t>;

mock::ScriptOptions hash_options() {
  mock::ScriptOptions o;
  o.script = mock::Script::kHash, o.vocab_size = 64, o.spread = 2;
  return o;
}
const PluginConfig::Values kHash{{"script", "hash"}, {"vocab_size", "64"}, {"spread", "2"}};

sluice_sample_spec sampled(float temperature = 1) {
  sluice_sample_spec spec = MockStep::greedy();
  spec.temperature = temperature;
  return spec;
}

std::vector<float> row_of(const mock::ScriptOptions &o, const Ids &tokens) {
  std::vector<float> row(o.vocab_size);
  mock::fill_row(o, mock::choose(o, tokens, static_cast<uint32_t>(tokens.size())), row.data());
  return row;
}

TEST(MockRows, HostLogitsAreTheScriptsRow) {
  for (const bool hash : {false, true}) {
    mock::ScriptOptions o = hash_options();
    o.script = hash ? mock::Script::kHash : mock::Script::kCount;
    auto options = kHash;
    options["script"] = hash ? "hash" : "count";
    Mock m(options);
    MockSeq s = m.seq(1, {5, 6, 7});
    sluice_sample_spec none = sampled();
    none.n_stages = 0;
    MockStep step;
    sluice_ticket ticket = 0;
    m.check(m.submit(step.add(s, 3, none, SLUICE_ROW_LOGITS_HOST), &ticket));
    m.check(m.wait(ticket));
    EXPECT_EQ(std::vector<float>(m.result.logits_host, m.result.logits_host + 64), row_of(o, s.tokens));
    EXPECT_EQ(m.result.token[0], -1);
    EXPECT_EQ(m.result.cand_ids, nullptr);
  }
}

TEST(MockRows, DrawsAreTheCanonicalOnes) {
  Mock m(kHash);
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    MockSeq s = m.seq(seed, {static_cast<int32_t>(seed), 6, 7}, 4);
    std::vector<float> row = row_of(hash_options(), s.tokens);
    for (float &l : row) l /= 0.7f;
    MockStep step;
    EXPECT_EQ(m.run(step.add(s, 3, sampled(0.7f), SLUICE_ROW_TOKEN, seed)),
              (Ids{sdk::draw_row(row.data(), 64, seed, 3)}));
    m.configure();
    s.cached = 0;
  }
}

TEST(MockRows, AScriptedTokenWinsAtEveryTemperatureUpToFour) {
  Mock m(PluginConfig::Values{{"script", "count"}});
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const bool in_full = seed % 2 != 0;  // logprobs of another kind make the mock materialise the row
    sluice_sample_spec spec = sampled(seed % 3 == 0 ? 4.0f : 1.0f);
    if (in_full) spec.flags = SLUICE_SPF_LOGPROB, spec.logprobs_kind = SLUICE_LOGPROBS_PROCESSED;
    MockSeq s{seed + 1, {40, 41}, {0}, 0};
    MockStep step;
    EXPECT_EQ(m.run(step.add(s, 2, spec, SLUICE_ROW_TOKEN, seed)), (Ids{42}));
  }
}

TEST(MockRows, LogprobsAgreeWhetherTheRowIsMadeOrNot) {
  Mock m(PluginConfig::Values{{"script", "count"}});
  sluice_sample_spec spec = sampled();
  spec.flags = SLUICE_SPF_LOGPROB;
  for (const uint32_t n_top : {0u, 3u}) {
    spec.n_logprobs = n_top;
    MockSeq s{n_top + 1, {40, 41}, {0}, 0};
    MockStep step;
    sluice_ticket ticket = 0;
    m.check(m.submit(step.add(s, 2, spec), &ticket));
    m.check(m.wait(ticket));
    EXPECT_EQ(m.result.token[0], 42);
    EXPECT_EQ(m.result.logprob[0], 0.0f);
    EXPECT_EQ(m.result.n_top, n_top);
    if (n_top > 0) {
      EXPECT_EQ(Ids(m.result.top_ids, m.result.top_ids + 3), (Ids{42, 0, 1}));
      EXPECT_EQ(m.result.top_logprobs[1], -100.0f);
    }
    m.vtbl().release(m.model, ticket);
  }
}

TEST(MockRows, CandidatesComeBestFirstWithTheWholeRowsSum) {
  Mock m(kHash);
  MockSeq s = m.seq(1, {5, 6, 7});
  std::vector<float> row = row_of(hash_options(), s.tokens);
  sluice_sample_spec none = sampled();
  none.n_stages = 0;
  MockStep step;
  step.step.n_candidates = 5;
  sluice_ticket ticket = 0;
  m.check(m.submit(step.add(s, 3, none, SLUICE_ROW_CANDIDATES), &ticket));
  m.check(m.wait(ticket));
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(m.result.cand_ids[i], std::max_element(row.begin(), row.end()) - row.begin());
    EXPECT_EQ(m.result.cand_logits[i], row[static_cast<size_t>(m.result.cand_ids[i])]);
    row[static_cast<size_t>(m.result.cand_ids[i])] = -1000;
  }
  const std::vector<float> whole = row_of(hash_options(), s.tokens);
  EXPECT_EQ(m.result.row_lse[0], sdk::log_sum_exp(whole.data(), 64));
}

TEST(MockRows, MaskBiasAndPenaltiesReachTheRow) {
  Mock m({{"script", "count"}, {"vocab_size", "64"}});
  MockSeq s = m.seq(1, {40, 41});
  sluice_sample_spec spec = sampled(0);
  spec.n_stages = 4;
  const uint8_t stages[] = {SLUICE_STAGE_MASK, SLUICE_STAGE_BIAS, SLUICE_STAGE_FREQUENCY, SLUICE_STAGE_TEMPERATURE};
  std::copy_n(stages, 4, spec.stage);
  spec.frequency = 2;
  MockStep step;
  step.add(s, 2, spec);
  const std::vector<uint32_t> mask{0xffffffff, 0xffffffff & ~(1u << (42 - 32))};  // 42, what comes next, is forbidden
  const std::vector<int32_t> row_mask{0}, bias_token{7, 9}, history{7, 7, 7, 1}, row_history{3};
  const std::vector<float> bias_value{6, 4};
  const std::vector<uint32_t> bias_indptr{0, 2}, slot{3, 3}, history_indptr{0, 1, 4};
  const std::vector<uint8_t> kind{SLUICE_HISTORY_RESET, SLUICE_HISTORY_OUTPUT};
  step.step.mask_words = mask.data(), step.step.row_mask = row_mask.data();
  step.step.bias_indptr = bias_indptr.data(), step.step.bias_token = bias_token.data();
  step.step.bias_value = bias_value.data();
  step.step.n_history = 2, step.step.history_slot = slot.data(), step.step.history_kind = kind.data();
  step.step.history_indptr = history_indptr.data(), step.step.history_token = history.data();
  step.step.row_history = row_history.data();
  EXPECT_EQ(m.run(step), (Ids{9})) << "7: 6 - 2 * 2 (output only) is less than 4";
}

TEST(MockRows, SampledTokensFollowTheRow) {
  Mock m(kHash);
  const std::vector<float> row = row_of(hash_options(), {5, 6, 7});
  std::vector<int> count(64);
  const int n = 20000;
  MockSeq s = m.seq(1, {5, 6, 7});
  for (int i = 0; i < n; ++i) {
    MockStep step;
    s.cached = 0, s.tokens.resize(3);
    ++count[static_cast<size_t>(m.run(step.add(s, 3, sampled(), SLUICE_ROW_TOKEN, static_cast<uint64_t>(i)))[0])];
  }
  double chi2 = 0, pooled_expected = 0, pooled_count = 0;
  int cells = 0;
  const double lse = static_cast<double>(sdk::log_sum_exp(row.data(), 64));
  for (size_t v = 0; v < 64; ++v) {
    const double expected = n * std::exp(static_cast<double>(row[v]) - lse);
    if (expected < 5) {
      pooled_expected += expected, pooled_count += count[v];
      continue;
    }
    chi2 += (count[v] - expected) * (count[v] - expected) / expected, ++cells;
  }
  if (pooled_expected >= 5) chi2 += std::pow(pooled_count - pooled_expected, 2) / pooled_expected, ++cells;
  EXPECT_GT(cells, 10);
  EXPECT_LT(chi2, cells - 1 + 6 * std::sqrt(2.0 * cells)) << "six sigma";
}

}  // namespace
}  // namespace sluice::test

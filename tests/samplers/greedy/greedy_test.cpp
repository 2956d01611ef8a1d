#include "tests/samplers/sampler_driver.hpp"

namespace sluice::test {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
using Ids = std::vector<int32_t>;

TEST(Greedy, TakesTheBestAndTheLowestIdOnTies) {
  SamplerDriver g("greedy", 5);
  auto *s = g.open();
  SamplerDriver::Batch b{{s, s, s, s}, {{1, 3, 2, 3, 0}, {0, 0, 0, 0, 0}, {-5, kNever, -1, -2, -1}, {1, 2, 3, 4, 5}}};
  EXPECT_EQ(g.apply(b), (Ids{1, 0, 2, 4}));
}

TEST(Greedy, LeavesARowWithoutTokensToTheHost) {
  SamplerDriver g("greedy", 3);
  auto *s = g.open();
  SamplerDriver::Batch b{{s, s}, {{kNever, kNever, kNever}, {0, 1, 0}}};
  EXPECT_EQ(g.apply(b), (Ids{-1, 1}));
}

TEST(Greedy, ReadsCandidatesInAnyOrder) {
  SamplerDriver g("greedy", 100);
  auto *s = g.open();
  const Ids ids{40, 7, 9, -1, 60, 3, -1, -1};
  std::vector<float> logits{1, 5, 5, 9, 2, 2, 9, 9};
  const std::vector<sluice_sampler_seq *> seqs{s, s};
  sluice_sample_batch b{};
  b.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_batch, sync);
  b.form = SLUICE_ROW_CANDIDATES, b.n_rows = 2, b.n_candidates = 4, b.vocab_size = 100;
  b.row_seq = seqs.data(), b.cand_ids = ids.data(), b.cand_logits = logits.data();
  Ids token{-1, -1};
  sluice_sample_out out{};
  out.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_out, token_dev), out.token = token.data();
  g.check(g.vtbl().apply(g.sampler(), &b, &out, g.status));
  EXPECT_EQ(token, (Ids{7, 3}));
  b.form = SLUICE_ROW_LOGITS_DEV;
  EXPECT_EQ(g.vtbl().apply(g.sampler(), &b, &out, g.status), SLUICE_E_UNSUPPORTED);
}

TEST(Greedy, LowersToTemperatureZeroWhereThatIsRight) {
  SamplerDriver g("greedy", 5);
  auto *s = g.open();
  sluice_sample_spec spec = empty_spec();
  ASSERT_EQ(g.lower(s, spec), SLUICE_OK);
  ASSERT_EQ(spec.n_stages, 1u);
  EXPECT_EQ(spec.stage[0], SLUICE_STAGE_TEMPERATURE);
  EXPECT_EQ(spec.temperature, 0.0f);
  std::vector<float> row{1, 3, 2, 3, 0};
  sdk::RowSampler sampler;
  sampler.run(row.data(), 5, spec);
  EXPECT_EQ(sampler.draw(99, 7), 1);

  sluice_sample_caps caps = every_cap();
  caps.flags = 0;
  spec = empty_spec();
  spec.stage[spec.n_stages++] = SLUICE_STAGE_TOP_K;
  EXPECT_EQ(g.lower(s, spec, caps), SLUICE_E_UNSUPPORTED) << "ascending order only";
  EXPECT_EQ(spec.n_stages, 1u);
  EXPECT_EQ(g.lower(s, spec), SLUICE_OK);
  EXPECT_EQ(g.lower(s, spec), SLUICE_E_UNSUPPORTED) << "a spec has one temperature";
  caps = every_cap(), caps.stages = 0;
  spec = empty_spec();
  EXPECT_EQ(g.lower(s, spec, caps), SLUICE_E_UNSUPPORTED);
}

TEST(Greedy, PublishesATemperatureOfZeroOnly) {
  SamplerDriver g("greedy", 5);
  EXPECT_NO_THROW(g.open({{"temperature", "0"}}));
  EXPECT_THROW(g.open({{"temperature", "0.5"}}), std::invalid_argument);
}

}  // namespace
}  // namespace sluice::test

// Whatever is drafted, the model that ships says what it says without drafts: every decoder, greedy and seeded, alone and
// in company. tests/bench/speculation does the same with hundreds of prompts.
#include <gtest/gtest.h>

#include "tests/plugins/decoders/speculation/cases.hpp"

namespace sluice::test {
namespace {

class Speculation : public ::testing::TestWithParam<const char *> {};

TEST_P(Speculation, GivesThePlainTokensOfTheShippedModel) {
  const auto model = ShippedModel::find();
  if (!model.exists || !std::filesystem::exists(model.draft)) GTEST_SKIP() << "no model at " << model.target;
  const bool slow = std::string(GetParam()) == "reference";
  auto prompts = mixed_prompts(model, slow ? 4 : 8);
  if (slow)
    for (auto &prompt : prompts) prompt.resize(std::min<size_t>(prompt.size(), 24));
  uint64_t preemptions = 0;
  for (const auto &sampling : sampling_cases()) {
    if (slow && std::string(sampling.name) == "seeded") continue;
    Decoding plain;
    plain.backend = GetParam();
    plain.model = model.target;
    plain.stop_tokens = model.stop_tokens();
    plain.max_new = slow ? 8 : 32;
    plain.sampler_options = sampling.options;
    const auto expected = decode(plain, prompts);
    ASSERT_EQ(expected.failure, "");
    for (const auto &speculation : speculation_cases(model)) {
      Decoding how = plain;
      how.decoder = speculation.how.decoder;
      how.decoder_options = speculation.how.decoder_options;
      how.draft_model = speculation.how.draft_model;
      how.heads = speculation.how.heads;
      how.twice = speculation.how.twice;
      const auto verdict = compare_with_plain(how, prompts, expected.answers, slow ? 2 : 5);
      EXPECT_EQ(verdict.failure, "") << speculation.name << ", " << sampling.name;
      EXPECT_EQ(verdict.different, 0U) << speculation.name << ", " << sampling.name;
      EXPECT_EQ(verdict.alone.plugin_errors + verdict.in_company.plugin_errors, 0U) << speculation.name;
      EXPECT_GT(verdict.alone.draft_tokens, 0U) << speculation.name << ", " << sampling.name;
      preemptions += verdict.in_company.preemptions;
    }
  }
  EXPECT_TRUE(slow || preemptions > 0) << "nobody lost its cache, so that was not tried";
}
// How much is drafted then depends on what steps take, so every run drafts something else, and says the same.
TEST(AdaptiveSpeculation, GivesThePlainTokensOfTheShippedModel) {
  const auto model = ShippedModel::find();
  if (!model.exists || !std::filesystem::exists(model.draft)) GTEST_SKIP() << "no model at " << model.target;
  const auto prompts = mixed_prompts(model, 4);
  for (const auto &sampling : sampling_cases()) {
    Decoding plain;
    plain.backend = "cpu";
    plain.model = model.target;
    plain.stop_tokens = model.stop_tokens();
    plain.max_new = 48;
    plain.sampler_options = sampling.options;
    const auto expected = decode(plain, prompts);
    ASSERT_EQ(expected.failure, "");
    for (const auto &speculation : speculation_cases(model)) {
      Decoding how = plain;
      how.decoder = speculation.how.decoder;
      how.decoder_options = speculation.how.decoder_options;
      how.decoder_options["adaptive"] = "true";
      how.draft_model = speculation.how.draft_model;
      how.heads = speculation.how.heads;
      how.twice = speculation.how.twice;
      const auto verdict = compare_with_plain(how, prompts, expected.answers, 3);
      EXPECT_EQ(verdict.failure, "") << speculation.name << ", " << sampling.name;
      EXPECT_EQ(verdict.different, 0U) << speculation.name << ", " << sampling.name;
      EXPECT_GT(verdict.alone.draft_tokens, 0U) << speculation.name << ", " << sampling.name;
      EXPECT_GT(verdict.alone.plain_steps, 0U) << "what a plain step costs is measured first";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Speculation, ::testing::Values("cpu", "reference"));

}  // namespace
}  // namespace sluice::test

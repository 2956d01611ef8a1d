// What comes back for a row: the backend's stages, draw, logprobs and candidates against the SDK's meaning of a spec,
// applied here to the raw logits of the same step.
#include "core/model_file/synth.hpp"
#include "tests/backends/plugin_model.hpp"

#include <gtest/gtest.h>
#include <sluice/sdk/sampling.hpp>

#include <filesystem>
#include <numeric>

namespace sluice::test {
namespace {

constexpr uint32_t kTokens = 6;

class Rows : public testing::Test {
 protected:
  static std::string path() { return testing::TempDir() + "sluice-rows-" + std::to_string(getpid()) + ".gguf"; }
  static void SetUpTestSuite() {
    model_file::SynthOptions options;
    options.preset = "tiny";
    ASSERT_TRUE(model_file::synthesize(options, path()));
  }
  static void TearDownTestSuite() { std::filesystem::remove(path()); }
  void SetUp() override {
    model = std::make_unique<PluginModel>(host, "cpu", path());
    model->configure(32, 8, 16, SLUICE_DT_F32, 0, 8);
    input = std::make_unique<StepInput>(sequences, 16);
    raw = run_logits(*model, sequences, 16);
    vocab = model->vocab;
    for (uint32_t r = 0; r < kTokens; ++r) input->row_position[r] = 100 + r, input->row_seed[r] = 77;
  }
  void want(uint8_t forms) { std::fill(input->row_want.begin(), input->row_want.end(), forms); }
  void stages(std::vector<uint8_t> list) {
    input->spec.n_stages = static_cast<uint32_t>(list.size());
    std::copy(list.begin(), list.end(), input->spec.stage);
  }
  /// Runs the step; the result is valid until the next one.
  const sluice_step_result &submit() {
    model->table->release(model->model, ticket);
    EXPECT_EQ(model->submit(input->step, &ticket), SLUICE_OK) << model->status.msg;
    result = {};
    result.struct_size = sizeof result;
    EXPECT_EQ(model->table->wait(model->model, ticket, 0, &result, &model->status), SLUICE_OK) << model->status.msg;
    return result;
  }
  std::vector<float> raw_row(uint32_t r) const { return {raw.begin() + r * vocab, raw.begin() + (r + 1) * vocab}; }

  Host host{2};
  std::vector<SequenceInput> sequences{{{5, 6, 7, 8, 9, 10}, 0, {3}, {}}};
  std::unique_ptr<PluginModel> model;
  std::unique_ptr<StepInput> input;
  std::vector<float> raw;
  uint32_t vocab = 0;
  sluice_ticket ticket = 0;
  sluice_step_result result{};
};

TEST_F(Rows, DrawsAsTheCanonicalRuleSays) {
  want(SLUICE_ROW_TOKEN);
  stages({SLUICE_STAGE_TEMPERATURE, SLUICE_STAGE_TOP_K, SLUICE_STAGE_TOP_P, SLUICE_STAGE_MIN_P});
  input->spec.temperature = 0.8f, input->spec.top_k = 40, input->spec.top_p = 0.95f, input->spec.min_p = 0.02f;
  const sluice_step_result &r = submit();
  EXPECT_EQ(r.logits_host, nullptr);
  EXPECT_EQ(r.cand_ids, nullptr);
  for (uint32_t row = 0; row < kTokens; ++row) {
    std::vector<float> logits = raw_row(row);
    sdk::RowSampler sampler;
    sampler.run(logits.data(), vocab, input->spec);
    EXPECT_EQ(r.token[row], sampler.draw(77, 100 + row));
  }
}

TEST_F(Rows, TemperatureZeroIsTheBest) {
  want(SLUICE_ROW_TOKEN);
  stages({SLUICE_STAGE_TEMPERATURE});
  input->spec.temperature = 0;
  const sluice_step_result &r = submit();
  for (uint32_t row = 0; row < kTokens; ++row) {
    const std::vector<float> logits = raw_row(row);
    EXPECT_EQ(r.token[row], std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
}

TEST_F(Rows, LogprobsOfTheModelAndOfWhatIsLeft) {
  for (const uint32_t kind : {SLUICE_LOGPROBS_RAW, SLUICE_LOGPROBS_PROCESSED}) {
    want(SLUICE_ROW_TOKEN);
    stages({SLUICE_STAGE_TEMPERATURE, SLUICE_STAGE_TOP_K});
    input->spec.temperature = 0.5f, input->spec.top_k = 5;
    input->spec.flags = SLUICE_SPF_LOGPROB, input->spec.n_logprobs = 3,
    input->spec.logprobs_kind = static_cast<uint32_t>(kind);
    const sluice_step_result &r = submit();
    ASSERT_EQ(r.n_top, 3u);
    for (uint32_t row = 0; row < kTokens; ++row) {
      std::vector<float> l = raw_row(row), sorted = l;
      std::sort(sorted.begin(), sorted.end(), std::greater<>());
      const float scale = kind == SLUICE_LOGPROBS_RAW ? 1.0f : 2.0f;
      const size_t kept = kind == SLUICE_LOGPROBS_RAW ? sorted.size() : 5;
      double total = 0;
      for (size_t i = 0; i < kept; ++i) total += std::exp(double{scale} * (sorted[i] - sorted[0]));
      const auto expected = [&](int32_t id) {
        return scale * (l[static_cast<size_t>(id)] - sorted[0]) - std::log(total);
      };
      EXPECT_NEAR(r.logprob[row], expected(r.token[row]), 1e-4);
      for (uint32_t i = 0; i < 3; ++i) {
        EXPECT_EQ(l[static_cast<size_t>(r.top_ids[row * 3 + i])], sorted[i]);
        EXPECT_NEAR(r.top_logprobs[row * 3 + i], expected(r.top_ids[row * 3 + i]), 1e-4);
      }
    }
  }
}

TEST_F(Rows, CandidatesAreTheBestOfWhatIsLeft) {
  want(SLUICE_ROW_CANDIDATES | SLUICE_ROW_LOGITS_HOST);
  stages({SLUICE_STAGE_TOP_K});
  input->spec.top_k = 4;
  input->step.n_candidates = 8;
  const sluice_step_result &r = submit();
  EXPECT_EQ(r.token, nullptr);
  for (uint32_t row = 0; row < kTokens; ++row) {
    std::vector<float> sorted = raw_row(row);
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (uint32_t i = 0; i < 4; ++i) EXPECT_EQ(r.cand_logits[row * 8 + i], sorted[i]);
    EXPECT_EQ(r.cand_ids[row * 8 + 4], -1);
    const float *host_row = r.logits_host + row * vocab;
    EXPECT_EQ(vocab - 4, static_cast<uint32_t>(std::count(host_row, host_row + vocab, sdk::kRemoved)));
  }
}

TEST_F(Rows, MasksAndBiasesArePerRow) {
  want(SLUICE_ROW_TOKEN);
  stages({SLUICE_STAGE_MASK, SLUICE_STAGE_BIAS, SLUICE_STAGE_TEMPERATURE});
  input->spec.temperature = 0;
  std::vector<uint32_t> masks(2 * ((vocab + 31) / 32));
  masks[0] = 1u << 9;                      // mask 0: token 9 alone
  masks[(vocab + 31) / 32 + 1] = 3u << 4;  // mask 1: tokens 36 and 37
  const std::vector<int32_t> row_mask = {0, 1, -1, -1, 1, 0};
  const std::vector<uint32_t> bias_end = {0, 0, 0, 1, 1, 2, 2};
  const std::vector<int32_t> bias_token = {123, 37};
  const std::vector<float> bias_value = {1000, 1000};
  input->step.mask_words = masks.data(), input->step.row_mask = row_mask.data();
  input->step.bias_indptr = bias_end.data(), input->step.bias_token = bias_token.data();
  input->step.bias_value = bias_value.data();
  const sluice_step_result &r = submit();
  EXPECT_EQ(r.token[0], 9);
  EXPECT_TRUE(r.token[1] == 36 || r.token[1] == 37);
  EXPECT_EQ(r.token[2], 123);
  EXPECT_EQ(r.token[4], 37);
  EXPECT_EQ(r.token[5], 9);
}

TEST_F(Rows, HistoriesGrowForkAndPenalise) {
  want(SLUICE_ROW_LOGITS_HOST);
  stages({SLUICE_STAGE_FREQUENCY});
  input->spec.frequency = 1;
  const std::vector<int32_t> slot_of_row = {2, 3, -1, 3, 2, 2};
  const std::vector<uint32_t> slot = {2, 2, 3, 3}, ends = {0, 2, 4, 5, 6};
  const std::vector<uint8_t> kind = {SLUICE_HISTORY_RESET, SLUICE_HISTORY_OUTPUT, SLUICE_HISTORY_FORK,
                                     SLUICE_HISTORY_OUTPUT};
  const std::vector<int32_t> tokens = {50, 51, 60, 60, 2, 61};
  input->step.n_history = 4;
  input->step.history_slot = slot.data(), input->step.history_kind = kind.data();
  input->step.history_indptr = ends.data(), input->step.history_token = tokens.data();
  input->step.row_history = slot_of_row.data();
  const auto drop = [&](const sluice_step_result &r, uint32_t row, uint32_t token) {
    return raw[row * vocab + token] - r.logits_host[row * vocab + token];
  };
  {
    const sluice_step_result &r = submit();
    EXPECT_NEAR(drop(r, 0, 60), 2, 1e-5);
    EXPECT_NEAR(drop(r, 0, 50), 0, 1e-5);  // prompt tokens are outside the scope
    EXPECT_NEAR(drop(r, 0, 61), 0, 1e-5);
    EXPECT_NEAR(drop(r, 1, 60), 2, 1e-5);
    EXPECT_NEAR(drop(r, 1, 61), 1, 1e-5);
    EXPECT_NEAR(drop(r, 2, 60), 0, 1e-5);
  }
  input->step.n_history = 0;
  EXPECT_NEAR(drop(submit(), 3, 61), 1, 1e-5);  // kept from step to step
  const std::vector<uint32_t> reset_ends = {0, 0};
  input->step.n_history = 1;
  input->step.history_indptr = reset_ends.data();
  EXPECT_NEAR(drop(submit(), 0, 60), 0, 1e-5);
}

TEST_F(Rows, TreeRowsSeeTheDraftsOnTheirPath) {
  sequences = {{{5, 6, 7, 8}, 0, {3}, {-1, 0, 0, 1}}};
  StepInput tree(sequences, 16);
  std::fill(tree.row_want.begin(), tree.row_want.end(), static_cast<uint8_t>(SLUICE_ROW_LOGITS_HOST));
  const std::vector<float> plain = run_logits(*model, sequences, 16);
  const std::vector<int32_t> slots(4, 0);
  tree.spec.n_stages = 1, tree.spec.stage[0] = SLUICE_STAGE_PRESENCE, tree.spec.presence = 3;
  tree.step.row_history = slots.data();
  ASSERT_EQ(model->submit(tree.step, &ticket), SLUICE_OK) << model->status.msg;
  result = {};
  result.struct_size = sizeof result;
  ASSERT_EQ(model->table->wait(model->model, ticket, 0, &result, nullptr), SLUICE_OK);
  const auto drop = [&](uint32_t row, uint32_t token) {
    return plain[row * vocab + token] - result.logits_host[row * vocab + token];
  };
  EXPECT_NEAR(drop(0, 5), 0, 1e-5);  // the root stands for the committed token: its slot holds it
  EXPECT_NEAR(drop(1, 6), 3, 1e-5);
  EXPECT_NEAR(drop(2, 7), 3, 1e-5);
  EXPECT_NEAR(drop(2, 6), 0, 1e-5);
  EXPECT_NEAR(drop(3, 6), 3, 1e-5);
  EXPECT_NEAR(drop(3, 8), 3, 1e-5);
  EXPECT_NEAR(drop(3, 7), 0, 1e-5);
}

}  // namespace
}  // namespace sluice::test

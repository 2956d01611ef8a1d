// What a backend must not swallow: malformed steps, operations and setups, each refused with the thing and the value.
#include "core/model_file/synth.hpp"
#include "tests/backends/plugin_model.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <sstream>

namespace sluice::test {
namespace {

using testing::HasSubstr;

std::string tiny_model() {
  static const std::string path = testing::TempDir() + "sluice-refusals-" + std::to_string(getpid()) + ".gguf";
  if (!std::filesystem::exists(path)) {
    model_file::SynthOptions options;
    options.preset = "tiny";
    if (const auto written = model_file::synthesize(options, path); !written)
      throw std::runtime_error(written.error().message);
  }
  return path;
}

class Refusals : public testing::Test {
 protected:
  void SetUp() override {
    model = std::make_unique<PluginModel>(host, "reference", tiny_model());
    model->configure(64, 10, 16, SLUICE_DT_F32, 4, 8);
  }
  static void TearDownTestSuite() { std::filesystem::remove(tiny_model()); }

  /// Breaks a good step of two sequences, one of them a tree, and expects the words in the refusal.
  void refused(const std::function<void(StepInput &)> &breaks, const std::string &words,
               int32_t code = SLUICE_E_INVALID_ARGUMENT) {
    StepInput input({{{3, 4, 5, 6}, 10, {1, 2}, {}}, {{7, 8, 9}, 20, {4, 5}, {-1, 0, 0}}}, 16);
    breaks(input);
    sluice_ticket ticket = 0;
    EXPECT_EQ(model->submit(input.step, &ticket), code) << words;
    EXPECT_THAT(std::string(model->status.msg), HasSubstr(words));
    EXPECT_EQ(model->status.flags & SLUICE_STF_POISONED, 0u);
  }

  Host host{1};
  std::unique_ptr<PluginModel> model;
};

TEST_F(Refusals, TheUnbrokenStepIsTaken) {
  StepInput input({{{3, 4, 5, 6}, 10, {1, 2}, {}}, {{7, 8, 9}, 20, {4, 5}, {-1, 0, 0}}}, 16);
  sluice_ticket ticket = 0;
  EXPECT_EQ(model->submit(input.step, &ticket), SLUICE_OK) << model->status.msg;
}

TEST_F(Refusals, Counts) {
  refused([](StepInput &s) { s.step.n_tokens = 0; }, "n_tokens is 0");
  refused([](StepInput &s) { s.step.n_tokens = 65; }, "n_tokens is 65; the setup allows 64");
  refused([](StepInput &s) { s.step.n_seqs = 65; }, "n_seqs is 65");
  refused([](StepInput &s) { s.step.n_rows = 65; }, "n_rows is 65");
  refused([](StepInput &s) { s.step.n_kv_groups = 2; }, "n_kv_groups is 2");
  refused([](StepInput &s) { s.step.n_candidates = 17; }, "n_candidates is 17");
  refused([](StepInput &s) { s.step.struct_size = 40; }, "struct_size", SLUICE_E_ABI);
  refused([](StepInput &s) { s.step.flags = 1; }, "flags", SLUICE_E_UNSUPPORTED);
}

TEST_F(Refusals, Tokens) {
  refused([](StepInput &s) { s.tokens[2] = 512; }, "tokens[2] is 512; the vocabulary has 512");
  refused([](StepInput &s) { s.tokens[1] = -1; }, "tokens[1] is -1", SLUICE_E_UNSUPPORTED);
  refused([](StepInput &s) { s.positions[3] = 512; }, "positions[3] is 512");
  refused([](StepInput &s) { s.positions[0] = -4; }, "positions[0] is -4");
  refused([](StepInput &s) { s.slots[1] = 0; }, "slots[1] is 0; the block table of sequence 0 puts it at");
  refused([](StepInput &s) { s.slots[1] = SLUICE_NO_SLOT; }, "NO_SLOT", SLUICE_E_UNSUPPORTED);
  refused([](StepInput &s) { s.step.tokens = nullptr; }, "tokens is NULL");
}

TEST_F(Refusals, Sequences) {
  refused([](StepInput &s) { s.q_indptr[0] = 1; }, "q_indptr[0] is 1");
  refused([](StepInput &s) { s.q_indptr[1] = 9; }, "q_indptr[2] is 7, less than the entry before it");
  refused([](StepInput &s) { s.q_indptr[2] = 6; }, "q_indptr[2] is 6; n_tokens is 7");
  refused([](StepInput &s) { s.block_ids[1] = 10; }, "block_ids[1] is 10; 10 blocks are configured");
  refused([](StepInput &s) { s.kv_len[0] = 29; }, "sequence 0 2 blocks; its 33 tokens need more");
  refused([](StepInput &s) { s.kv_len[1] = 0xFFFFFFF0u; }, "kv_len[1]");
  refused([](StepInput &s) { s.block_indptr[1] = 3; }, "block_indptr");
  refused([](StepInput &s) { s.step.q_indptr = nullptr; }, "q_indptr is NULL");
}

TEST_F(Refusals, TwoTokensInOneSlot) {
  StepInput input({{{3}, 10, {1}, {}}, {{4}, 10, {1}, {}}}, 16);
  sluice_ticket ticket = 0;
  EXPECT_EQ(model->submit(input.step, &ticket), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_THAT(std::string(model->status.msg), HasSubstr("where another token of the step goes"));
}

TEST_F(Refusals, Trees) {
  refused([](StepInput &s) { s.parent[5] = 1; }, "parent[5] is 1");
  refused([](StepInput &s) { s.tree_mask[2] = 7; }, "tree_mask of token 6 disagrees with its parent");
  refused([](StepInput &s) { s.tree_indptr[2] = 2; }, "tree_mask_indptr[2] is 2; 3 nodes have 3 words");
  refused([](StepInput &s) { s.step.parent = nullptr; }, "parent is NULL");
  const std::vector<int32_t> nine(9, 5);
  StepInput input({{nine, 0, {1}, {-1, 0, 0, 0, 0, 0, 0, 0, 0}}}, 16);
  sluice_ticket ticket = 0;
  EXPECT_EQ(model->submit(input.step, &ticket), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_THAT(std::string(model->status.msg), HasSubstr("9 nodes; the setup allows 8"));
}

TEST_F(Refusals, Rows) {
  refused([](StepInput &s) { s.row_token[6] = 7; }, "row_token[6] is 7");
  refused([](StepInput &s) { s.row_token[3] = 1; }, "row_token[3] is 1, less than the entry before it");
  refused([](StepInput &s) { s.row_want[0] = SLUICE_ROW_LOGITS_DEV; }, "row_want[0]", SLUICE_E_UNSUPPORTED);
  refused([](StepInput &s) { s.row_spec[4] = 1; }, "row_spec[4] is 1; n_specs is 1");
  refused([](StepInput &s) { s.spec.n_stages = 1, s.spec.stage[0] = SLUICE_STAGE_XTC; }, "spec[0].stage[0] is 12",
          SLUICE_E_UNSUPPORTED);
  refused(
      [](StepInput &s) { s.spec.n_stages = 1, s.spec.stage[0] = SLUICE_STAGE_TEMPERATURE, s.spec.temperature = -1; },
      "temperature");
  refused([](StepInput &s) { s.spec.n_logprobs = 9; }, "n_logprobs is 9; the setup allows 8");
  const int32_t slots[7] = {0, 0, 0, 0, 0, 0, 64};
  refused([&](StepInput &s) { s.step.row_history = slots; }, "row_history[6] is 64");
  const uint32_t bias_end[8] = {0, 1, 1, 1, 1, 1, 1, 1};
  const int32_t bias_token = 512;
  const float bias_value = 1;
  refused(
      [&](StepInput &s) {
        s.step.bias_indptr = bias_end, s.step.bias_token = &bias_token, s.step.bias_value = &bias_value;
      },
      "bias_token[0] is 512");
}

TEST_F(Refusals, Histories) {
  uint32_t slot = 64, indptr[2] = {0, 1};
  uint8_t kind = SLUICE_HISTORY_PROMPT;
  int32_t token = 3;
  const auto history = [&](StepInput &s) {
    s.step.n_history = 1;
    s.step.history_slot = &slot, s.step.history_kind = &kind;
    s.step.history_indptr = indptr, s.step.history_token = &token;
  };
  refused(history, "history_slot[0] is 64");
  slot = 0, token = -1;
  refused(history, "history_token[0] is -1");
  kind = SLUICE_HISTORY_FORK, token = 64;
  refused(history, "history_token of fork 0");
  kind = 9;
  refused(history, "history_kind[0] is 9", SLUICE_E_UNSUPPORTED);
}

TEST_F(Refusals, KvOperations) {
  EXPECT_EQ(model->try_kv_op(SLUICE_KV_COPY, 0, 10), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_THAT(std::string(model->status.msg), HasSubstr("dst[0] is 10; there are 10"));
  EXPECT_EQ(model->try_kv_op(SLUICE_KV_SWAP_OUT, 0, 4), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(model->try_kv_op(SLUICE_KV_SWAP_IN, 4, 0), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(model->try_kv_op(SLUICE_KV_MOVE_SLOTS, 160, 0), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(model->try_kv_op(SLUICE_KV_SEQ_DROP, 0, 0), SLUICE_E_UNSUPPORTED);
}

TEST_F(Refusals, ResultsAreTakenOnce) {
  StepInput input({{{3}, 0, {1}, {}}}, 16);
  sluice_ticket first = 0, second = 0, third = 0;
  ASSERT_EQ(model->submit(input.step, &first), SLUICE_OK);
  ASSERT_EQ(model->submit(input.step, &second), SLUICE_OK);
  EXPECT_EQ(model->submit(input.step, &third), SLUICE_E_RESOURCE_EXHAUSTED);
  model->table->release(model->model, first);
  EXPECT_EQ(model->submit(input.step, &third), SLUICE_OK);
  sluice_step_result result{};
  result.struct_size = sizeof result;
  EXPECT_EQ(model->table->wait(model->model, first, 0, &result, &model->status), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(model->table->wait(model->model, third + 1, 0, &result, &model->status), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(model->table->wait(model->model, third, 0, &result, &model->status), SLUICE_OK);
}

TEST_F(Refusals, Setups) {
  const auto configure = [&](uint32_t kv, uint32_t size, uint32_t blocks) -> std::string {
    try {
      model->configure(8, blocks, size, static_cast<int>(kv));
    } catch (const std::runtime_error &e) {
      return e.what();
    }
    return "taken";
  };
  EXPECT_THAT(configure(SLUICE_DT_I8, 16, 4), HasSubstr("kv_dtype is 6"));
  EXPECT_THAT(configure(SLUICE_DT_F16, 4, 4), HasSubstr("block_size is 4; it must be 8..256"));
  EXPECT_THAT(configure(SLUICE_DT_F16, 16, 0), HasSubstr("device_blocks is 0"));
  EXPECT_THAT(configure(SLUICE_DT_F16, 16, 100'000'000), HasSubstr("are available"));
}

TEST_F(Refusals, AFailedConfigureLeavesNothingToSubmitTo) {
  EXPECT_THROW(model->configure(8, 100'000'000, 16, SLUICE_DT_F16), std::runtime_error);
  StepInput input({{{3}, 0, {1}, {}}}, 16);
  sluice_ticket ticket = 0;
  EXPECT_EQ(model->submit(input.step, &ticket), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_THAT(std::string(model->status.msg), HasSubstr("submit before configure"));
  model->configure(8, 10, 16, SLUICE_DT_F16);
  EXPECT_EQ(model->submit(input.step, &ticket), SLUICE_OK) << model->status.msg;
}

TEST_F(Refusals, PlansAndInfoSayWhatConfigureDoes) {
  const sluice_model_info info = model->info();
  EXPECT_STREQ(info.arch, "llama");
  EXPECT_EQ(info.vocab_size, 512u);
  EXPECT_EQ(info.n_layers, 2u);
  EXPECT_EQ(info.max_context, 512u);
  EXPECT_EQ(info.n_kv_groups, 1u);
  EXPECT_NE(info.caps & SLUICE_CAP_TREE, 0u);
  sluice_model_setup setup{};
  setup.struct_size = sizeof setup;
  setup.max_tokens_per_step = setup.max_rows_per_step = setup.max_seqs_per_step = 8;
  setup.kv_dtype = SLUICE_DT_F16;
  setup.block_size = 16;
  sluice_kv_group group{};
  group.struct_size = sizeof group;
  ASSERT_EQ(model->table->kv_groups(model->model, &setup, &group, sizeof group, nullptr), SLUICE_OK);
  EXPECT_EQ(group.bytes_per_block,
            2u * 2 * 2 * 64 * 16 * 2);  // layers, keys and values, kv heads, elements, tokens, bytes
  sluice_memory_plan plan{};
  plan.struct_size = sizeof plan;
  ASSERT_EQ(model->table->plan_memory(model->model, &setup, &plan, nullptr), SLUICE_OK);
  EXPECT_GT(plan.kv_bytes_available, 0u);
  EXPECT_GT(plan.workspace_bytes, 8u * 512 * 4);
  const uint64_t small = plan.workspace_bytes;
  setup.max_rows_per_step = 1000;
  ASSERT_EQ(model->table->plan_memory(model->model, &setup, &plan, nullptr), SLUICE_OK);
  EXPECT_GE(plan.workspace_bytes, small + 992u * 512 * 4);
}

TEST(Loading, NamesWhatIsWrong) {
  Host host(1);
  const auto load = [&](const std::string &path) -> std::string {
    try {
      PluginModel model(host, "cpu", path);
    } catch (const std::runtime_error &e) {
      return e.what();
    }
    return "loaded";
  };
  EXPECT_THAT(load("/nowhere/model.gguf"), HasSubstr("/nowhere/model.gguf"));
  Options options;
  options.text["isa"] = "amx";
  EXPECT_THROW(PluginModel(host, "cpu", tiny_model(), options), std::runtime_error);
  std::filesystem::remove(tiny_model());
}

}  // namespace
}  // namespace sluice::test

// Draft heads as auxiliary outputs of a model: what they compute, at which rows, and which files are refused.
#include "core/model_file/gguf_writer.hpp"
#include "tests/backends/plugin_model.hpp"
#include "tests/core/model_file/sample_safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>

namespace sluice::test {
namespace {

using model_file::testing::safetensors_of;
using model_file::testing::SampleTensor;
using testing::HasSubstr;

constexpr uint32_t kHidden = 8, kVocab = 20, kTop = 10;

std::vector<float> random_values(size_t n, uint32_t seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0, scale);
  std::vector<float> v(n);
  for (float &x : v) x = distribution(random);
  return v;
}

class Heads : public testing::TestWithParam<const char *> {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::filesystem::path(testing::TempDir()) / ("sluice-heads-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    std::ofstream out(model_path(), std::ios::binary);
    model_file::GgufWriter w(out);
    w.string("general.architecture", "llama");
    const std::pair<const char *, uint32_t> counts[] = {
        {"embedding_length", kHidden},  {"block_count", 1},
        {"context_length", 64},         {"attention.head_count", 2},
        {"attention.head_count_kv", 1}, {"feed_forward_length", 12}};
    for (const auto &[key, value] : counts) w.u32(std::string("llama.") + key, value);
    w.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    const std::pair<const char *, std::vector<uint64_t>> tensors[] = {
        {"token_embd.weight", {8, kVocab}},  {"output.weight", {8, kVocab}},      {"output_norm.weight", {8}},
        {"blk.0.attn_norm.weight", {8}},     {"blk.0.attn_q.weight", {8, 8}},     {"blk.0.attn_k.weight", {8, 4}},
        {"blk.0.attn_v.weight", {8, 4}},     {"blk.0.attn_output.weight", {8, 8}}, {"blk.0.ffn_norm.weight", {8}},
        {"blk.0.ffn_gate.weight", {8, 12}},  {"blk.0.ffn_up.weight", {8, 12}},    {"blk.0.ffn_down.weight", {12, 8}}};
    for (const auto &[name, dims] : tensors) ASSERT_TRUE(w.tensor(name, model_file::TensorType::kF32, dims));
    ASSERT_TRUE(w.begin());
    uint32_t seed = 0;
    for (const auto &[name, dims] : tensors) {
      const size_t n = std::accumulate(dims.begin(), dims.end(), uint64_t{1}, std::multiplies<>());
      const std::vector<float> values = random_values(n, ++seed, 0.7f);
      ASSERT_TRUE(w.write(std::as_bytes(std::span(values))));
    }
    ASSERT_TRUE(w.finish());
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_); }
  static std::string model_path() { return folder_ / "model.gguf"; }

  static std::string write_heads(const std::vector<SampleTensor> &tensors) {
    const std::string path = folder_ / "heads.safetensors";
    std::ofstream(path, std::ios::binary) << safetensors_of(tensors);
    return path;
  }
  std::unique_ptr<PluginModel> load(const std::vector<SampleTensor> &heads) {
    auto model = std::make_unique<PluginModel>(host, GetParam(), model_path(), Options{}, write_heads(heads));
    model->configure(16, 4, 16, SLUICE_DT_F32);
    return model;
  }
  /// Why a file is refused; "" when it is not.
  std::string refusal(const std::vector<SampleTensor> &heads) {
    try {
      load(heads);
    } catch (const std::runtime_error &e) {
      return e.what();
    }
    return "";
  }

  /// The heads of every row of one step.
  struct Guesses {
    std::vector<int32_t> ids;
    std::vector<float> logprobs, logits;
  };
  static Guesses run(PluginModel &m, const StepInput &input) {
    sluice_ticket ticket = 0;
    EXPECT_EQ(m.submit(input.step, &ticket), SLUICE_OK) << m.status.msg;
    sluice_step_result r{};
    r.struct_size = sizeof r;
    EXPECT_EQ(m.table->wait(m.model, ticket, UINT64_MAX, &r, &m.status), SLUICE_OK);
    const size_t n = size_t{r.n_rows} * m.info().n_heads * m.info().head_top;
    Guesses g;
    if (r.head_ids != nullptr) g.ids.assign(r.head_ids, r.head_ids + n);
    if (r.head_logprobs != nullptr) g.logprobs.assign(r.head_logprobs, r.head_logprobs + n);
    if (r.logits_host != nullptr) g.logits.assign(r.logits_host, r.logits_host + size_t{r.n_rows} * m.vocab);
    m.table->release(m.model, ticket);
    return g;
  }

  Host host{2};
  const std::vector<SequenceInput> sequences{{{5, 6, 7, 8, 9}, 0, {1}, {}}};

 private:
  static inline std::filesystem::path folder_;
};

/// An output matrix whose ten best entries say all of its input: rows e_i, then -e_i, then zeros.
SampleTensor spelling_matrix(const std::string &name) {
  SampleTensor t{name, {kVocab, kHidden}, std::vector<float>(kVocab * kHidden)};
  for (uint32_t i = 0; i < kHidden; ++i) t.values[i * kHidden + i] = 1, t.values[(kHidden + i) * kHidden + i] = -1;
  return t;
}
/// What such a matrix was given, from the entries of one head at one row.
std::vector<double> spelled(const int32_t *ids, const float *logprobs) {
  std::vector<double> x(kHidden, NAN);
  const double zero = logprobs[kTop - 1];  // eight entries are above zero, then two zeros come
  for (uint32_t k = 0; k < kHidden; ++k) {
    const auto id = static_cast<uint32_t>(ids[k]);
    EXPECT_LT(id, 2 * kHidden);
    x[id % kHidden] = (logprobs[k] - zero) * (id < kHidden ? 1 : -1);
  }
  return x;
}

TEST_P(Heads, ComputeResidualLayersOverTheFinalHiddenState) {
  // Head 0 spells what every head is given; head 1 has a layer with bias, head 2 two without.
  const std::vector<float> a = random_values(64, 40, 0.5f), b = random_values(8, 41, 0.5f),
                           c = random_values(64, 42, 0.5f), d = random_values(64, 43, 0.5f);
  const auto model = load({spelling_matrix("0.0.weight"),
                           {"1.0.linear.weight", {8, 8}, a}, {"1.0.linear.bias", {8}, b}, spelling_matrix("1.1.weight"),
                           {"2.0.linear.weight", {8, 8}, c}, {"2.1.linear.weight", {8, 8}, d}, spelling_matrix("2.2.weight")});
  ASSERT_EQ(model->info().n_heads, 3u);
  ASSERT_EQ(model->info().head_top, kTop);
  StepInput input(sequences, 16);
  std::fill(input.row_want.begin(), input.row_want.end(), static_cast<uint8_t>(SLUICE_ROW_HEADS));
  input.step.row_spec = nullptr;  // not read for heads
  const Guesses g = run(*model, input);
  ASSERT_EQ(g.ids.size(), 5u * 3 * kTop);
  const auto layer = [](const std::vector<double> &x, const std::vector<float> &w, const std::vector<float> &bias) {
    std::vector<double> out = x;
    for (uint32_t i = 0; i < kHidden; ++i) {
      double y = bias.empty() ? 0 : bias[i];
      for (uint32_t j = 0; j < kHidden; ++j) y += double{w[i * kHidden + j]} * x[j];
      out[i] += y / (1 + std::exp(-y));
    }
    return out;
  };
  for (uint32_t row = 0; row < 5; ++row) {
    const auto at = [&](uint32_t head) { return spelled(&g.ids[(row * 3 + head) * kTop], &g.logprobs[(row * 3 + head) * kTop]); };
    const std::vector<double> x = at(0), one = layer(x, a, b), two = layer(layer(x, c, {}), d, {});
    for (uint32_t i = 0; i < kHidden; ++i) {
      EXPECT_NEAR(at(1)[i], one[i], 1e-4) << row;
      EXPECT_NEAR(at(2)[i], two[i], 1e-4) << row;
    }
  }
}

TEST_P(Heads, ShareTheModelsOutputMatrixWhenTheyBringNone) {
  const auto model = load({{"0.0.linear.weight", {8, 8}, std::vector<float>(64)}});  // x + silu(0) = x
  StepInput input(sequences, 16);
  std::fill(input.row_want.begin(), input.row_want.end(),
            static_cast<uint8_t>(SLUICE_ROW_HEADS | SLUICE_ROW_LOGITS_HOST));
  const Guesses g = run(*model, input);
  for (uint32_t row = 0; row < 5; ++row) {
    const float *logits = &g.logits[row * kVocab];
    std::vector<int32_t> order(kVocab);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t i, int32_t j) { return logits[i] > logits[j]; });
    double sum = 0;
    for (uint32_t i = 0; i < kVocab; ++i) sum += std::exp(double{logits[i]});
    for (uint32_t k = 0; k < kTop; ++k) {
      EXPECT_EQ(g.ids[row * kTop + k], order[k]);
      EXPECT_NEAR(g.logprobs[row * kTop + k], logits[order[k]] - std::log(sum), 1e-4);
    }
  }
}

TEST_P(Heads, RunOnlyWhereTheyAreWanted) {
  const auto model = load({{"0.0.linear.weight", {8, 8}, random_values(64, 1, 1)},
                           {"1.0.linear.weight", {8, 8}, random_values(64, 2, 1)}});
  StepInput input(sequences, 16);
  const Guesses none = run(*model, input);
  EXPECT_TRUE(none.ids.empty());
  std::fill(input.row_want.begin(), input.row_want.end(),
            static_cast<uint8_t>(SLUICE_ROW_HEADS | SLUICE_ROW_LOGITS_HOST));
  const Guesses all = run(*model, input);
  EXPECT_EQ(all.logits, none.logits);
  input.row_want = {SLUICE_ROW_LOGITS_HOST, SLUICE_ROW_HEADS, SLUICE_ROW_LOGITS_HOST, 0, SLUICE_ROW_HEADS};
  const Guesses some = run(*model, input);
  constexpr uint32_t kEntries = 2 * kTop;
  for (uint32_t row = 0; row < 5; ++row)
    for (uint32_t i = row * kEntries; i < (row + 1) * kEntries; ++i)
      EXPECT_EQ(some.ids[i], row == 1 || row == 4 ? all.ids[i] : -1) << row;
}

TEST_P(Heads, AreAskedForOnlyWhereTheyAre) {
  PluginModel model(host, GetParam(), model_path());
  EXPECT_EQ(model.info().n_heads, 0u);
  model.configure(16, 4, 16, SLUICE_DT_F32);
  StepInput input(sequences, 16);
  input.row_want[2] = SLUICE_ROW_HEADS;
  sluice_ticket ticket = 0;
  EXPECT_EQ(model.submit(input.step, &ticket), SLUICE_E_UNSUPPORTED);
  EXPECT_THAT(model.status.msg, HasSubstr("no draft heads"));
}

TEST_P(Heads, RefusesFilesThatSayOtherwise) {
  const std::vector<float> square(64), vector(8), out(kVocab * kHidden);
  const SampleTensor good{"0.0.linear.weight", {8, 8}, square};
  EXPECT_EQ(refusal({good}), "");
  EXPECT_THAT(refusal({}), HasSubstr("no draft heads in it"));
  EXPECT_THAT(refusal({good, {"1.0.linear.bias", {8}, vector}}), HasSubstr("'1.0.linear.weight' is missing"));
  EXPECT_THAT(refusal({good, {"0.2.linear.weight", {8, 8}, square}}), HasSubstr("'0.1.linear.weight' is missing"));
  EXPECT_THAT(refusal({good, {"2.0.linear.weight", {8, 8}, square}}), HasSubstr("head 1 is missing"));
  EXPECT_THAT(refusal({good, {"0.1.weight", {kVocab, 8}, out}, {"1.0.linear.weight", {8, 8}, square}}),
              HasSubstr("head 1 has no output matrix of its own"));
  EXPECT_THAT(refusal({good, {"0.2.weight", {kVocab, 8}, out}}), HasSubstr("should stand behind the head's 1 layers"));
  EXPECT_THAT(refusal({{"0.0.linear.weight", {4, 8}, std::vector<float>(32)}}), HasSubstr("is [4,8]; this model needs [8,8]"));
  EXPECT_THAT(refusal({good, {"0.0.linear.bias", {8, 1}, vector}}), HasSubstr("is [8,1]; this model needs [8]"));
  EXPECT_THAT(refusal({good, {"0.1.weight", {8, kVocab}, out}}), HasSubstr("is [8,20]; this model needs [20,8]"));
  for (const char *name : {"model.norm.weight", "00.0.linear.weight", "0.0.linear", "-1.0.weight", "99.0.linear.weight",
                           "0.99.weight", "0..weight", "medusa_head.0.0.linear.weight"})
    EXPECT_THAT(refusal({good, {name, {8, 8}, square}}), HasSubstr("is none of Medusa heads")) << name;
}

INSTANTIATE_TEST_SUITE_P(Backends, Heads, testing::Values("reference", "cpu"));

/// The oracle and the fast one over the same heads of real shape.
TEST(HeadsOfTheShippedModel, AgreeOnReferenceAndCpu) {
  const std::filesystem::path folder = std::filesystem::path(SLUICE_SOURCE_DIR) / "examples/model";
  const std::string model = folder / "sluice-tiny-q8_0.gguf", heads = folder / "sluice-tiny-medusa.safetensors";
  if (!std::filesystem::exists(heads)) GTEST_SKIP() << "no " << heads;
  Host host(2);
  std::vector<int32_t> ids[2];
  std::vector<float> logprobs[2];
  uint32_t top = 0;
  for (const int cpu : {0, 1}) {
    PluginModel m(host, cpu == 1 ? "cpu" : "reference", model, {}, heads);
    m.configure(48, 4, 16, SLUICE_DT_F32);
    top = m.info().head_top;
    std::vector<int32_t> tokens(40);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>((i * i * 37 + 11) % m.vocab);
    StepInput input({{tokens, 0, {0, 1, 2}, {}}}, 16);
    std::fill(input.row_want.begin(), input.row_want.end(), static_cast<uint8_t>(SLUICE_ROW_HEADS));
    sluice_ticket ticket = 0;
    ASSERT_EQ(m.submit(input.step, &ticket), SLUICE_OK) << m.status.msg;
    sluice_step_result r{};
    r.struct_size = sizeof r;
    ASSERT_EQ(m.table->wait(m.model, ticket, UINT64_MAX, &r, &m.status), SLUICE_OK);
    const size_t n = size_t{r.n_rows} * m.info().n_heads * top;
    ids[cpu].assign(r.head_ids, r.head_ids + n), logprobs[cpu].assign(r.head_logprobs, r.head_logprobs + n);
    m.table->release(m.model, ticket);
  }
  size_t equal = 0, best = 0;
  for (size_t i = 0; i < ids[0].size(); i += top, ++best) {
    equal += ids[0][i] == ids[1][i];
    EXPECT_NEAR(logprobs[0][i], logprobs[1][i], 0.3);  // activations in i8 against f64
  }
  EXPECT_GE(equal, best * 9 / 10) << "of " << best << " best guesses";
}

}  // namespace
}  // namespace sluice::test

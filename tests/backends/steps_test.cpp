// What a step must keep: a row's logits whatever shares its step, whichever blocks hold its past, and what became of
// them.
#include "core/model_file/synth.hpp"
#include "tests/backends/plugin_model.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

namespace sluice::test {
namespace {

constexpr uint32_t kBlock = 16;
constexpr uint32_t kBlocks = 200;

struct Param {
  const char *backend, *isa;
  model_file::TensorType type;
  int kv_dtype;
};
std::string param_name(const testing::TestParamInfo<Param> &p) {
  return std::string(p.param.backend) + "_" + p.param.isa + "_" + std::string(model_file::type_name(p.param.type)) +
         (p.param.kv_dtype == SLUICE_DT_F16 ? "_kv16" : "_kv32");
}

std::string tiny_model(model_file::TensorType type) {
  const std::string path = testing::TempDir() + "sluice-steps-" + std::string(model_file::type_name(type)) + "-" +
                           std::to_string(getpid()) + ".gguf";
  if (!std::filesystem::exists(path)) {
    model_file::SynthOptions options;
    options.preset = "tiny";
    options.type = type;
    options.seed = 5;
    const auto written = model_file::synthesize(options, path);
    if (!written) throw std::runtime_error(written.error().message);
  }
  return path;
}

std::vector<int32_t> prompt_of(uint32_t n, uint32_t salt) {
  std::vector<int32_t> t(n);
  for (uint32_t i = 0; i < n; ++i) t[i] = static_cast<int32_t>((i * 37 + salt * 101 + i * i) % 250 + 3);
  return t;
}

std::vector<uint32_t> blocks_from(uint32_t first, uint32_t tokens) {
  std::vector<uint32_t> b((tokens + kBlock - 1) / kBlock);
  std::iota(b.begin(), b.end(), first);
  return b;
}

class Steps : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    if (std::string_view(GetParam().isa) != "none") options.text["isa"] = GetParam().isa;
    try {
      model = std::make_unique<PluginModel>(host, GetParam().backend, tiny_model(GetParam().type), options);
    } catch (const std::runtime_error &e) {
      if (std::string_view(e.what()).find("cannot be used on this machine") == std::string_view::npos) throw;
      GTEST_SKIP() << e.what();
    }
    model->configure(512, kBlocks, kBlock, GetParam().kv_dtype, 8, 128);
  }
  void TearDown() override { model.reset(); }
  std::vector<float> run(const std::vector<SequenceInput> &sequences) { return run_logits(*model, sequences, kBlock); }
  /// Logits of all tokens, fed in chunks; the last one in the row order of the prompt.
  std::vector<float> run_chunked(const std::vector<int32_t> &tokens, uint32_t chunk,
                                 const std::vector<uint32_t> &blocks) {
    std::vector<float> all;
    for (uint32_t at = 0; at < tokens.size(); at += chunk) {
      const uint32_t end = std::min<uint32_t>(at + chunk, static_cast<uint32_t>(tokens.size()));
      const std::vector<float> part = run({{{tokens.begin() + at, tokens.begin() + end}, at, blocks, {}}});
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }

  Host host{2};
  Options options;
  std::unique_ptr<PluginModel> model;
};

TEST_P(Steps, CompanyChangesNoBit) {
  const auto prompt = prompt_of(40, 1);
  const std::vector<float> alone = run({{prompt, 0, blocks_from(0, 40), {}}});
  for (const uint32_t batch : {2u, 7u, 32u}) {
    std::vector<SequenceInput> sequences;
    size_t before = 0;
    const uint32_t place = batch / 2;
    for (uint32_t s = 0; s < batch; ++s) {
      const uint32_t n = s == place ? 40 : 1 + (s * 5) % 13;
      if (s < place) before += n;
      sequences.push_back({s == place ? prompt : prompt_of(n, s + 7), 0, blocks_from(s * 4, n), {}});
    }
    const std::vector<float> together = run(sequences);
    EXPECT_TRUE(
        std::equal(alone.begin(), alone.end(), together.begin() + static_cast<ptrdiff_t>(before * model->vocab)))
        << "batch of " << batch;
  }
}

TEST_P(Steps, ChunkingChangesNoBit) {
  const auto prompt = prompt_of(70, 2);
  const std::vector<float> whole = run_chunked(prompt, 70, blocks_from(0, 70));
  for (const uint32_t chunk : {1u, 16u, 33u})
    EXPECT_EQ(whole, run_chunked(prompt, chunk, blocks_from(20, 70))) << "chunks of " << chunk;
}

TEST_P(Steps, BlockIdsMeanNothing) {
  const auto prompt = prompt_of(70, 3);
  EXPECT_EQ(run({{prompt, 0, {0, 1, 2, 3, 4}, {}}}), run({{prompt, 0, {190, 3, 77, 5, 12}, {}}}));
}

TEST_P(Steps, ThreadsChangeNoBit) {
  const auto prompt = prompt_of(50, 4);
  const std::vector<float> two = run({{prompt, 0, blocks_from(0, 50), {}}});
  for (const uint32_t workers : {1u, 5u}) {
    Host other_host(workers);
    PluginModel other(other_host, GetParam().backend, tiny_model(GetParam().type), options);
    other.configure(512, kBlocks, kBlock, GetParam().kv_dtype);
    EXPECT_EQ(two, run_logits(other, {{prompt, 0, blocks_from(0, 50), {}}}, kBlock)) << workers << " workers";
  }
}

TEST_P(Steps, TreePathsEqualTheSameTokensInARow) {
  const auto prompt = prompt_of(30, 5);
  const std::vector<uint32_t> blocks = blocks_from(0, 64);
  run({{prompt, 0, blocks, {}}});
  const std::vector<int32_t> nodes = {11, 12, 13, 14, 15, 16, 17}, parent = {-1, 0, 0, 1, 1, 2, 5};
  const std::vector<float> tree = run({{nodes, 30, blocks, parent}, {prompt_of(9, 8), 0, blocks_from(50, 9), {}}});
  const uint32_t vocab = model->vocab;
  for (uint32_t leaf = 0; leaf < nodes.size(); ++leaf) {
    std::vector<int32_t> path;
    for (int32_t n = static_cast<int32_t>(leaf); n >= 0; n = parent[static_cast<size_t>(n)])
      path.insert(path.begin(), nodes[static_cast<size_t>(n)]);
    std::vector<int32_t> row = prompt;
    row.insert(row.end(), path.begin(), path.end());
    const std::vector<float> sequential = run({{row, 0, blocks_from(100, 64), {}}});
    EXPECT_TRUE(std::equal(sequential.end() - vocab, sequential.end(), tree.begin() + leaf * vocab)) << "node " << leaf;
  }
}

TEST_P(Steps, AcceptedPathMovedTogetherContinuesAlike) {
  const auto prompt = prompt_of(30, 6);
  const std::vector<uint32_t> blocks = {7, 3, 9, 4};
  run({{prompt, 0, blocks, {}}});
  run({{{11, 12, 13, 14}, 30, blocks, {-1, 0, 0, 2}}});  // accepted: nodes 0, 2, 3
  const auto slot = [&](uint32_t cell) { return blocks[cell / kBlock] * kBlock + cell % kBlock; };
  model->kv_ops(SLUICE_KV_MOVE_SLOTS, {slot(32), slot(33)}, {slot(31), slot(32)});
  const std::vector<float> after = run({{{20}, 33, blocks, {}}});
  std::vector<int32_t> plain = prompt;
  for (const int32_t t : {11, 13, 14, 20}) plain.push_back(t);
  const std::vector<float> sequential = run({{plain, 0, blocks_from(100, 64), {}}});
  EXPECT_TRUE(std::equal(after.begin(), after.end(), sequential.end() - model->vocab));
}

TEST_P(Steps, CopyOnWriteLeavesTheOriginal) {
  const auto prompt = prompt_of(24, 7);  // one full block and half of the second
  run({{prompt, 0, {0, 1}, {}}});
  model->kv_ops(SLUICE_KV_COPY, {1}, {50});
  const std::vector<float> fork = run({{{40, 41}, 24, {0, 50}, {}}});
  const std::vector<float> original = run({{{60, 61}, 24, {0, 1}, {}}});
  EXPECT_NE(fork, original);
  const auto expected = [&](int32_t a, int32_t b) {
    std::vector<int32_t> all = prompt;
    all.push_back(a), all.push_back(b);
    const std::vector<float> y = run({{all, 0, blocks_from(100, 26), {}}});
    return std::vector<float>(y.end() - 2 * model->vocab, y.end());
  };
  EXPECT_EQ(fork, expected(40, 41));
  EXPECT_EQ(original, expected(60, 61));
}

TEST_P(Steps, SwapOutScribbleSwapIn) {
  const auto prompt = prompt_of(40, 8);
  run({{prompt, 0, {0, 1, 2}, {}}});
  model->kv_ops(SLUICE_KV_SWAP_OUT, {0, 1, 2}, {5, 0, 7});
  run({{prompt_of(48, 9), 0, {2, 0, 1}, {}}});  // overwrites all three
  model->kv_ops(SLUICE_KV_SWAP_IN, {5, 0, 7}, {30, 1, 31});
  const std::vector<float> back = run({{{77}, 40, {30, 1, 31}, {}}});
  std::vector<int32_t> all = prompt;
  all.push_back(77);
  const std::vector<float> expected = run({{all, 0, blocks_from(100, 41), {}}});
  EXPECT_TRUE(std::equal(back.begin(), back.end(), expected.end() - model->vocab));
}

TEST_P(Steps, LogitsFollowTheReference) {
  if (std::string_view(GetParam().backend) == "reference") GTEST_SKIP() << "this is the reference";
  PluginModel oracle(host, "reference", tiny_model(GetParam().type));
  oracle.configure(512, kBlocks, kBlock, GetParam().kv_dtype);
  const std::vector<SequenceInput> input = {{prompt_of(60, 10), 0, blocks_from(0, 60), {}}};
  const std::vector<float> mine = run(input), theirs = run_logits(oracle, input, kBlock);
  EXPECT_LE(nmse(mine.data(), theirs.data(), mine.size()),
            model_file::type_info(GetParam().type).block_elements > 1 ? 5e-3 : 1e-4);
}

using model_file::TensorType;
INSTANTIATE_TEST_SUITE_P(Backends, Steps,
                         testing::Values(Param{"reference", "none", TensorType::kF16, SLUICE_DT_F16},
                                         Param{"cpu", "generic", TensorType::kQ8_0, SLUICE_DT_F16},
                                         Param{"cpu", "avx2", TensorType::kQ8_0, SLUICE_DT_F32},
                                         Param{"cpu", "avx2", TensorType::kQ4_K, SLUICE_DT_F16},
                                         Param{"cpu", "avx512", TensorType::kF16, SLUICE_DT_F16},
                                         Param{"cpu", "avx512", TensorType::kQ8_0, SLUICE_DT_F16},
                                         Param{"cpu", "avx512", TensorType::kQ4_K, SLUICE_DT_F32}),
                         param_name);

/// Removes the generated models when the tests are over.
class Cleanup : public testing::Environment {
  void TearDown() override {
    for (const TensorType type : {TensorType::kF16, TensorType::kQ8_0, TensorType::kQ4_K}) {
      std::error_code ignored;
      std::filesystem::remove(testing::TempDir() + "sluice-steps-" + std::string(model_file::type_name(type)) + "-" +
                                  std::to_string(getpid()) + ".gguf",
                              ignored);
    }
  }
};
const auto *const kCleanup = testing::AddGlobalTestEnvironment(new Cleanup);

}  // namespace
}  // namespace sluice::test

// Whatever the heads guess, the tokens are those of plain decoding.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <numeric>
#include <random>

#include "tests/core/model_file/sample_safetensors.hpp"
#include "tests/plugins/decoders/medusa/decoding.hpp"

namespace sluice::test {
namespace {

/// A file of its own, gone with the object.
class File {
 public:
  File(const std::string &name, const std::string &content)
      : path_(::testing::TempDir() + "sluice-" + std::to_string(::getpid()) + "-" + name) {
    std::ofstream(path_, std::ios::binary) << content;
  }
  ~File() { std::filesystem::remove(path_); }
  const std::string &path() const { return path_; }

 private:
  const std::string path_;
};

/// Three paths side by side as deep as the oracle sees: whichever rank it chooses, one of them is right to its end.
const std::string kThreeChains = "[[0],[0,0],[0,0,0],[0,0,0,0],[1],[1,1],[1,1,1],[1,1,1,1],[2],[2,2],[2,2,2],[2,2,2,2]]";

struct Sampling {
  const char *name;
  TestConfig options;
};
const Sampling kSamplings[] = {{"greedy", {{"temperature", "0"}}},
                               {"seeded", {{"temperature", "0.8"}, {"top_p", "0.95"}}},
                               {"penalised", {{"temperature", "0.7"}, {"frequency_penalty", "0.6"}, {"presence_penalty", "0.4"}, {"repetition_penalty", "1.2"}}}};

// ---- on the mock, which refuses a step that reads a key or value of another text ----

std::vector<Tokens> mock_prompts() {
  std::vector<Tokens> prompts(12);
  std::mt19937 random(4);
  for (Tokens &p : prompts)
    for (uint32_t n = 3 + random() % 40; n > 0; --n) p.push_back(static_cast<int32_t>(random() % 40));
  return prompts;
}
Decoding on_mock(const TestConfig &sampling) {
  Decoding how;
  how.backend = "mock", how.model = "/dev/null";
  how.backend_options = {{"script", "hash"}, {"vocab_size", "40"}, {"eos_token", "-1"}, {"spread", "4"}, {"hash_tokens", "2"}};
  how.sampler_options = sampling;
  return how;
}

TEST(MedusaLossless, OracleHeadsGiveEveryTokenOfTheTreeAndMoveTheCache) {
  const File tree("tree", kThreeChains);
  const auto prompts = mock_prompts();
  for (const Sampling &sampling : kSamplings) {
    Decoding how = on_mock(sampling.options);
    how.max_new = 41;  // one from the prompt's step, then 8 times 5
    const Decoded plain = decode(how, prompts);
    ASSERT_EQ(plain.failure, "");
    const OracleHeads heads(prompts, plain.answers);
    how.decoder = "medusa";
    how.decoder_options = {{"tree_file", tree.path()}, {"adaptive", "false"}};
    const Decoded is = decode(how, prompts);
    ASSERT_EQ(is.failure, "") << sampling.name;
    EXPECT_EQ(is.answers, plain.answers) << sampling.name;
    EXPECT_EQ(is.stats.plugin_errors, 0u);
    EXPECT_DOUBLE_EQ(is.tokens_per_step(), 5.0) << sampling.name;
    EXPECT_EQ(is.stats.draft_accepted_tokens, prompts.size() * 8 * 4) << sampling.name;
    for (const uint32_t company : {5u, 12u}) {  // in company, and with the cache taken away in between
      how.company = company, how.kv_blocks = company == 12 ? 20 : 0;
      const Decoded together = decode(how, prompts);
      ASSERT_EQ(together.failure, "") << sampling.name;
      EXPECT_EQ(together.answers, plain.answers) << sampling.name << " x " << company;
      EXPECT_GT(together.stats.draft_accepted_tokens, 0u);
      EXPECT_EQ(together.stats.preemptions > 0, company == 12);
    }
  }
}

TEST(MedusaLossless, AStopTokenInsideADraftIsTheLast) {
  const File tree("stop-tree", kThreeChains);
  const auto prompts = mock_prompts();
  Decoding how = on_mock({{"temperature", "0"}});
  how.stop_tokens = {3, 17, 29};
  const Decoded plain = decode(how, prompts);
  ASSERT_EQ(plain.failure, "");
  const OracleHeads heads(prompts, plain.answers);
  how.decoder = "medusa";
  how.decoder_options = {{"tree_file", tree.path()}, {"adaptive", "false"}};
  const Decoded is = decode(how, prompts);
  ASSERT_EQ(is.failure, "");
  EXPECT_EQ(is.answers, plain.answers);
  size_t stopped = 0;
  for (const Tokens &a : plain.answers) stopped += a.size() < how.max_new;
  EXPECT_GT(stopped, 3u);
}

// ---- on the model that ships ----

/// Heads of the right shape that know nothing.
std::string random_heads(uint32_t hidden, uint32_t vocab) {
  std::mt19937 random(8);
  std::normal_distribution<float> distribution(0, 0.3f);
  std::vector<model_file::testing::SampleTensor> tensors;
  const auto add = [&](const std::string &name, std::vector<uint64_t> shape) {
    std::vector<float> values(std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>()));
    for (float &v : values) v = distribution(random);
    tensors.push_back({name, std::move(shape), std::move(values)});
  };
  for (const std::string head : {"0", "1", "2"}) {
    add(head + ".0.linear.weight", {hidden, hidden}), add(head + ".0.linear.bias", {hidden});
    add(head + ".1.weight", {vocab, hidden});
  }
  return model_file::testing::safetensors_of(tensors);
}

class OnTheShippedModel : public ::testing::TestWithParam<const char *> {
 protected:
  void SetUp() override {
    if (!model.exists) GTEST_SKIP() << "no model with heads at " << model.target;
    how.backend = GetParam(), how.model = model.target, how.heads = model.heads;
    how.stop_tokens = model.stop_tokens();
    const bool slow = how.backend == "reference";
    how.max_new = slow ? 10 : 40;
    for (const char *kind : {"story", "world", "sum", "told"})
      for (Tokens &p : model.prompts(kind, slow ? 1 : 4)) {
        if (slow && p.size() > 60) p.resize(60);
        prompts.push_back(std::move(p));
      }
  }
  void expect_plain_tokens(const Decoding &medusa, const char *what) {
    Decoding plain = medusa;
    plain.decoder = "plain", plain.decoder_options = {};
    const Decoded should = decode(plain, prompts), is = decode(medusa, prompts);
    ASSERT_EQ(should.failure, "");
    ASSERT_EQ(is.failure, "") << what;
    EXPECT_EQ(is.answers, should.answers) << what;
    EXPECT_EQ(is.stats.plugin_errors, 0u) << what;
    EXPECT_GT(is.stats.draft_tokens, 0u) << what;
    accepted = is.stats.draft_accepted_tokens, rounds = is.stats.draft_rounds;
  }

  const ShippedModel model = ShippedModel::find();
  Decoding how;
  std::vector<Tokens> prompts;
  uint64_t accepted = 0, rounds = 0;
};

TEST_P(OnTheShippedModel, ItsHeadsChangeNoToken) {
  how.decoder = "medusa";
  how.decoder_options = {{"max_nodes", "16"}, {"adaptive", "false"}};
  for (const Sampling &sampling : kSamplings) {
    if (how.backend == "reference" && sampling.options.count("presence_penalty") != 0) continue;  // it takes its time
    how.sampler_options = sampling.options;
    expect_plain_tokens(how, sampling.name);
    EXPECT_GT(accepted, 0u);
    if (how.backend == "reference" || sampling.options.count("top_p") == 0) continue;
    how.company = 6;
    expect_plain_tokens(how, "in company");
    how.company = 1;
  }
}

TEST_P(OnTheShippedModel, RandomHeadsAreLosslessAndUseless) {
  const sluice_model_info info = info_of(how);
  const File file("random-heads", random_heads(info.hidden_size, info.vocab_size));
  how.heads = file.path();
  how.decoder = "medusa";
  how.decoder_options = {{"max_nodes", "16"}, {"adaptive", "false"}};
  how.sampler_options = {{"temperature", "0"}};
  expect_plain_tokens(how, "random heads");
  EXPECT_LT(static_cast<double>(accepted), 0.1 * static_cast<double>(rounds));
}

TEST_P(OnTheShippedModel, OracleHeadsAreLosslessAndGiveTheWholeDepth) {
  const File tree("oracle-tree", kThreeChains);
  how.sampler_options = {{"temperature", "0"}};
  how.stop_tokens = {};
  how.max_new = how.backend == "reference" ? 11 : 41;
  const Decoded plain = decode(how, prompts);
  ASSERT_EQ(plain.failure, "");
  const OracleHeads heads(prompts, plain.answers);
  how.decoder = "medusa";
  how.decoder_options = {{"tree_file", tree.path()}, {"adaptive", "false"}};
  const Decoded is = decode(how, prompts);
  ASSERT_EQ(is.failure, "");
  EXPECT_EQ(is.answers, plain.answers);
  EXPECT_DOUBLE_EQ(is.tokens_per_step(), 5.0);
}

INSTANTIATE_TEST_SUITE_P(Backends, OnTheShippedModel, ::testing::Values("reference", "cpu"));

}  // namespace
}  // namespace sluice::test

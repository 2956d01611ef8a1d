#include <gtest/gtest.h>

#include "core/model_file/gguf.hpp"
#include "core/model_file/random_weights.hpp"
#include "core/model_file/synth.hpp"
#include "core/model_file/synth_vocabulary.hpp"
#include "tests/core/model_file/sample_gguf.hpp"

#include <cmath>
#include <set>

namespace sluice::model_file {
namespace {

std::vector<std::byte> tiny(TensorType type, uint64_t seed) {
  std::ostringstream out;
  const auto done = synthesize({.preset = "tiny", .type = type, .seed = seed, .progress = {}}, out);
  EXPECT_TRUE(done) << done.error().message;
  return testing::to_bytes(out.str());
}

TEST(Synth, TinyLoadsInEveryType) {
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_K, TensorType::kF16, TensorType::kF32}) {
    const auto bytes = tiny(type, 1);
    const auto file = Gguf::parse(bytes, "tiny");
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_EQ(*file->u32("llama.block_count"), 2u);
    EXPECT_EQ(*file->u32("llama.attention.head_count_kv"), 2u);
    EXPECT_EQ(file->tensors().size(), 2u * 9 + 3);
    const auto down = file->tensor("blk.1.ffn_down.weight");
    ASSERT_TRUE(down);
    EXPECT_EQ(down->type, type);
    EXPECT_EQ(down->dims, (std::array<uint64_t, 4>{512, 256, 1, 1}));
    EXPECT_EQ(file->tensor("output_norm.weight")->type, TensorType::kF32);
    EXPECT_EQ(file->strings("tokenizer.ggml.tokens")->size(), 512u);
  }
}

TEST(Synth, WeightsAreCentredWithTheDeviationPromised) {
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_K, TensorType::kF16}) {
    const auto bytes = tiny(type, 7);
    const auto file = Gguf::parse(bytes, "tiny");
    ASSERT_TRUE(file);
    const auto tensor = file->tensor("token_embd.weight");
    ASSERT_TRUE(tensor);
    std::vector<float> x(256 * 512);
    dequantize_row(type, tensor->bytes.data(), x.data(), x.size());
    double sum = 0, squares = 0;
    for (const float v : x) {
      sum += v;
      squares += double(v) * v;
    }
    EXPECT_NEAR(sum / x.size(), 0.0, 4e-4) << type_name(type);
    EXPECT_NEAR(std::sqrt(squares / x.size()), 0.02, 1.5e-3) << type_name(type);
  }
}

TEST(Synth, TheSeedDecidesEveryByte) {
  EXPECT_EQ(tiny(TensorType::kQ8_0, 5), tiny(TensorType::kQ8_0, 5));
  EXPECT_NE(tiny(TensorType::kQ8_0, 5), tiny(TensorType::kQ8_0, 6));
}

TEST(Synth, VocabulariesHaveTheSizeAndOnlyDistinctTokens) {
  for (const auto &[size, specials] :
       {std::pair{512u, SynthSpecials::kSentence}, std::pair{32000u, SynthSpecials::kSentence},
        std::pair{128256u, SynthSpecials::kLlama3}}) {
    const SynthVocabulary v = make_synth_vocabulary(size, specials);
    EXPECT_EQ(v.tokens.size(), size);
    EXPECT_EQ(v.types.size(), size);
    EXPECT_EQ(std::set<std::string>(v.tokens.begin(), v.tokens.end()).size(), size);
    EXPECT_EQ(v.types[v.bos], 3);
    EXPECT_EQ(v.types[v.eos], 3);
  }
  EXPECT_EQ(make_synth_vocabulary(128256, SynthSpecials::kLlama3).tokens[128009], "<|eot_id|>");
}

TEST(Synth, RefusesWhatItCannotMakeAndLeavesNoFile) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "synth_test.gguf";
  std::filesystem::remove(path);
  const auto unknown = synthesize({.preset = "llama-4", .type = TensorType::kQ8_0, .seed = 0, .progress = {}}, path);
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message.find("tinyllama-1.1b"), std::string::npos);
  EXPECT_FALSE(synthesize({.preset = "tiny", .type = TensorType::kQ6_K, .seed = 0, .progress = {}}, path));
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(std::filesystem::exists(path.string() + ".part"));
  uint64_t last = 0;
  uint64_t total = 0;
  const auto progress = [&](uint64_t done_bytes, uint64_t total_bytes) {
    EXPECT_GT(done_bytes, last);
    last = done_bytes;
    total = total_bytes;
  };
  ASSERT_TRUE(synthesize({.preset = "tiny", .type = TensorType::kQ8_0, .seed = 0, .progress = progress}, path));
  EXPECT_EQ(last, total);
  EXPECT_TRUE(Gguf::open(path));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace sluice::model_file

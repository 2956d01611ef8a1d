#include <gtest/gtest.h>

#include "tests/core/model_file/sample_gguf.hpp"

#include <chrono>
#include <fstream>

namespace sluice::model_file {
namespace {

using testing::sample_file;
using testing::to_bytes;

/// Bytes of a header, put together by hand so that a test can lie.
struct Lie {
  std::string bytes = "GGUF";
  template <class T>
  Lie &number(T value) {
    bytes.append(reinterpret_cast<const char *>(&value), sizeof value);
    return *this;
  }
  Lie &text(std::string_view value) { return number(uint64_t{value.size()}).raw(value); }
  Lie &raw(std::string_view value) {
    bytes += value;
    return *this;
  }
  static Lie header(uint64_t n_tensors, uint64_t n_keys) {
    return Lie().number(uint32_t{3}).number(n_tensors).number(n_keys);
  }
  Lie &tensor(std::string_view name, std::vector<uint64_t> dims, uint32_t type, uint64_t offset) {
    text(name).number(static_cast<uint32_t>(dims.size()));
    for (const uint64_t d : dims) number(d);
    return number(type).number(offset);
  }
  Lie &data(size_t n) {
    bytes.resize((bytes.size() + 31) / 32 * 32 + n);
    return *this;
  }
};

void expect_refused(const Lie &lie, std::string_view reason, Code code = Code::kInvalidArgument) {
  const auto bytes = to_bytes(lie.bytes);
  const auto file = Gguf::parse(bytes, "lie.gguf");
  ASSERT_FALSE(file) << reason;
  EXPECT_EQ(file.error().code, code) << file.error().message;
  EXPECT_NE(file.error().message.find(reason), std::string::npos) << file.error().message;
  EXPECT_EQ(file.error().message.find("lie.gguf"), 0u) << file.error().message;
}

TEST(Gguf, ReadsWhatTheWriterWrote) {
  const auto bytes = to_bytes(sample_file());
  const auto file = Gguf::parse(bytes, "sample");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->version(), 3u);
  EXPECT_EQ(file->keys().size(), 7u);
  EXPECT_EQ(file->keys()[0], "general.architecture");
  EXPECT_EQ(*file->string("general.architecture"), "llama");
  EXPECT_EQ(*file->u32("llama.block_count"), 2u);
  EXPECT_EQ(*file->u64("llama.block_count"), 2u);
  EXPECT_EQ(*file->f32("llama.rope.freq_base"), 10000.0f);
  EXPECT_EQ(*file->f32("llama.block_count"), 2.0f);
  EXPECT_TRUE(*file->boolean("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(*file->strings("tokenizer.ggml.tokens"), (std::vector<std::string_view>{"alpha", "", "gamma"}));
  EXPECT_EQ(*file->floats("tokenizer.ggml.scores"), (std::vector<float>{0.5f, -1.0f, 2.0f}));
  EXPECT_EQ(*file->ints("tokenizer.ggml.token_type"), (std::vector<int32_t>{1, -3, 6}));
  EXPECT_EQ(*file->u32_or("missing", 9), 9u);
  EXPECT_EQ(*file->string_or("missing", "none"), "none");

  ASSERT_EQ(file->tensors().size(), 3u);
  const auto super = file->tensor("super");
  ASSERT_TRUE(super);
  EXPECT_EQ(super->type, TensorType::kQ6_K);
  EXPECT_EQ(super->dims, (std::array<uint64_t, 4>{256, 1, 2, 1}));
  EXPECT_EQ(super->bytes.size(), 420u);
  EXPECT_EQ(super->bytes[419], std::byte{7});
  EXPECT_EQ(file->find_tensor("nothing"), nullptr);
}

TEST(Gguf, NamesTheKeyAndTheTypeItWanted) {
  const auto bytes = to_bytes(sample_file());
  const auto file = Gguf::parse(bytes, "sample");
  ASSERT_TRUE(file);
  const auto message = [](const auto &result) { return result ? std::string() : result.error().message; };
  EXPECT_EQ(message(file->u32("llama.head_count")), "sample: the file has no metadata key 'llama.head_count'");
  EXPECT_EQ(file->u32("llama.head_count").error().code, Code::kNotFound);
  EXPECT_EQ(message(file->u32("general.architecture")), "sample: metadata 'general.architecture' must be an integer");
  EXPECT_EQ(message(file->u32_or("tokenizer.ggml.tokens", 1)),
            "sample: metadata 'tokenizer.ggml.tokens' must be an integer");
  EXPECT_EQ(message(file->strings("tokenizer.ggml.scores")),
            "sample: metadata 'tokenizer.ggml.scores' must be an array of strings");
  EXPECT_EQ(message(file->string("llama.block_count")), "sample: metadata 'llama.block_count' must be a string");
  EXPECT_EQ(message(file->boolean("llama.block_count")), "sample: metadata 'llama.block_count' must be a boolean");
  EXPECT_EQ(message(file->floats("tokenizer.ggml.tokens")),
            "sample: metadata 'tokenizer.ggml.tokens' must be an array of numbers");
}

TEST(Gguf, IntegersOfEveryWidthAreTakenWhenTheyFit) {
  auto lie = Lie::header(0, 4);
  lie.text("a").number(uint32_t{10}).number(uint64_t{5} << 32);  // u64
  lie.text("b").number(uint32_t{5}).number(int32_t{-4});         // i32
  lie.text("c").number(uint32_t{0}).number(uint8_t{200});        // u8
  lie.text("d").number(uint32_t{9}).number(uint32_t{5}).number(uint64_t{1}).number(int32_t{-7});
  const auto bytes = to_bytes(lie.bytes);
  const auto file = Gguf::parse(bytes, "f");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(*file->u64("a"), uint64_t{5} << 32);
  EXPECT_EQ(file->u32("a").error().message, "f: metadata 'a' is 21474836480; it must be 0..4294967295");
  EXPECT_EQ(file->u32("b").error().message, "f: metadata 'b' is -4; it must be 0..4294967295");
  EXPECT_EQ(*file->f32("b"), -4.0f);
  EXPECT_EQ(*file->u32("c"), 200u);
  EXPECT_EQ(file->ints("d")->at(0), -7);
}

TEST(Gguf, RefusesWhatIsNoGguf) {
  expect_refused(Lie{"GGU"}, "not a GGUF file");
  expect_refused(Lie{"PK\x03\x04 and so on"}, "not a GGUF file");
  expect_refused(Lie().number(uint32_t{1}).number(uint64_t{0}).number(uint64_t{0}), "version 1", Code::kUnsupported);
  expect_refused(Lie().number(uint32_t{0x03000000}), "big-endian", Code::kUnsupported);
  EXPECT_EQ(Gguf::open("/nonexistent/model.gguf").error().code, Code::kNotFound);
  EXPECT_FALSE(Gguf::open("/dev/null"));
  EXPECT_FALSE(Gguf::open("/"));
}

TEST(Gguf, RefusesCountsAndLengthsBeyondTheFile) {
  expect_refused(Lie::header(0, uint64_t{1} << 63), "metadata keys are claimed");
  expect_refused(Lie::header(~uint64_t{0}, 0), "tensors are claimed");
  expect_refused(Lie::header(0, 1).number(~uint64_t{0}).raw(std::string(64, 'k')), "claims 18446744073709551615 bytes");
  expect_refused(Lie::header(0, 1).number(uint64_t{100}).raw(std::string(64, 'k')), "truncated");
  expect_refused(Lie::header(0, 1).text("k").number(uint32_t{9}).number(uint32_t{6}).number(uint64_t{1} << 62),
                 "claims");
  expect_refused(Lie::header(0, 1).text("k").number(uint32_t{9}).number(uint32_t{8}).number(uint64_t{1} << 61),
                 "strings");
}

TEST(Gguf, RefusesOddMetadata) {
  expect_refused(Lie::header(0, 1).text("k").number(uint32_t{13}).raw("12345678"), "metadata type 13");
  expect_refused(
      Lie::header(0, 1).text("k").number(uint32_t{9}).number(uint32_t{9}).number(uint64_t{1}).raw("123456789012"),
      "array of arrays");
  expect_refused(Lie::header(0, 1).text("k").number(uint32_t{7}).number(uint8_t{2}), "neither 0 nor 1");
  expect_refused(Lie::header(0, 1).text("").number(uint32_t{4}).number(uint32_t{2}), "is empty");
  expect_refused(Lie::header(0, 2)
                     .text("k")
                     .number(uint32_t{4})
                     .number(uint32_t{2})
                     .text("k")
                     .number(uint32_t{4})
                     .number(uint32_t{2}),
                 "'k' appears twice");
  expect_refused(Lie::header(0, 1).text("general.alignment").number(uint32_t{4}).number(uint32_t{24}), "power of two");
  expect_refused(Lie::header(0, 1).text("general.alignment").number(uint32_t{4}).number(uint32_t{0}), "power of two");
  expect_refused(Lie::header(0, 1).text("general.alignment").number(uint32_t{4}).number(uint32_t{0x80000000}),
                 "power of two");
}

TEST(Gguf, RefusesTensorsThatDoNotFit) {
  expect_refused(Lie::header(1, 0).tensor("t", {(uint64_t{1} << 42) + 1, 1u << 22}, 0, 0).data(64), "beyond the end");
  expect_refused(Lie::header(1, 0).tensor("t", {uint64_t{1} << 62, 4}, 0, 0).data(64), "64 bits");
  expect_refused(Lie::header(1, 0).tensor("t", {1u << 31, 1u << 31, 1u << 31, 4}, 0, 0).data(64), "beyond the end");
  expect_refused(Lie::header(1, 0).tensor("t", {17}, 0, 0).data(64), "beyond the end");
  expect_refused(Lie::header(1, 0).tensor("t", {4}, 0, ~uint64_t{31}).data(64), "beyond the end");
  expect_refused(Lie::header(1, 0).tensor("t", {4}, 0, 8).data(64), "no multiple of 32");
  expect_refused(Lie::header(1, 0).tensor("t", {33}, 8, 0).data(64), "whole number");
  expect_refused(Lie::header(1, 0).tensor("t", {0}, 0, 0).data(64), "dimension of 0");
  expect_refused(Lie::header(1, 0).tensor("t", {1, 1, 1, 1, 1}, 0, 0).data(64), "5 dimensions");
  expect_refused(Lie::header(1, 0).tensor("", {4}, 0, 0).data(64), "no name");
  expect_refused(Lie::header(2, 0).tensor("t", {4}, 0, 0).tensor("t", {4}, 0, 32).data(64), "appears twice");
  expect_refused(Lie::header(2, 0).tensor("a", {9}, 0, 0).tensor("b", {4}, 0, 32).data(64), "overlap");
  expect_refused(Lie::header(1, 0).tensor("t", {32}, 2 + 4, 0).data(64), "Q5_0", Code::kUnsupported);
  expect_refused(Lie::header(1, 0).tensor("t\n\xff", {32}, 77, 0).data(64), "t\\x0a\\xff", Code::kUnsupported);
}

TEST(Gguf, MappedFileSurvivesAMoveAndNoticesAChange) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "gguf_test_mapped.gguf";
  std::ofstream(path, std::ios::binary) << sample_file();
  auto opened = Gguf::open(path);
  ASSERT_TRUE(opened) << opened.error().message;
  const Gguf file = std::move(*opened);
  EXPECT_EQ(*file.string("general.architecture"), "llama");
  EXPECT_TRUE(file.check_unchanged());
  std::ofstream(path, std::ios::binary | std::ios::app) << "more";
  EXPECT_FALSE(file.check_unchanged());
  std::filesystem::remove(path);
}

TEST(Gguf, LoadsEveryRealVocabularyQuickly) {
  const std::filesystem::path folder = SLUICE_SHARED_DATA "/tokenizers";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  for (const char *name : {"llama-bpe", "llama-spm", "gpt-2", "qwen2", "phi-3"}) {
    const auto begin = std::chrono::steady_clock::now();
    const auto file = Gguf::open(folder / (std::string("ggml-vocab-") + name + ".gguf"));
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_GT(file->strings("tokenizer.ggml.tokens")->size(), 30000u);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    std::printf("  %s: %.1f ms\n", name, took.count());
    EXPECT_LT(took.count(), 2000) << "ten times the figure we promise, for a loaded machine";
  }
}

}  // namespace
}  // namespace sluice::model_file

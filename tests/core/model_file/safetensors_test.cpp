#include "core/model_file/safetensors.hpp"

#include "tests/core/model_file/sample_gguf.hpp"
#include "tests/core/model_file/sample_safetensors.hpp"

#include <gtest/gtest.h>

#include <random>

namespace sluice::model_file {
namespace {

using testing::safetensors_of;
using testing::to_bytes;

/// Two tensors and a name with an escape; 2 * 3 * 4 + 2 * 2 bytes.
const std::string kHeader =
    R"({"__metadata__":{"format":"pt"},"b\u002e1":{"dtype":"F16","shape":[2],"data_offsets":[24,28]},)"
    R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}  )";
std::string sample() { return safetensors_of(kHeader, std::string(28, '\x11')); }

/// What the reader says to a file of this header and n bytes of data; "" when it takes it.
std::string refusal(const std::string &header, size_t n) {
  const auto bytes = to_bytes(safetensors_of(header, std::string(n, '\0')));
  const auto file = Safetensors::parse(bytes, "heads");
  return file ? "" : file.error().message;
}
std::string one(const std::string &dtype, const std::string &shape, const std::string &offsets) {
  return R"({"x":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

TEST(Safetensors, FindsTensorsInTheOrderOfTheData) {
  const auto bytes = to_bytes(sample());
  auto parsed = Safetensors::parse(bytes, "heads");
  ASSERT_TRUE(parsed) << parsed.error().message;
  const Safetensors file = std::move(*parsed);
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "a");
  EXPECT_EQ(file.tensors()[1].name, "b.1");
  const Tensor *a = file.find_tensor("a"), *b = file.find_tensor("b.1");
  ASSERT_TRUE(a != nullptr && b != nullptr);
  EXPECT_EQ(a->n_dims, 2u);
  EXPECT_EQ(a->dims[0], 3u);  // the contiguous one first
  EXPECT_EQ(a->dims[1], 2u);
  EXPECT_EQ(a->bytes.size(), 24u);
  EXPECT_EQ(b->type, TensorType::kF16);
  EXPECT_EQ(b->bytes.data(), a->bytes.data() + 24);
  EXPECT_EQ(file.find_tensor("c"), nullptr);
}

TEST(Safetensors, RefusesWhatDoesNotAddUp) {
  EXPECT_EQ(refusal(one("F32", "[2,2]", "[0,16]"), 16), "");
  EXPECT_EQ(refusal(one("BF16", "[]", "[0,2]"), 2), "");
  EXPECT_NE(refusal(one("F32", "[2,2]", "[0,15]"), 16).find("15 bytes; its shape and dtype take 16"), std::string::npos);
  EXPECT_NE(refusal(one("F32", "[2,2]", "[8,24]"), 16).find("truncated"), std::string::npos);
  EXPECT_NE(refusal(one("F32", "[2,2]", "[16,0]"), 16).find("[16, 0)"), std::string::npos);
  EXPECT_NE(refusal(one("F32", "[2,2]", "[4,20]"), 20).find("a gap before tensor 'x'"), std::string::npos);
  EXPECT_NE(refusal(one("F32", "[2,2]", "[0,16]"), 20).find("4 bytes behind"), std::string::npos);
  EXPECT_NE(refusal(one("F32", "[2,0]", "[0,0]"), 0).find("dimension of 0"), std::string::npos);
  EXPECT_NE(refusal(one("F32", "[4294967296,4294967296]", "[0,0]"), 0).find("larger than any file"), std::string::npos);
  EXPECT_NE(refusal(one("F32", "[1,1,1,1,1]", "[0,4]"), 4).find("5 dimensions"), std::string::npos);
  EXPECT_NE(refusal(one("I64", "[1]", "[0,8]"), 8).find("dtype I64"), std::string::npos);
  for (const char *wrong : {"[-1]", "[1.0]", "[\"1\"]", "4", "[9223372036854775808]"})
    EXPECT_NE(refusal(one("F32", wrong, "[0,4]"), 4), "") << wrong;
  for (const char *wrong : {"[0]", "[0,4,4]", "[-4,0]", "[0,1e3]", "{}"})
    EXPECT_NE(refusal(one("F32", "[1]", wrong), 4), "") << wrong;
  for (const char *wrong : {"", "[]", "{", "{}x", "{\"x\":1}", "{\"x\":{}}", "{\"\":{}}", "\xff"})
    EXPECT_NE(refusal(wrong, 4), "") << wrong;
  EXPECT_NE(refusal("{\"x\":" + std::string(100, '[') + std::string(100, ']') + "}", 0).find("JSON"), std::string::npos);
}

TEST(Safetensors, NoTensorMayStandTwiceOrInAnother) {
  const std::string two = R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                          R"("y":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})";
  EXPECT_NE(refusal(two, 12).find("an overlap before tensor 'y'"), std::string::npos);
  const std::string twice = R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                            R"("x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
  EXPECT_NE(refusal(twice, 8).find("a gap"), std::string::npos);  // the later one wins, and leaves a hole
}

TEST(Safetensors, HeaderLengthsAreNotTrusted) {
  for (const uint64_t length : {~uint64_t{0}, uint64_t{1} << 63, SafetensorsLimits::kHeaderBytes + 1, uint64_t{200}}) {
    std::string text = sample();
    std::memcpy(text.data(), &length, sizeof length);
    const auto bytes = to_bytes(text);
    EXPECT_FALSE(Safetensors::parse(bytes, "heads")) << length;
  }
}

/// Whatever the bytes, a file that can be read in full, or an error; under a sanitizer this is proof.
bool safetensors_survive(const std::string &text) {
  const auto bytes = to_bytes(text);
  const auto file = Safetensors::parse(bytes, "hostile");
  if (!file) {
    EXPECT_FALSE(file.error().message.empty());
    return false;
  }
  uint64_t sum = 0;
  for (const Tensor &t : file->tensors()) {
    for (const std::byte b : t.bytes) sum += std::to_integer<uint64_t>(b);
    std::vector<float> row(t.dims[0]);
    dequantize_row(t.type, t.bytes.data(), row.data(), row.size());
  }
  return sum != 1;
}

TEST(SafetensorsHostile, EveryTruncationIsRefused) {
  const std::string whole = sample();
  ASSERT_TRUE(safetensors_survive(whole));
  for (size_t n = 0; n < whole.size(); ++n) ASSERT_FALSE(safetensors_survive(whole.substr(0, n))) << n;
}

TEST(SafetensorsHostile, EveryByteReplaced) {
  const std::string whole = sample();
  size_t loaded = 0;
  for (size_t at = 0; at < whole.size(); ++at)
    for (const char c : {'\0', '0', '9', '-', '"', '[', ']', '{', '}', ',', '\\', '\xff'}) {
      std::string changed = whole;
      changed[at] = c;
      loaded += safetensors_survive(changed);
    }
  EXPECT_GT(loaded, 0u);  // the data may be anything
}

TEST(SafetensorsHostile, TwentyThousandRandomMutations) {
  const std::string whole = sample();
  std::mt19937_64 random(1);
  for (int i = 0; i < 20'000; ++i) {
    std::string changed = whole;
    for (uint64_t n = 1 + random() % 4; n > 0 && !changed.empty(); --n) {
      const size_t at = random() % changed.size();
      switch (random() % 4) {
        case 0: changed[at] = static_cast<char>(random()); break;
        case 1: changed[at] = static_cast<char>('0' + random() % 10); break;
        case 2: changed.erase(at, 1 + random() % 9); break;
        default: changed.insert(at, changed.substr(random() % changed.size(), 1 + random() % 30)); break;
      }
    }
    safetensors_survive(changed);
  }
}

}  // namespace
}  // namespace sluice::model_file

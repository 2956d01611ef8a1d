#include <gtest/gtest.h>

#include "core/model_file/formats.hpp"
#include "core/model_file/gguf.hpp"
#include "core/model_file/quantized_blocks.hpp"

#include <cmath>
#include <filesystem>
#include <limits>
#include <random>
#include <vector>

namespace sluice::model_file {
namespace {

std::vector<float> decode(TensorType type, const std::vector<uint8_t> &block) {
  std::vector<float> out(type_info(type).block_elements);
  EXPECT_EQ(block.size(), type_info(type).block_bytes);
  dequantize_row(type, reinterpret_cast<const std::byte *>(block.data()), out.data(), out.size());
  return out;
}

TEST(Formats, HalfSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = f16_to_f32(half);
    const uint16_t back = f32_to_f16(value);
    ASSERT_TRUE(std::isnan(value) ? std::isnan(f16_to_f32(back)) : back == half) << bits;
    const float wide = bf16_to_f32(half);
    ASSERT_TRUE(std::isnan(wide) || f32_to_bf16(wide) == half) << bits;
  }
  EXPECT_EQ(f16_to_f32(0x3c00), 1.0f);
  EXPECT_EQ(f16_to_f32(0x0001), 0x1p-24f);
  EXPECT_EQ(f16_to_f32(0xfbff), -65504.0f);
}

TEST(Formats, HalfRoundsToNearestEven) {
  EXPECT_EQ(f32_to_f16(1.0f + 0x1p-11f), 0x3c00);    // a tie goes to the even one
  EXPECT_EQ(f32_to_f16(1.0f + 0x1.8p-10f), 0x3c02);  // and so upwards here
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0x0000);
  EXPECT_EQ(f32_to_f16(0x1.8p-25f), 0x0001);
  EXPECT_EQ(f32_to_f16(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(f32_to_bf16(1.0f + 0x1.8p-7f), 0x3f82);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::nanf("")))));
}

TEST(Formats, Q8_0IsScaleTimesInteger) {
  std::vector<uint8_t> block = {0x00, 0x38};  // 0.5
  for (int i = 0; i < 32; ++i) block.push_back(static_cast<uint8_t>(i - 16));
  const auto out = decode(TensorType::kQ8_0, block);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(out[i], 0.5f * (i - 16));
}

TEST(Formats, Q4_0HasTheSecondHalfInTheHighNibbles) {
  std::vector<uint8_t> block = {0x00, 0xc0};  // -2
  for (int i = 0; i < 16; ++i) block.push_back(static_cast<uint8_t>(i | ((15 - i) << 4)));
  const auto out = decode(TensorType::kQ4_0, block);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(out[i], -2.0f * (i - 8));
    EXPECT_EQ(out[i + 16], -2.0f * (7 - i));
  }
}

TEST(Formats, Q4_KScalesPackAndUnpack) {
  Q4KScales s{};
  for (int j = 0; j < 8; ++j) {
    s.scale[j] = static_cast<uint8_t>(7 * j + 9);
    s.minimum[j] = static_cast<uint8_t>(63 - 8 * j);
  }
  uint8_t packed[12];
  pack_q4_k_scales(s, packed);
  const Q4KScales back = unpack_q4_k_scales(packed);
  for (int j = 0; j < 8; ++j) {
    EXPECT_EQ(back.scale[j], s.scale[j]);
    EXPECT_EQ(back.minimum[j], s.minimum[j]);
  }
  EXPECT_EQ(packed[8] & 15, s.scale[4] & 15);
  EXPECT_EQ(packed[0] >> 6, s.scale[4] >> 4);
  EXPECT_EQ(packed[8] >> 4, s.minimum[4] & 15);
  EXPECT_EQ(packed[4] >> 6, s.minimum[4] >> 4);
}

double nmse(const std::vector<float> &got, const std::vector<float> &want) {
  double error = 0, power = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (double(got[i]) - want[i]) * (double(got[i]) - want[i]);
    power += double(want[i]) * want[i];
  }
  return error / power;
}

TEST(Formats, QuantisingLosesLittle) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> x(2048);
  for (float &v : x) v = normal(random);
  const struct {
    TensorType type;
    double limit;
  } cases[] = {{TensorType::kF32, 0},     {TensorType::kF16, 1e-7},    {TensorType::kBF16, 1e-5},
               {TensorType::kQ8_0, 1e-4}, {TensorType::kQ4_0, 1.2e-2}, {TensorType::kQ4_K, 8e-3},
               {TensorType::kQ6_K, 6e-4}};
  for (const auto &c : cases) {
    std::vector<std::byte> encoded(row_bytes(c.type, x.size()).value());
    std::vector<float> back(x.size());
    quantize_row(c.type, x.data(), encoded.data(), x.size());
    dequantize_row(c.type, encoded.data(), back.data(), back.size());
    EXPECT_LE(nmse(back, x), c.limit) << type_name(c.type);
  }
}

TEST(Formats, ZerosStayZeros) {
  const std::vector<float> zeros(256, 0.0f);
  for (const TypeInfo &info : all_types()) {
    std::vector<std::byte> encoded(row_bytes(info.type, 256).value());
    std::vector<float> back(256, 1.0f);
    quantize_row(info.type, zeros.data(), encoded.data(), 256);
    dequantize_row(info.type, encoded.data(), back.data(), 256);
    EXPECT_EQ(back, zeros) << info.name;
  }
}

/// The golden models hold the same weights in every format, encoded by another implementation.
TEST(Formats, DecodesWhatAnotherImplementationEncoded) {
  const std::filesystem::path folder = SLUICE_SHARED_DATA "/golden";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  const auto exact = Gguf::open(folder / "llama.gguf");
  ASSERT_TRUE(exact) << exact.error().message;
  const struct {
    const char *name;
    TensorType type;
    double limit;
  } cases[] = {{"F16", TensorType::kF16, 1e-7},   {"BF16", TensorType::kBF16, 1e-5}, {"Q8_0", TensorType::kQ8_0, 1e-4},
               {"Q4_0", TensorType::kQ4_0, 2e-2}, {"Q4_K", TensorType::kQ4_K, 1e-2}, {"Q6_K", TensorType::kQ6_K, 6e-4}};
  for (const auto &c : cases) {
    const auto file = Gguf::open(folder / (std::string("llama-") + c.name + ".gguf"));
    ASSERT_TRUE(file) << file.error().message;
    size_t compared = 0;
    for (const Tensor &tensor : file->tensors()) {
      if (tensor.type != c.type) continue;
      const auto want = exact->tensor(tensor.name);
      ASSERT_TRUE(want);
      const size_t n = tensor.dims[0] * tensor.dims[1];
      std::vector<float> a(n), b(n);
      dequantize_row(tensor.type, tensor.bytes.data(), a.data(), n);
      dequantize_row(want->type, want->bytes.data(), b.data(), n);
      EXPECT_LE(nmse(a, b), c.limit) << c.name << " " << tensor.name;
      ++compared;
    }
    EXPECT_GT(compared, 10u) << c.name;
  }
}

TEST(Formats, NamesAndRowBytes) {
  EXPECT_EQ(type_from_name("q4_k"), TensorType::kQ4_K);
  EXPECT_EQ(type_from_name("Q4_K_M"), std::nullopt);
  EXPECT_EQ(type_from_id(14), TensorType::kQ6_K);
  EXPECT_EQ(type_from_id(3), std::nullopt);
  EXPECT_EQ(*row_bytes(TensorType::kQ4_K, 512), 288u);
  EXPECT_FALSE(row_bytes(TensorType::kQ4_K, 500));
  EXPECT_FALSE(row_bytes(TensorType::kF32, ~uint64_t{0}));
  EXPECT_EQ(ggml_type_name(39), "MXFP4");
  EXPECT_EQ(ggml_type_name(40000), "unknown");
}

}  // namespace
}  // namespace sluice::model_file

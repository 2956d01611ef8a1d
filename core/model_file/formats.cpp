#include "core/model_file/formats.hpp"

#include "core/model_file/checked.hpp"

#include <fmt/format.h>
#include <array>
#include <cassert>

namespace sluice::model_file {
namespace {

constexpr TypeInfo kTypes[] = {
    {TensorType::kF32, "f32", 1, 4},       {TensorType::kF16, "f16", 1, 2},     {TensorType::kBF16, "bf16", 1, 2},
    {TensorType::kQ8_0, "q8_0", 32, 34},   {TensorType::kQ4_0, "q4_0", 32, 18}, {TensorType::kQ4_K, "q4_k", 256, 144},
    {TensorType::kQ6_K, "q6_k", 256, 210},
};

constexpr std::array<std::string_view, 40> kGgmlNames = {
    "F32",    "F16",      "Q4_0",     "Q4_1",     "Q4_2",  "Q4_3",  "Q5_0",       "Q5_1",       "Q8_0",       "Q8_1",
    "Q2_K",   "Q3_K",     "Q4_K",     "Q5_K",     "Q6_K",  "Q8_K",  "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",    "IQ1_S",
    "IQ4_NL", "IQ3_S",    "IQ2_S",    "IQ4_XS",   "I8",    "I16",   "I32",        "I64",        "F64",        "IQ1_M",
    "BF16",   "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0", "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",
};

}  // namespace

std::span<const TypeInfo> all_types() { return kTypes; }

const TypeInfo &type_info(TensorType type) {
  for (const TypeInfo &info : kTypes)
    if (info.type == type) return info;
  assert(!"a TensorType outside its enumerators");
  return kTypes[0];
}

std::string_view type_name(TensorType type) { return type_info(type).name; }

std::optional<TensorType> type_from_id(uint32_t ggml_id) {
  for (const TypeInfo &info : kTypes)
    if (static_cast<uint32_t>(info.type) == ggml_id) return info.type;
  return std::nullopt;
}

std::optional<TensorType> type_from_name(std::string_view name) {
  for (const TypeInfo &info : kTypes)
    if (info.name == name) return info.type;
  return std::nullopt;
}

std::string_view ggml_type_name(uint32_t ggml_id) {
  return ggml_id < kGgmlNames.size() ? kGgmlNames[ggml_id] : std::string_view("unknown");
}

Result<uint64_t> row_bytes(TensorType type, uint64_t n_elements) {
  const TypeInfo &info = type_info(type);
  if (n_elements % info.block_elements != 0)
    return invalid_argument(fmt::format("a row of {} elements is no whole number of {} blocks of {}", n_elements,
                                        info.name, info.block_elements));
  uint64_t bytes = 0;
  if (!checked_mul(n_elements / info.block_elements, info.block_bytes, bytes))
    return invalid_argument(fmt::format("a row of {} {} elements exceeds 64 bits of bytes", n_elements, info.name));
  return bytes;
}

uint16_t f32_to_f16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u | static_cast<uint16_t>((magnitude >> 13) & 0x1ffu);
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // rounds to 65536 or beyond
  if (magnitude < 0x38800000u) {                        // below 2^-14: a multiple of 2^-24
    float rest;
    std::memcpy(&rest, &magnitude, sizeof rest);
    rest += 0.5f;  // 0.5 has an ulp of 2^-24, so the addition rounds to nearest even for us
    uint32_t rounded;
    std::memcpy(&rounded, &rest, sizeof rounded);
    return sign | static_cast<uint16_t>(rounded - 0x3f000000u);
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return sign | static_cast<uint16_t>((magnitude - (112u << 23) + 0xfffu + odd) >> 13);
}

uint16_t f32_to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace sluice::model_file

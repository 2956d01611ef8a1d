#pragma once
#include "core/base/error.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

namespace sluice::model_file {

/// How the elements of a tensor are stored. The value is ggml's type id, as a GGUF file has it.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ6_K = 14,
  kBF16 = 30,
};

/// A row is a whole number of blocks; a block of block_elements neighbouring elements takes block_bytes.
struct TypeInfo {
  TensorType type;
  std::string_view name;  ///< lower case, as `--type` takes it: "q8_0"
  uint32_t block_elements;
  uint32_t block_bytes;
};

std::span<const TypeInfo> all_types();
const TypeInfo &type_info(TensorType type);
std::string_view type_name(TensorType type);
std::optional<TensorType> type_from_id(uint32_t ggml_id);
std::optional<TensorType> type_from_name(std::string_view name);

/// The name of any ggml type id that exists, also of those not supported here; "type 77" is "unknown".
std::string_view ggml_type_name(uint32_t ggml_id);

/// Bytes of a row of n_elements.
/// errors  kInvalidArgument  not a whole number of blocks, or more bytes than 64 bits count.
Result<uint64_t> row_bytes(TensorType type, uint64_t n_elements);

/// Decodes one row exactly: every product and sum rounded to f32 once, in the order of the format's definition.
///
/// source  row_bytes(type, n_elements) bytes; any alignment
/// out     [n_elements] f32
void dequantize_row(TensorType type, const std::byte *source, float *out, size_t n_elements);

/// Encodes one row; rounds to nearest, without a search for the best scales.
///
/// source  [n_elements] f32, finite
/// out     row_bytes(type, n_elements) bytes; any alignment
void quantize_row(TensorType type, const float *source, std::byte *out, size_t n_elements);

// IEEE half and bfloat16 from and to f32: round to nearest even, infinities kept, NaN stays NaN (quiet).

inline float f16_to_f32(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t rest = half & 0x7fffu;
  uint32_t bits;
  float value;
  if (rest >= 0x7c00) {  // infinity, NaN
    bits = sign | 0x7f800000u | (rest << 13);
  } else if (rest >= 0x0400) {  // normal: the exponent bias moves from 15 to 127
    bits = sign | ((rest << 13) + (112u << 23));
  } else {  // subnormal: exact in f32
    value = static_cast<float>(rest) * 0x1p-24f;
    std::memcpy(&bits, &value, sizeof bits);
    bits |= sign;
  }
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint16_t f32_to_f16(float value);

inline float bf16_to_f32(uint16_t half) {
  const uint32_t bits = uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint16_t f32_to_bf16(float value);

}  // namespace sluice::model_file

#pragma once
#include "core/model_file/formats.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace sluice::model_file {

/// A tensor's place in a file.
/// dims   the contiguous dimension first; unused ones are 1; every one is at least 1
/// bytes  row_bytes(type, dims[0]) * the other dims; inside the file; shared with no other tensor
struct Tensor {
  std::string_view name;
  TensorType type = TensorType::kF32;
  uint32_t n_dims = 1;
  std::array<uint64_t, 4> dims{1, 1, 1, 1};
  std::span<const std::byte> bytes;
};

}  // namespace sluice::model_file

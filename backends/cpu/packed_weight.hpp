// Weights in the order in which the kernels read them: see Layout in kernels/kernel_table.h.
#pragma once
#include "backends/cpu/kernels/kernel_table.h"
#include "backends/graph/host_memory.hpp"

#include <cstddef>

namespace sluice::cpu {

Layout layout_of(model_file::TensorType type);
inline uint32_t tiles_of(uint64_t rows) { return static_cast<uint32_t>((rows + kTileRows - 1) / kTileRows); }
/// Bytes of one tile of rows of n_inputs.
uint64_t tile_bytes(Layout layout, uint64_t n_inputs);

/// Writes tile `tile` of a matrix. Rows past the last are zeros, which give outputs of 0.
/// to  [tile_bytes], zeroed
void pack_tile(const graph::WeightSegment &from, uint64_t n_inputs, uint32_t tile, std::byte *to);

/// Row `row` of a packed tile as f32, for tests: exactly the values of dequantize_row.
void unpack_row(Layout layout, const std::byte *tile, uint32_t row, uint64_t n_inputs, float *out);

}  // namespace sluice::cpu

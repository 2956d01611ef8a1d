#pragma once
#include "backends/graph/model_builder.hpp"
#include "core/model_file/safetensors.hpp"

namespace sluice::graph {

/// Candidates of each head that a step returns.
constexpr uint32_t kHeadTop = 10;

/// Appends Medusa heads (arXiv:2401.10774) to a built model: from what the output matrix is given at a row, head i names
/// the token i + 1 places behind the one that the row chooses.
///
/// The tensors say what is there, no configuration does. Head `i` of the file, counted from 0, has
///   {i}.{l}.linear.weight [hidden, hidden], and perhaps {i}.{l}.linear.bias [hidden], for layers l = 0 .. L - 1
///   {i}.{L}.weight        [vocab, hidden], its output matrix, in every head or in none (the model's own serves then)
/// file    outlives the device
/// errors  INVALID_ARGUMENT (names the tensor), UNSUPPORTED (op and format)
void add_draft_heads(const model_file::Safetensors &file, Device &device, BuiltModel &model);

}  // namespace sluice::graph

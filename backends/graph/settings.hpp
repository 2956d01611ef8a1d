#pragma once
#include "backends/graph/model_builder.hpp"

#include <sluice/abi/kinds/backend.h>

namespace sluice::graph {

/// A sluice_model_setup, checked and with its zeros filled in.
struct Settings {
  StepLimits limits;
  KvShape kv;  ///< without block counts until configure()
  uint32_t max_tree_nodes = 0;
  uint32_t max_candidates = 0;
  uint32_t max_logprobs = 0;
  bool configured = false;
};

/// errors  INVALID_ARGUMENT, UNSUPPORTED (kv_dtype, block_size, flag)
Settings settle(const sluice_model_setup &setup, const ModelShape &shape, KvType default_kv);

}  // namespace sluice::graph

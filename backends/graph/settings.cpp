#include "backends/graph/settings.hpp"

#include <sluice/sdk/error.hpp>

namespace sluice::graph {
namespace {

constexpr uint32_t kDefaultBlockTokens = 32;
constexpr uint32_t kMinBlockTokens = 8, kMaxBlockTokens = 256;
constexpr uint32_t kMaxCount = 1u << 20;

uint32_t in_range(const char *name, uint32_t value, uint32_t min, uint32_t max) {
  if (value < min || value > max)
    throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, std::string("setup.") + name + " is " + std::to_string(value) +
                                                    "; it must be " + std::to_string(min) + ".." + std::to_string(max));
  return value;
}

KvType kv_type(uint32_t dtype, KvType otherwise) {
  switch (dtype) {
    case 0:
      return otherwise;
    case SLUICE_DT_F32:
      return KvType::kF32;
    case SLUICE_DT_F16:
      return KvType::kF16;
  }
  throw sdk::Error(SLUICE_E_UNSUPPORTED, "setup.kv_dtype is " + std::to_string(dtype) + "; supported are f32 and f16");
}

}  // namespace

Settings settle(const sluice_model_setup &setup, const ModelShape &shape, KvType default_kv) {
  if (setup.struct_size < SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs))
    throw sdk::Error(SLUICE_E_ABI,
                     "setup.struct_size is " + std::to_string(setup.struct_size) + ", too small for ABI 0.0");
  if ((setup.flags & 0xFFFFu & ~SLUICE_SETUP_BATCH_INVARIANT) != 0)
    throw sdk::Error(SLUICE_E_UNSUPPORTED, "setup.flags has unknown bits: " + std::to_string(setup.flags));
  Settings s;
  s.limits.tokens = in_range("max_tokens_per_step", setup.max_tokens_per_step, 1, kMaxCount);
  s.limits.seqs = in_range("max_seqs_per_step", setup.max_seqs_per_step, 1, kMaxCount);
  s.limits.rows = in_range("max_rows_per_step", setup.max_rows_per_step, 1, kMaxCount);
  s.limits.context_tokens = setup.max_context == 0
                                ? shape.max_context_tokens
                                : in_range("max_context", setup.max_context, 1, shape.max_context_tokens);
  s.max_tree_nodes = in_range("max_tree_nodes", setup.max_tree_nodes, 0, s.limits.tokens);
  s.max_candidates = in_range("max_candidates", setup.max_candidates, 0, kMaxCount);
  s.max_logprobs = in_range("max_logprobs", setup.max_logprobs, 0, kMaxCount);
  s.kv.block_size_tokens = setup.block_size == 0 ? kDefaultBlockTokens : setup.block_size;
  if (s.kv.block_size_tokens < kMinBlockTokens || s.kv.block_size_tokens > kMaxBlockTokens)
    throw sdk::Error(SLUICE_E_UNSUPPORTED, "setup.block_size is " + std::to_string(setup.block_size) +
                                               "; it must be 8..256 tokens, or 0 for the default");
  s.kv.type = kv_type(setup.kv_dtype, default_kv);
  s.kv.layers = shape.layers;
  s.kv.kv_heads = shape.kv_heads;
  s.kv.head_dim = shape.head_dim;
  // The rejected nodes of a tree may stand past the context's end for one step.
  s.limits.blocks_per_seq =
      (s.limits.context_tokens + s.max_tree_nodes + s.kv.block_size_tokens - 1) / s.kv.block_size_tokens;
  s.limits.tree_words = s.max_tree_nodes == 0 ? 0 : s.limits.tokens * ((s.max_tree_nodes + 63) / 64);
  return s;
}

}  // namespace sluice::graph

#pragma once
#include <sluice/abi/kinds/backend.h>
#include <sluice/abi/kinds/engine.h>
#include <sluice/abi/plugin.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "core/isolation/archive.hpp"

// What goes over the rings: which messages there are, and the structs of the ABI that hold arrays.

namespace sluice::isolation {

/// Both ends say it first. Changes with every change of a message.
inline constexpr uint64_t kProtocol = 0x534c'5549'4345'0002;

inline constexpr uint32_t kMaxDevices = 64, kMaxKvGroups = 16;
/// How long a child may take to unload or close before it is killed.
inline constexpr std::chrono::seconds kCloseTime{5};

/// Calls of the host; each is answered by kReply. In brackets what the answer holds behind its status.
enum class Call : uint32_t {
  kHello = 1,   ///< protocol, path of the plugin -> [what the descriptor says]
  kEnumerate,   ///< config -> [devices]
  kOpen,        ///< of a backend: config, device ids
  kClose,
  kModelLoad,   ///< source -> [model id]
  kModelUnload, ///< model id; as is the first of all below
  kModelInfo,
  kPlanMemory,
  kKvGroups,
  kConfigure,
  kSampleCaps,
  kWarmup,
  kSubmit,      ///< -> [ticket]
  kKvOps,       ///< -> [ticket]
  kWait,        ///< -> [result]
  kRelease,     ///< no answer
  kHealth,
  kEngineOpen,  ///< config, model; from here on of an engine
  kEngineInfo,
  kEngineHealth,
  kGenerate,
  kCancel,
  kEventRefused,  ///< no answer: request id and the code for its next event
};

/// What the child says.
enum class Say : uint32_t {
  kReply = 100,  ///< code, flags, message, then what the call gives
  kLog,          ///< level, component, line
  kMetric,       ///< its id, kind, name, help
  kMetricUpdate, ///< its id, value
  kProgress,     ///< phase, done, total
  kEvent,        ///< an engine event
};

inline constexpr uint32_t kMaxBlocksPerStep = 1u << 26;

/// The arrays of a step. vocab  of the model, which gives the width of a mask
/// Always: what an index array counts is known before the array that it counts is visited.
template <class Archive> void visit(Archive &a, sluice_step &s, uint32_t vocab) {
  const auto last_of = [](const uint32_t *indptr, uint64_t n) -> uint64_t { return indptr == nullptr ? 0 : indptr[n]; };
  a.value(s.flags), a.value(s.step_no), a.value(s.n_tokens), a.value(s.n_seqs), a.value(s.n_rows);
  a.value(s.n_kv_groups), a.value(s.n_specs), a.value(s.spec_stride), a.value(s.n_candidates), a.value(s.n_history);
  const uint64_t tokens = s.n_tokens, seqs = s.n_seqs, rows = s.n_rows, groups = s.n_kv_groups;
  a.array(s.tokens, tokens), a.array(s.positions, tokens), a.array(s.slots, groups * tokens);
  a.array(s.seq_ids, seqs), a.array(s.q_indptr, seqs + 1), a.array(s.kv_len, seqs);
  a.array(s.block_indptr, groups * (seqs + 1));
  uint64_t blocks = 0;
  for (uint64_t g = 0; g < groups && s.block_indptr != nullptr; ++g)
    blocks = std::max<uint64_t>(blocks, s.block_indptr[g * (seqs + 1) + seqs]);
  a.array(s.block_ids, blocks);
  a.array(s.parent, tokens), a.array(s.tree_mask_indptr, seqs + 1);
  a.array(s.tree_mask, last_of(s.tree_mask_indptr, seqs));
  a.array(s.row_token, rows), a.array(s.row_want, rows);
  auto *specs = reinterpret_cast<const std::byte *>(s.spec);
  a.array(specs, uint64_t{s.n_specs} * s.spec_stride);
  s.spec = reinterpret_cast<const sluice_sample_spec *>(specs);
  a.array(s.row_spec, rows), a.array(s.row_seed, rows), a.array(s.row_position, rows);
  a.array(s.row_mask, rows);
  int64_t masks = 0;
  for (uint64_t r = 0; r < rows && s.row_mask != nullptr; ++r) masks = std::max<int64_t>(masks, s.row_mask[r] + int64_t{1});
  a.array(s.mask_words, static_cast<uint64_t>(masks) * ((uint64_t{vocab} + 31) / 32));
  a.array(s.bias_indptr, rows + 1);
  const uint64_t biases = last_of(s.bias_indptr, rows);
  a.array(s.bias_token, biases), a.array(s.bias_value, biases);
  const uint64_t histories = s.n_history;
  a.array(s.history_slot, histories), a.array(s.history_kind, histories), a.array(s.history_indptr, histories + 1);
  a.array(s.history_token, last_of(s.history_indptr, histories));
  a.array(s.row_history, rows);
}

template <class Archive> void visit(Archive &a, sluice_kv_batch &b) {
  a.value(b.n);
  const uint64_t n = b.n;
  a.array(b.op, n), a.array(b.group, n), a.array(b.src, n), a.array(b.dst, n);
  a.array(b.seq_src, n), a.array(b.seq_dst, n), a.array(b.keep_len, n);
}

/// What the host knows of a result before it comes; an array of another size is refused.
struct ResultShape {
  uint32_t n_rows = 0, n_candidates = 0, vocab = 0, n_heads = 0, head_top = 0, max_top = 0;
};

template <class Archive> void visit(Archive &a, sluice_step_result &r, const ResultShape &shape) {
  a.value(r.n_rows), a.value(r.n_top), a.value(r.device_ns), a.value(r.queue_ns);
  if constexpr (!Archive::kPacks)
    if (r.n_rows != shape.n_rows || r.n_top > shape.max_top) return a.fail();
  const uint64_t rows = r.n_rows;
  a.array(r.token, rows), a.array(r.logprob, rows);
  a.array(r.top_ids, rows * r.n_top), a.array(r.top_logprobs, rows * r.n_top);
  a.array(r.cand_ids, rows * shape.n_candidates), a.array(r.cand_logits, rows * shape.n_candidates);
  a.array(r.row_lse, rows), a.array(r.logits_host, rows * shape.vocab);
  const uint64_t heads = rows * shape.n_heads * shape.head_top;
  a.array(r.head_ids, heads), a.array(r.head_logprobs, heads);
}

/// The options behind a sluice_config, taken through the getters of the host that owns it.
void pack_config(Packer &packer, const sluice_host_api &api, const sluice_config *config,
                 const sluice_config_field *fields, uint32_t n_fields);

}  // namespace sluice::isolation

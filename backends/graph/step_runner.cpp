#include "backends/graph/step_runner.hpp"

#include <algorithm>
#include <cstring>

namespace sluice::graph {
namespace {

constexpr uint32_t kFinestSplitTokens = 64;

struct ArgBuffer {
  Buffer StepArgs::*buffer;
  uint64_t size_bytes;
  BufferUse use = BufferUse::kArgs;
};

/// Every argument buffer and its size: the one list that allocates, frees and adds up.
std::vector<ArgBuffer> arg_buffers(const Program &p, const StepLimits &l) {
  const uint64_t head_bytes = uint64_t{l.rows} * p.n_heads * p.head_top * 4;
  return {{&StepArgs::ids, uint64_t{l.tokens} * 4},
          {&StepArgs::positions, uint64_t{l.tokens} * 4},
          {&StepArgs::slots, uint64_t{l.tokens} * 4},
          {&StepArgs::rows, uint64_t{l.rows} * 4},
          {&StepArgs::head_rows, p.n_heads == 0 ? 0 : uint64_t{l.rows} * 4},
          {&StepArgs::q_begin, (uint64_t{l.seqs} + 1) * 4},
          {&StepArgs::kv_len, uint64_t{l.seqs} * 4},
          {&StepArgs::block_table, uint64_t{l.seqs} * l.blocks_per_seq * 4},
          {&StepArgs::tree_begin, (uint64_t{l.seqs} + 1) * 4},
          {&StepArgs::tree_mask, uint64_t{l.tree_words} * 8},
          {&StepArgs::items, uint64_t{max_attention_items(l)} * sizeof(AttentionItem)},
          {&StepArgs::merges, uint64_t{max_attention_merges(l)} * sizeof(AttentionMerge)},
          {&StepArgs::head_ids, head_bytes, BufferUse::kResult},
          {&StepArgs::head_logprobs, head_bytes, BufferUse::kResult}};
}

template <class T>
void put(Device &device, Buffer buffer, const T *from, uint64_t n) {
  if (n > 0) std::memcpy(device.mapped(buffer), from, n * sizeof(T));
}

}  // namespace

uint64_t StepRunner::buffer_bytes(const Program &program, const StepLimits &limits) {
  uint64_t bytes = 0;
  for (const ArgBuffer &a : arg_buffers(program, limits)) bytes += a.size_bytes;
  for (Slot s = 0; s < program.activations.size(); ++s) bytes += program.activation_bytes(s, limits);
  return bytes;
}

StepRunner::StepRunner(Device &device, const Program &program, const Settings &settings, uint32_t split_tokens)
    : device_(device), program_(program), settings_(settings), split_tokens_(split_tokens) {
  for (const ArgBuffer &a : arg_buffers(program, settings.limits))
    args_.*a.buffer = device_.allocate(a.size_bytes, a.use);
  for (Slot s = 0; s < program.activations.size(); ++s)
    args_.activations.push_back(device_.allocate(program.activation_bytes(s, settings.limits),
                                                 s == program.logits ? BufferUse::kResult : BufferUse::kDevice));
}

StepRunner::~StepRunner() {
  for (const ArgBuffer &a : arg_buffers(program_, settings_.limits)) device_.free(args_.*a.buffer);
  for (const Buffer b : args_.activations) device_.free(b);
}

float *StepRunner::logits() const { return static_cast<float *>(device_.mapped(args_.activations[program_.logits])); }

const int32_t *StepRunner::head_ids() const { return static_cast<const int32_t *>(device_.mapped(args_.head_ids)); }
const float *StepRunner::head_logprobs() const {
  return static_cast<const float *>(device_.mapped(args_.head_logprobs));
}

uint32_t StepRunner::fill_args(const sluice_step &s) {
  put(device_, args_.ids, s.tokens, s.n_tokens);
  put(device_, args_.positions, s.positions, s.n_tokens);
  put(device_, args_.slots, s.slots, s.n_tokens);
  put(device_, args_.rows, s.row_token, s.n_rows);
  put(device_, args_.q_begin, s.q_indptr, s.n_seqs + 1);
  put(device_, args_.kv_len, s.kv_len, s.n_seqs);
  auto *head_rows = static_cast<uint32_t *>(device_.mapped(args_.head_rows));
  uint32_t n_head_rows = 0;
  for (uint32_t r = 0; r < s.n_rows; ++r)
    if ((s.row_want[r] & SLUICE_ROW_HEADS) != 0) head_rows[n_head_rows++] = r;
  auto *table = static_cast<uint32_t *>(device_.mapped(args_.block_table));
  for (uint32_t q = 0; q < s.n_seqs; ++q)
    std::copy(s.block_ids + s.block_indptr[q], s.block_ids + s.block_indptr[q + 1],
              table + uint64_t{q} * settings_.limits.blocks_per_seq);
  auto *tree_begin = static_cast<uint32_t *>(device_.mapped(args_.tree_begin));
  if (s.tree_mask_indptr == nullptr) {
    std::fill_n(tree_begin, s.n_seqs + 1, 0u);
  } else {
    std::copy_n(s.tree_mask_indptr, s.n_seqs + 1, tree_begin);
    put(device_, args_.tree_mask, s.tree_mask, s.tree_mask_indptr[s.n_seqs]);
  }
  return n_head_rows;
}

StepShape StepRunner::plan(const sluice_step &s, uint32_t head_rows) {
  AttentionInputs in;
  in.q_begin = {s.q_indptr, s.n_seqs + 1u};
  in.kv_len = {s.kv_len, s.n_seqs};
  in.tree_begin = {static_cast<const uint32_t *>(device_.mapped(args_.tree_begin)), s.n_seqs + 1u};
  in.tree_mask = {static_cast<const uint64_t *>(device_.mapped(args_.tree_mask)), in.tree_begin.back()};
  in.parallelism = device_.attention_parallelism();
  in.split_tokens = split_tokens_;
  if (split_tokens_ == 0) {
    const uint32_t longest = s.n_seqs == 0 ? 1 : *std::max_element(s.kv_len, s.kv_len + s.n_seqs) + 1;
    const uint32_t fair = (longest / in.parallelism + kFinestSplitTokens) / kFinestSplitTokens * kFinestSplitTokens;
    in.split_tokens = std::clamp(fair, kFinestSplitTokens, kSplitTokens);
  }
  const AttentionPlan plan = plan_attention(in, static_cast<AttentionItem *>(device_.mapped(args_.items)),
                                            static_cast<AttentionMerge *>(device_.mapped(args_.merges)));
  return {s.n_tokens, s.n_seqs, s.n_rows, plan.items, plan.merges, in.split_tokens, head_rows};
}

uint64_t StepRunner::run(const sluice_step &step) {
  const uint32_t head_rows = fill_args(step);
  if (device_.begin_step(plan(step, head_rows), args_)) graph::run(program_, device_);
  return device_.end_step();
}

}  // namespace sluice::graph

// The operations of CpuDevice that touch the cache.
#include "backends/cpu/cpu_device.hpp"
#include "backends/graph/attention_planner.hpp"

#include <cmath>
#include <cstring>

namespace sluice::cpu {

using namespace graph;

namespace {

/// cos and sin of every pair of one position, in f64 so that far positions keep their angle.
void angles(const RopeKvOp &op, const float *inv_freq, int32_t position, float *cosine, float *sine) {
  for (uint32_t i = 0; i < op.n_pairs; ++i) {
    const double angle = static_cast<double>(position) * inv_freq[i];
    cosine[i] = static_cast<float>(std::cos(angle));
    sine[i] = static_cast<float>(std::sin(angle));
  }
}

void rotate(float *head, const RopeKvOp &op, const float *cosine, const float *sine) {
  const bool halves = op.style == RopeStyle::kHalves;
  const uint32_t step = halves ? 1 : 2, other = halves ? op.n_pairs : 1;
  for (uint32_t i = 0; i < op.n_pairs; ++i) {
    float &a = head[i * step], &b = head[i * step + other];
    const float x = a, y = b;
    a = x * cosine[i] - y * sine[i];
    b = x * sine[i] + y * cosine[i];
  }
}

}  // namespace

void CpuDevice::rope_kv(const RopeKvOp &op) {
  const auto *positions = at<int32_t>(args_->positions);
  const auto *slots = at<uint32_t>(args_->slots);
  const float *inv_freq = at<float>(op.inv_freq), *q_norm = at<float>(op.q_norm), *k_norm = at<float>(op.k_norm);
  const float *qkv = activation(op.qkv);
  float *q = activation(op.q);
  const uint32_t d = op.head_dim;
  const auto store = [&](std::byte *cell, const float *values) {
    if (kv_.type == KvType::kF16)
      kernels_.to_f16(values, reinterpret_cast<uint16_t *>(cell), d);
    else
      std::memcpy(cell, values, d * sizeof(float));
  };
  workers_.rows(shape_.tokens, [&](uint64_t t) {
    float cosine[kMaxHeadDim / 2], sine[kMaxHeadDim / 2], head[kMaxHeadDim];
    angles(op, inv_freq, positions[t], cosine, sine);
    const float *in = qkv + t * (op.q_heads + 2 * op.kv_heads) * d;
    const auto prepare = [&](const float *from, const float *norm, float *to) {
      if (norm != nullptr)
        kernels_.rms_norm(from, norm, d, op.eps, to);
      else
        std::memcpy(to, from, d * sizeof(float));
      rotate(to, op, cosine, sine);
    };
    for (uint32_t h = 0; h < op.q_heads; ++h) prepare(in + h * d, q_norm, q + (t * op.q_heads + h) * d);
    for (uint32_t h = 0; h < op.kv_heads; ++h) {
      prepare(in + (op.q_heads + h) * d, k_norm, head);
      store(kv_cell(op.layer, KvPart::kKeys, h, slots[t]), head);
      store(kv_cell(op.layer, KvPart::kValues, h, slots[t]), in + (op.q_heads + op.kv_heads + h) * d);
    }
  });
}

void CpuDevice::attend_item(const AttentionOp &op, const AttentionItem &item, uint32_t kv_head, uint32_t worker) {
  const auto *q_begin = at<uint32_t>(args_->q_begin), *kv_len = at<uint32_t>(args_->kv_len);
  const auto *tree_begin = at<uint32_t>(args_->tree_begin);
  const uint32_t first = item.q_begin - q_begin[item.seq], window = q_begin[item.seq + 1] - q_begin[item.seq];
  const uint32_t group = op.q_heads / op.kv_heads, head = kv_head * group;
  const bool tree = tree_begin[item.seq] != tree_begin[item.seq + 1];
  uint32_t visible[kTileTokens];
  uint32_t *seen = tree ? window_.data() + worker * scratch_.window_words : nullptr;
  for (uint32_t t = 0; t < item.q_end - item.q_begin; ++t) {
    visible[t] = kv_len[item.seq] + first + t + 1;
    if (!tree) continue;
    const uint32_t words = (window + 63) / 64;
    const uint64_t *mask = at<uint64_t>(args_->tree_mask) + tree_begin[item.seq] + uint64_t{first + t} * words;
    uint32_t n = 0;
    for (uint32_t j = 0; j < window; ++j)
      if (mask[j / 64] >> (j % 64) & 1) seen[t * window + n++] = j;
    visible[t] = kv_len[item.seq] + n;
  }
  AttendArgs a{};
  const uint64_t row = uint64_t{item.q_begin} * op.q_heads + head;
  a.q = activation(op.q) + row * op.head_dim;
  a.out = activation(op.out) + row * op.head_dim;
  a.q_heads = op.q_heads;
  a.group = group;
  a.head_dim = op.head_dim;
  a.tokens = item.q_end - item.q_begin;
  a.scale = op.scale;
  a.keys = reinterpret_cast<const uint8_t *>(kv_cell(op.layer, KvPart::kKeys, kv_head, 0));
  a.values = reinterpret_cast<const uint8_t *>(kv_cell(op.layer, KvPart::kValues, kv_head, 0));
  a.block_bytes = kv_.bytes_per_block();
  a.block_size = kv_.block_size_tokens;
  a.is_f16 = kv_.type == KvType::kF16;
  a.blocks = at<uint32_t>(args_->block_table) + uint64_t{item.seq} * blocks_per_seq_;
  a.cached = kv_len[item.seq];
  a.visible = visible;
  a.window = seen;
  a.window_stride = window;
  a.split_tokens = shape_.split_tokens;
  a.split_begin = item.split_begin;
  a.split_end = item.split_end;
  if (item.partial != kNoPartial)
    a.partial = partial_.data() + (uint64_t{item.partial} * op.q_heads + head) * (op.head_dim + 2);
  a.scratch = attend_.data() + worker * scratch_.attend_floats;
  kernels_.attend(&a);
}

void CpuDevice::attention(const AttentionOp &op) {
  const auto *items = at<AttentionItem>(args_->items);
  const auto *merges = at<AttentionMerge>(args_->merges);
  workers_.each(shape_.attention_items * op.kv_heads, [&](uint32_t task, uint32_t worker) {
    attend_item(op, items[task / op.kv_heads], task % op.kv_heads, worker);
  });
  const uint64_t row_floats = op.head_dim + 2;
  for (uint32_t i = 0; i < shape_.attention_merges; ++i) {
    const AttentionMerge &m = merges[i];
    for (uint32_t h = 0; h < op.q_heads; ++h)
      kernels_.merge(partial_.data() + (uint64_t{m.first_partial} * op.q_heads + h) * row_floats, m.n_partials,
                     m.stride * op.q_heads * row_floats, op.head_dim,
                     activation(op.out) + (uint64_t{m.token} * op.q_heads + h) * op.head_dim);
  }
}

}  // namespace sluice::cpu

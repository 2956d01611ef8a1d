#include "backends/reference/reference_device.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace sluice::reference {
namespace {

using namespace graph;
using model_file::dequantize_row;

/// Row `row` of a segment, decoded. cols is a whole number of the format's blocks: the file reader has checked it.
void decode_row(const WeightSegment &segment, uint64_t cols, uint64_t row, float *out) {
  const model_file::TypeInfo &type = model_file::type_info(segment.type);
  dequantize_row(segment.type, segment.data + row * (cols / type.block_elements * type.block_bytes), out, cols);
}

double dot(const float *a, const float *b, uint64_t n) {
  double sum = 0;
  for (uint64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

void rms_norm(const float *in, const float *weight, uint32_t n, float eps, float *out) {
  const double scale = 1.0 / std::sqrt(dot(in, in, n) / n + eps);
  for (uint32_t i = 0; i < n; ++i) out[i] = static_cast<float>(in[i] * scale * weight[i]);
}

void rotate(float *head, const RopeKvOp &op, const float *inv_freq, int32_t position) {
  for (uint32_t i = 0; i < op.n_pairs; ++i) {
    const bool halves = op.style == RopeStyle::kHalves;
    float &a = head[halves ? i : 2 * i], &b = head[halves ? i + op.n_pairs : 2 * i + 1];
    const double angle = static_cast<double>(position) * inv_freq[i];
    const double c = std::cos(angle), s = std::sin(angle), x = a, y = b;
    a = static_cast<float>(x * c - y * s);
    b = static_cast<float>(x * s + y * c);
  }
}

}  // namespace

WeightId ReferenceDevice::add_weight(const WeightSource &source) {
  weights_.push_back(source);
  for (const WeightSegment &s : source.segments)
    weights_bytes_ += s.rows * model_file::row_bytes(s.type, source.cols).value();
  return {static_cast<uint32_t>(weights_.size())};
}

void ReferenceDevice::configure(const StepLimits &limits, std::span<const Op>, const KvShape &kv) {
  blocks_per_seq_ = limits.blocks_per_seq;
  configure_kv(kv);
}

void ReferenceDevice::embed(const EmbedOp &op) {
  const auto *ids = at<int32_t>(args_->ids);
  const WeightSource &table = weight(op.table);
  for (uint32_t t = 0; t < shape_.tokens; ++t)
    decode_row(table.segments[0], table.cols, static_cast<uint64_t>(ids[t]), activation(op.out) + t * table.cols);
}

void ReferenceDevice::norm(const NormOp &op) {
  for (uint64_t r = 0; r < extent(op.extent); ++r)
    rms_norm(activation(op.in) + r * op.width, at<float>(op.weight), op.width, op.eps,
             activation(op.out) + r * op.width);
}

void ReferenceDevice::linear(const LinearOp &op) {
  if (extent(op.extent) == 0) return;
  const WeightSource &w = weight(op.weight);
  const float *in = activation(op.in), *bias = at<float>(op.bias);
  float *out = activation(op.out);
  std::vector<float> row(op.n_in);
  uint64_t n = 0;
  for (const WeightSegment &segment : w.segments) {
    for (uint64_t r = 0; r < segment.rows; ++r, ++n) {
      decode_row(segment, w.cols, r, row.data());
      for (uint64_t t = 0; t < extent(op.extent); ++t) {
        const double y = dot(in + t * op.n_in, row.data(), op.n_in) + (bias != nullptr ? bias[n] : 0.0);
        float &to = out[t * op.n_out + n];
        to = static_cast<float>(op.add ? to + y : y);
      }
    }
  }
}

void ReferenceDevice::linear_glu(const LinearGluOp &op) {
  const WeightSource &w = weight(op.weight);
  const float *in = activation(op.in);
  float *out = activation(op.out);
  std::vector<float> gate(op.n_in), up(op.n_in);
  for (uint64_t n = 0; n < op.n_out; ++n) {
    decode_row(w.segments[0], w.cols, n, gate.data());
    decode_row(w.segments[1], w.cols, n, up.data());
    for (uint64_t t = 0; t < shape_.tokens; ++t) {
      const double g = dot(in + t * op.n_in, gate.data(), op.n_in), u = dot(in + t * op.n_in, up.data(), op.n_in);
      out[t * op.n_out + n] = static_cast<float>(g / (1.0 + std::exp(-g)) * u);
    }
  }
}

void ReferenceDevice::silu_add(const SiluAddOp &op) {
  const float *in = activation(op.in), *base = activation(op.base);
  float *out = activation(op.out);
  for (uint64_t i = 0; i < uint64_t{extent(op.extent)} * op.width; ++i) {
    const double x = in[i];
    out[i] = static_cast<float>(base[i] + x / (1.0 + std::exp(-x)));
  }
}

void ReferenceDevice::top(const TopOp &op) {
  std::vector<int32_t> order(op.width);
  for (uint32_t r = 0; r < shape_.head_rows; ++r) {
    const float *row = activation(op.in) + uint64_t{r} * op.width;
    std::iota(order.begin(), order.end(), 0);
    const auto value = [&](int32_t id) { return std::isnan(row[id]) ? -INFINITY : row[id]; };
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return value(a) > value(b); });
    double sum = 0;
    for (uint32_t i = 0; i < op.width; ++i) sum += std::exp(static_cast<double>(row[i]) - row[order[0]]);
    const uint64_t first = (uint64_t{r} * op.n_heads + op.head) * op.n;
    for (uint32_t i = 0; i < op.n; ++i) {
      at<int32_t>(args_->head_ids)[first + i] = order[i];
      at<float>(args_->head_logprobs)[first + i] =
          static_cast<float>(static_cast<double>(row[order[i]]) - row[order[0]] - std::log(sum));
    }
  }
}

void ReferenceDevice::store(std::byte *cell, const float *values) const {
  if (kv_.type == KvType::kF32) {
    std::memcpy(cell, values, kv_.head_dim * sizeof(float));
    return;
  }
  for (uint32_t i = 0; i < kv_.head_dim; ++i) {
    const uint16_t half = model_file::f32_to_f16(values[i]);
    std::memcpy(cell + i * 2, &half, 2);
  }
}

float ReferenceDevice::load(const std::byte *cell, uint32_t i) const {
  float value;
  uint16_t half;
  if (kv_.type == KvType::kF32) {
    std::memcpy(&value, cell + i * 4, 4);
    return value;
  }
  std::memcpy(&half, cell + i * 2, 2);
  return model_file::f16_to_f32(half);
}

void ReferenceDevice::rope_kv(const RopeKvOp &op) {
  const auto *positions = at<int32_t>(args_->positions);
  const auto *slots = at<uint32_t>(args_->slots);
  const uint32_t d = op.head_dim;
  std::vector<float> head(d);
  for (uint32_t t = 0; t < shape_.tokens; ++t) {
    const float *in = activation(op.qkv) + uint64_t{t} * (op.q_heads + 2 * op.kv_heads) * d;
    const auto prepare = [&](const float *from, Buffer weight) {
      if (weight)
        rms_norm(from, at<float>(weight), d, op.eps, head.data());
      else
        std::memcpy(head.data(), from, d * sizeof(float));
      rotate(head.data(), op, at<float>(op.inv_freq), positions[t]);
    };
    for (uint32_t h = 0; h < op.q_heads; ++h) {
      prepare(in + h * d, op.q_norm);
      std::memcpy(activation(op.q) + (uint64_t{t} * op.q_heads + h) * d, head.data(), d * sizeof(float));
    }
    for (uint32_t h = 0; h < op.kv_heads; ++h) {
      prepare(in + (op.q_heads + h) * d, op.k_norm);
      store(kv_cell(op.layer, KvPart::kKeys, h, slots[t]), head.data());
      store(kv_cell(op.layer, KvPart::kValues, h, slots[t]), in + (op.q_heads + op.kv_heads + h) * d);
    }
  }
}

void ReferenceDevice::attention(const AttentionOp &op) {
  const auto *q_begin = at<uint32_t>(args_->q_begin), *kv_len = at<uint32_t>(args_->kv_len);
  const auto *tree_begin = at<uint32_t>(args_->tree_begin), *table = at<uint32_t>(args_->block_table);
  const auto *tree = at<uint64_t>(args_->tree_mask);
  const uint32_t d = op.head_dim, group = op.q_heads / op.kv_heads, size = kv_.block_size_tokens;
  std::vector<uint32_t> seen;  // slots, in order of visibility
  std::vector<double> score, sum(d);
  for (uint32_t seq = 0; seq < shape_.seqs; ++seq) {
    const uint32_t window = q_begin[seq + 1] - q_begin[seq], words = (window + 63) / 64;
    for (uint32_t j = 0; j < window; ++j) {
      const bool is_tree = tree_begin[seq] != tree_begin[seq + 1];
      seen.clear();
      for (uint32_t cell = 0; cell < kv_len[seq] + window; ++cell) {
        const uint32_t i = cell - kv_len[seq];  // in the window, when not before it
        if (cell >= kv_len[seq] &&
            !(is_tree ? tree[tree_begin[seq] + uint64_t{j} * words + i / 64] >> (i % 64) & 1 : i <= j))
          continue;
        seen.push_back(table[uint64_t{seq} * blocks_per_seq_ + cell / size] * size + cell % size);
      }
      for (uint32_t h = 0; h < op.q_heads; ++h) {
        const uint64_t at_q = (uint64_t{q_begin[seq] + j} * op.q_heads + h) * d;
        const float *q = activation(op.q) + at_q;
        double best = -INFINITY, total = 0;
        score.assign(seen.size(), 0);
        for (size_t s = 0; s < seen.size(); ++s) {
          const std::byte *k = kv_cell(op.layer, KvPart::kKeys, h / group, seen[s]);
          for (uint32_t i = 0; i < d; ++i) score[s] += static_cast<double>(q[i]) * load(k, i);
          score[s] *= op.scale;
          best = std::max(best, score[s]);
        }
        std::fill(sum.begin(), sum.end(), 0.0);
        for (size_t s = 0; s < seen.size(); ++s) {
          const double p = std::exp(score[s] - best);
          const std::byte *v = kv_cell(op.layer, KvPart::kValues, h / group, seen[s]);
          total += p;
          for (uint32_t i = 0; i < d; ++i) sum[i] += p * load(v, i);
        }
        for (uint32_t i = 0; i < d; ++i) activation(op.out)[at_q + i] = static_cast<float>(sum[i] / total);
      }
    }
  }
}

}  // namespace sluice::reference

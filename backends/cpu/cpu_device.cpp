#include "backends/cpu/cpu_device.hpp"
#include "backends/cpu/packed_weight.hpp"
#include "backends/graph/attention_planner.hpp"

#include <algorithm>
#include <cstring>

namespace sluice::cpu {
namespace {

using namespace graph;

constexpr uint64_t kInputPadding = 256;  ///< quantised rows are zero-filled up to a multiple

uint64_t padded(uint64_t n) { return (n + kInputPadding - 1) / kInputPadding * kInputPadding; }

}  // namespace

CpuDevice::CpuDevice(const sluice_host_api &host, const KernelTable &kernels) : workers_(host), kernels_(kernels), ranked_(workers_.count()) {}

WeightId CpuDevice::add_weight(const WeightSource &source) {
  Weight w;
  w.n_inputs = source.cols;
  for (const WeightSegment &from : source.segments) {
    Packed p;
    p.layout = layout_of(from.type);
    p.type = from.type;
    p.rows = from.rows;
    if (source.use == WeightUse::kEmbed) {
      p.tile_bytes = model_file::row_bytes(from.type, source.cols).value();
      p.bytes = HostBlock(p.tile_bytes * from.rows, from.name.c_str());
      std::memcpy(p.bytes.data(), from.data, p.bytes.size_bytes());
    } else {
      p.tile_bytes = tile_bytes(p.layout, source.cols);
      p.bytes = HostBlock(p.tile_bytes * tiles_of(from.rows), from.name.c_str());
      workers_.tiles(tiles_of(from.rows), [&](uint32_t begin, uint32_t end, uint32_t) {
        for (uint32_t tile = begin; tile < end; ++tile)
          pack_tile(from, source.cols, tile, p.bytes.data() + tile * p.tile_bytes);
      });
    }
    w.quantised_input |= kLayoutInfo[p.layout].quantised_input;
    weights_bytes_ += p.bytes.size_bytes();
    w.segments.push_back(std::move(p));
  }
  weights_.push_back(std::move(w));
  return {static_cast<uint32_t>(weights_.size())};
}

uint64_t CpuDevice::Scratch::bytes(uint32_t workers) const {
  const uint64_t width = quantised_width;
  return quantised_rows * (width + width / 32 * 4 + width / 16 * 4) +
         4 * (workers * (attend_floats + window_words) + partial_floats);
}

CpuDevice::Scratch CpuDevice::scratch_for(const StepLimits &limits, std::span<const Op> program) {
  Scratch s;
  s.quantised_rows = std::max(limits.tokens, limits.rows);
  for (const Op &op : program) {
    if (const auto *linear = std::get_if<LinearOp>(&op))
      s.quantised_width = std::max(s.quantised_width, padded(linear->n_in));
    if (const auto *glu = std::get_if<LinearGluOp>(&op))
      s.quantised_width = std::max(s.quantised_width, padded(glu->n_in));
    if (const auto *a = std::get_if<AttentionOp>(&op)) {
      s.attend_floats = std::max(
          s.attend_floats, attend_scratch_floats(kTileTokens, a->q_heads / a->kv_heads, a->head_dim, kSplitTokens));
      s.partial_floats = std::max(s.partial_floats, uint64_t{kMaxPartials} * a->q_heads * (a->head_dim + 2));
    }
  }
  s.window_words = limits.tree_words == 0 ? 0 : uint64_t{kTileTokens} * limits.tokens;
  return s;
}

uint64_t CpuDevice::scratch_bytes(const StepLimits &limits, std::span<const Op> program) const {
  return scratch_for(limits, program).bytes(workers_.count());
}

void CpuDevice::configure(const StepLimits &limits, std::span<const Op> program, const KvShape &kv) {
  scratch_ = scratch_for(limits, program);
  quantised_.assign(scratch_.quantised_rows * scratch_.quantised_width, 0);
  quantised_scale_.assign(quantised_.size() / 32, 0);
  quantised_sum_.assign(quantised_.size() / 16, 0);
  attend_.assign(workers_.count() * scratch_.attend_floats, 0);
  partial_.assign(scratch_.partial_floats, 0);
  window_.assign(workers_.count() * scratch_.window_words, 0);
  blocks_per_seq_ = limits.blocks_per_seq;
  configure_kv(kv);
}

void CpuDevice::embed(const EmbedOp &op) {
  const Weight &w = weight(op.table);
  const Packed &rows = w.segments[0];
  const auto *ids = at<int32_t>(args_->ids);
  float *out = activation(op.out);
  for (uint32_t t = 0; t < shape_.tokens; ++t)
    model_file::dequantize_row(rows.type, rows.bytes.data() + static_cast<uint64_t>(ids[t]) * rows.tile_bytes,
                               out + t * w.n_inputs, w.n_inputs);
}

void CpuDevice::norm(const NormOp &op) {
  const float *in = activation(op.in), *weights = at<float>(op.weight);
  float *out = activation(op.out);
  workers_.rows(extent(op.extent), [&](uint64_t r) {
    kernels_.rms_norm(in + r * op.width, weights, op.width, op.eps, out + r * op.width);
  });
}

ProductInput CpuDevice::prepare_input(const Weight &w, Slot slot, uint32_t rows) {
  ProductInput in{};
  in.n_inputs = static_cast<uint32_t>(w.n_inputs);
  in.x = activation(slot);
  if (!w.quantised_input) return in;
  const uint64_t width = in.q_stride = static_cast<uint32_t>(padded(w.n_inputs));
  workers_.rows(rows, [&](uint64_t r) {
    kernels_.quantise(in.x + r * w.n_inputs, in.n_inputs, in.q_stride, quantised_.data() + r * width,
                      quantised_scale_.data() + r * width / 32, quantised_sum_.data() + r * width / 16);
  });
  in.q = quantised_.data();
  in.d = quantised_scale_.data();
  in.sum16 = quantised_sum_.data();
  return in;
}

void CpuDevice::linear(const LinearOp &op) {
  const uint32_t rows = extent(op.extent);
  if (rows == 0) return;
  const Weight &w = weight(op.weight);
  const ProductInput in = prepare_input(w, op.in, rows);
  const float *bias = at<float>(op.bias);
  float *out = activation(op.out);
  uint32_t tiles = 0;
  for (const Packed &p : w.segments) tiles += tiles_of(p.rows);
  const auto run_tile = [&](const Packed &p, uint32_t tile, uint64_t first_output) {
    float acc[kMaxProductTokens * kTileRows];
    const auto width = static_cast<uint32_t>(std::min<uint64_t>(kTileRows, p.rows - uint64_t{tile} * kTileRows));
    for (uint32_t token = 0; token < rows; token += kMaxProductTokens) {
      const uint32_t n = std::min(kMaxProductTokens, rows - token);
      kernels_.product[p.layout](&in, p.tile(tile), token, n, acc);
      for (uint32_t m = 0; m < n; ++m) {
        float *to = out + uint64_t{token + m} * op.n_out + first_output;
        for (uint32_t i = 0; i < width; ++i) {
          const float y = acc[m * kTileRows + i] + (bias != nullptr ? bias[first_output + i] : 0.0f);
          to[i] = op.add ? to[i] + y : y;
        }
      }
    }
  };
  workers_.tiles(tiles, [&](uint32_t begin, uint32_t end, uint32_t) {
    uint32_t segment_begin = 0;  // in tiles
    uint64_t first_output = 0;
    for (const Packed &p : w.segments) {
      const uint32_t count = tiles_of(p.rows);
      for (uint32_t i = std::max(begin, segment_begin); i < std::min(end, segment_begin + count); ++i)
        run_tile(p, i - segment_begin, first_output + uint64_t{i - segment_begin} * kTileRows);
      segment_begin += count;
      first_output += p.rows;
    }
  });
}

void CpuDevice::silu_add(const SiluAddOp &op) {
  const float *in = activation(op.in), *base = activation(op.base);
  float *out = activation(op.out);
  workers_.rows(extent(op.extent), [&](uint64_t r) {
    kernels_.silu_add(in + r * op.width, base + r * op.width, op.width, out + r * op.width);
  });
}

void CpuDevice::top(const TopOp &op) {
  const float *in = activation(op.in);
  workers_.each(shape_.head_rows, [&](uint32_t r, uint32_t worker) {
    const float *row = in + uint64_t{r} * op.width;
    std::vector<sdk::Ranked> &best = ranked_[worker];
    sdk::top_k_of_row(row, op.width, op.n, best);
    std::sort(best.begin(), best.end(), sdk::better);
    const float lse = sdk::log_sum_exp(row, op.width);
    const uint64_t first = (uint64_t{r} * op.n_heads + op.head) * op.n;
    for (uint32_t i = 0; i < op.n; ++i) {
      const bool found = i < best.size();  // fewer where the row holds what is no number
      at<int32_t>(args_->head_ids)[first + i] = found ? best[i].id : -1;
      at<float>(args_->head_logprobs)[first + i] = found ? best[i].logit - lse : sdk::kRemoved;
    }
  });
}

void CpuDevice::linear_glu(const LinearGluOp &op) {
  const Weight &w = weight(op.weight);
  const ProductInput in = prepare_input(w, op.in, shape_.tokens);
  float *out = activation(op.out);
  const Packed &gate = w.segments[0], &up = w.segments[1];
  workers_.tiles(tiles_of(gate.rows), [&](uint32_t begin, uint32_t end, uint32_t) {
    float g[kMaxProductTokens * kTileRows], u[kMaxProductTokens * kTileRows];
    for (uint32_t tile = begin; tile < end; ++tile) {
      const uint64_t width = std::min<uint64_t>(kTileRows, op.n_out - uint64_t{tile} * kTileRows);
      for (uint32_t token = 0; token < shape_.tokens; token += kMaxProductTokens) {
        const uint32_t n = std::min(kMaxProductTokens, shape_.tokens - token);
        kernels_.product[gate.layout](&in, gate.tile(tile), token, n, g);
        kernels_.product[up.layout](&in, up.tile(tile), token, n, u);
        kernels_.silu_mul(g, u, n * kTileRows);
        for (uint32_t m = 0; m < n; ++m)
          std::memcpy(out + uint64_t{token + m} * op.n_out + uint64_t{tile} * kTileRows, g + m * kTileRows,
                      width * sizeof(float));
      }
    }
  });
}

}  // namespace sluice::cpu

// Every operation of the CPU device against the reference, under every instruction set that this machine has.
#include "backends/cpu/packed_weight.hpp"
#include "tests/backends/device_bench.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace sluice::test {
namespace {

using graph::StepArgs;
using model_file::TensorType;

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ8_0,
                                 TensorType::kQ4_0, TensorType::kQ4_K, TensorType::kQ6_K};

uint32_t unit_of(TensorType type) { return model_file::type_info(type).block_elements; }
bool quantised(TensorType type) { return unit_of(type) > 1; }
/// Largest NMSE and error against f64 sums: f32 sums, or activations in i8 per 32.
double nmse_bar(TensorType type) { return quantised(type) ? 2e-4 : 1e-10; }
double peak_bar(TensorType type) { return quantised(type) ? 0.1 : 1e-4; }

class Ops : public testing::TestWithParam<const cpu::KernelTable *> {
 protected:
  Host host{2};
  Rig make() { return Rig::cpu(host, *GetParam()); }
};

std::vector<float> run_linear(Rig &rig, const std::vector<const Matrix *> &matrices, const std::vector<float> &x,
                              uint32_t tokens, const std::vector<float> &bias, const std::vector<float> &start) {
  graph::WeightSource source{graph::WeightUse::kLinear, matrices[0]->cols, {}};
  uint32_t n_out = 0;
  for (const Matrix *m : matrices) source.segments.push_back(m->segment()), n_out += static_cast<uint32_t>(m->rows);
  const auto k = static_cast<uint32_t>(matrices[0]->cols);
  graph::LinearOp op{rig.device().add_weight(source),
                     rig.activation(x),
                     start.empty() ? rig.activation(tokens * n_out) : rig.activation(start),
                     graph::Extent::kTokens,
                     k,
                     n_out,
                     bias.empty() ? graph::Buffer{} : rig.constant(bias),
                     !start.empty()};
  const std::vector<graph::Op> program{op};
  rig.device().configure({tokens, 1, tokens, 8, 1, 0}, program, {1, 1, 16, 8, 1, 0, graph::KvType::kF32});
  rig.shape.tokens = tokens;
  rig.begin();
  rig.device().linear(op);
  return rig.read(op.out);
}

double norm2(const float *v, size_t n) { return std::sqrt(std::inner_product(v, v + n, v, 0.0)); }

/// For outputs too few to have a scale of their own: the error against that of a typical sum of these products.
void expect_small_error(const std::vector<float> &a, const std::vector<float> &b, const Matrix &w,
                        const std::vector<float> &x, uint32_t tokens, double bar, const std::string &what) {
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint64_t n = 0; n < w.rows; ++n) {
      const double typical = norm2(x.data() + t * w.cols, w.cols) * norm2(w.row(n).data(), w.cols) /
                             std::sqrt(static_cast<double>(w.cols));
      EXPECT_LE(std::abs(a[t * w.rows + n] - b[t * w.rows + n]), bar * typical) << what;
    }
  }
}

TEST_P(Ops, LinearMatchesReference) {
  uint32_t seed = 1;
  for (const TensorType type : kTypes) {
    for (const uint32_t units : {1u, 2u, 3u, 9u}) {
      const uint32_t k = quantised(type) ? units * unit_of(type) : units * 37;
      for (const uint32_t n : {1u, 16u, 48u, 100u}) {
        const Matrix w(type, n, k, ++seed);
        for (const uint32_t tokens : {1u, 2u, 3u, 7u, 8u, 9u, 17u, 33u}) {
          if (tokens > 9 && n == 1) continue;
          const std::vector<float> x = normal(tokens * k, ++seed);
          Rig a = make(), b = Rig::reference();
          const std::string what = std::string(model_file::type_name(type)) + " [" + std::to_string(n) + "," +
                                   std::to_string(k) + "] x " + std::to_string(tokens);
          const std::vector<float> y = run_linear(a, {&w}, x, tokens, {}, {}),
                                   z = run_linear(b, {&w}, x, tokens, {}, {});
          if (n * tokens >= 64)
            expect_close(y, z, nmse_bar(type), peak_bar(type), what);
          else
            expect_small_error(y, z, w, x, tokens, quantised(type) ? 0.05 : 1e-5, what);
          EXPECT_TRUE(a.intact()) << what;
        }
      }
    }
  }
}

TEST_P(Ops, LinearTakesMixedSegmentsBiasAndResidual) {
  const Matrix q(TensorType::kQ4_K, 40, 512, 1), k(TensorType::kF16, 24, 512, 2), v(TensorType::kQ6_K, 33, 512, 3);
  const uint32_t tokens = 5, n = 97;
  const std::vector<float> x = normal(tokens * 512, 4), bias = normal(n, 5), start = normal(tokens * n, 6);
  Rig a = make(), b = Rig::reference();
  expect_close(run_linear(a, {&q, &k, &v}, x, tokens, bias, start), run_linear(b, {&q, &k, &v}, x, tokens, bias, start),
               2e-4, 0.1, "mixed segments");
  EXPECT_TRUE(a.intact());
}

TEST_P(Ops, LinearRowsKeepTheirBitsInAnyBatch) {
  for (const TensorType type : kTypes) {
    const uint32_t k = 768, n = 50, tokens = 33;
    const Matrix w(type, n, k, 7);
    const std::vector<float> x = normal(tokens * k, 8);
    Rig together = make();
    const std::vector<float> all = run_linear(together, {&w}, x, tokens, {}, {});
    for (const uint32_t width : {1u, 2u, 5u, 8u}) {
      for (uint32_t t = 0; t + width <= tokens; t += 11) {
        Rig alone = make();
        const std::vector<float> some(x.begin() + t * k, x.begin() + (t + width) * k);
        const std::vector<float> y = run_linear(alone, {&w}, some, width, {}, {});
        ASSERT_TRUE(std::equal(y.begin(), y.end(), all.begin() + t * n)) << model_file::type_name(type) << " " << t;
      }
    }
  }
}

TEST_P(Ops, PackedRowsUnpackExactly) {
  for (const TensorType type : kTypes) {
    const uint64_t k = quantised(type) ? 3 * 256 : 77, rows = 21;
    const Matrix w(type, rows, k, 3);
    const cpu::Layout layout = cpu::layout_of(type);
    for (uint32_t tile = 0; tile < cpu::tiles_of(rows); ++tile) {
      std::vector<std::byte> packed(cpu::tile_bytes(layout, k));
      cpu::pack_tile(w.segment(), k, tile, packed.data());
      for (uint32_t r = 0; r < 16 && tile * 16 + r < rows; ++r) {
        std::vector<float> out(k);
        cpu::unpack_row(layout, packed.data(), r, k, out.data());
        ASSERT_EQ(out, w.row(tile * 16 + r)) << model_file::type_name(type) << " row " << tile * 16 + r;
      }
    }
  }
}

std::vector<float> run_glu(Rig &rig, const Matrix &gate, const Matrix &up, const std::vector<float> &x,
                           uint32_t tokens) {
  const auto n = static_cast<uint32_t>(gate.rows), k = static_cast<uint32_t>(gate.cols);
  graph::LinearGluOp op{rig.device().add_weight({graph::WeightUse::kLinearGlu, k, {gate.segment(), up.segment()}}),
                        rig.activation(x), rig.activation(tokens * n), k, n};
  const std::vector<graph::Op> program{op};
  rig.device().configure({tokens, 1, 1, 8, 1, 0}, program, {1, 1, 16, 8, 1, 0, graph::KvType::kF32});
  rig.shape.tokens = tokens;
  rig.begin();
  rig.device().linear_glu(op);
  return rig.read(op.out);
}

TEST_P(Ops, LinearGluMatchesReference) {
  for (const TensorType type : {TensorType::kF32, TensorType::kQ8_0, TensorType::kQ4_K}) {
    for (const uint32_t tokens : {1u, 4u, 19u}) {
      const Matrix gate(type, 70, 512, 1), up(type, 70, 512, 2);
      const std::vector<float> x = normal(tokens * 512, 3, 3.0f);
      Rig a = make(), b = Rig::reference();
      expect_close(run_glu(a, gate, up, x, tokens), run_glu(b, gate, up, x, tokens), quantised(type) ? 5e-4 : 1e-10,
                   quantised(type) ? 0.2 : 1e-3, std::string(model_file::type_name(type)));
      EXPECT_TRUE(a.intact());
    }
  }
}

TEST_P(Ops, SiluAddMatchesReference) {
  for (const uint32_t width : {1u, 16u, 33u, 256u}) {
    const uint32_t rows = 5;
    const std::vector<float> x = normal(rows * width, width, 4.0f), base = normal(rows * width, 2);
    std::vector<std::vector<float>> out;
    Rig rigs[] = {make(), Rig::reference()};
    for (Rig &rig : rigs) {
      const Slot to = rig.activation(rows * width), in = rig.activation(x), residual = rig.activation(base);
      rig.shape.head_rows = rows;
      rig.begin();
      rig.device().silu_add({in, residual, to, graph::Extent::kHeadRows, width});
      out.push_back(rig.read(to));
      rig.device().silu_add({in, residual, residual, graph::Extent::kHeadRows, width});
      EXPECT_EQ(rig.read(residual), out.back()) << "in place";
      EXPECT_TRUE(rig.intact());
    }
    expect_close(out[0], out[1], 1e-12, 1e-5, "silu_add of " + std::to_string(width));
  }
}

TEST_P(Ops, TopMatchesReference) {
  for (const uint32_t width : {3u, 40u, 1408u}) {
    const uint32_t rows = 4, heads = 3, n = std::min(width, 10u);
    std::vector<float> x = normal(rows * width, width, 2.0f);
    x[0] = x[1] = x[2] = 50;  // equal: the lower id first
    std::vector<std::vector<int32_t>> ids;
    std::vector<std::vector<float>> logprobs;
    Rig rigs[] = {make(), Rig::reference()};
    for (Rig &rig : rigs) {
      const size_t size = size_t{rows} * heads * n;
      rig.set(&StepArgs::head_ids, std::vector<int32_t>(size, -7));
      rig.set(&StepArgs::head_logprobs, std::vector<float>(size, 7));
      const Slot in = rig.activation(x);
      rig.shape.head_rows = rows;
      rig.begin();
      rig.device().top({in, width, 1, heads, n});
      const auto *got = static_cast<const int32_t *>(rig.device().mapped(rig.args.head_ids));
      const auto *values = static_cast<const float *>(rig.device().mapped(rig.args.head_logprobs));
      ids.emplace_back(got, got + size), logprobs.emplace_back(values, values + size);
    }
    EXPECT_EQ(ids[0], ids[1]);
    EXPECT_EQ((std::vector<int32_t>(ids[0].begin() + n, ids[0].begin() + n + 3)), (std::vector<int32_t>{0, 1, 2}));
    EXPECT_EQ(ids[0][0], -7);  // another head's place
    for (size_t i = 0; i < logprobs[0].size(); ++i) EXPECT_NEAR(logprobs[0][i], logprobs[1][i], 1e-5) << i;
  }
}

TEST_P(Ops, NormAndEmbedAndGatherMatchReference) {
  for (const uint32_t width : {1u, 16u, 33u, 256u, 2048u}) {
    const uint32_t tokens = 19;
    const std::vector<float> x = normal(tokens * width, width, 4.0f), weight = normal(width, 2);
    std::vector<std::vector<float>> out;
    Rig rigs[] = {make(), Rig::reference()};
    for (Rig &rig : rigs) {
      graph::NormOp op{rig.activation(x),      rig.activation(tokens * width),
                       graph::Extent::kTokens, width,
                       rig.constant(weight),   1e-5f};
      rig.shape.tokens = tokens;
      rig.begin();
      rig.device().norm(op);
      out.push_back(rig.read(op.out));
      EXPECT_TRUE(rig.intact());
    }
    expect_close(out[0], out[1], 1e-12, 1e-5, "norm of " + std::to_string(width));
  }
  for (const TensorType type : kTypes) {
    const Matrix table(type, 40, 512, 5);
    Rig rig = make();
    rig.set<int32_t>(&StepArgs::ids, {39, 0, 7});
    graph::EmbedOp op{rig.device().add_weight({graph::WeightUse::kEmbed, 512, {table.segment()}}),
                      rig.activation(3 * 512)};
    const Slot picked = rig.activation(2 * 512);
    rig.set<uint32_t>(&StepArgs::rows, {0, 2});
    rig.shape.tokens = 3;
    rig.shape.rows = 2;
    rig.begin();
    rig.device().embed(op);
    rig.device().gather_rows({op.out, picked, 512});
    std::vector<float> expected = table.row(39), last = table.row(7);
    expected.insert(expected.end(), last.begin(), last.end());
    EXPECT_EQ(rig.read(picked), expected) << model_file::type_name(type);
    EXPECT_TRUE(rig.intact());
  }
}

struct AttentionCase {
  uint32_t q_heads, kv_heads, head_dim, block_size;
  graph::KvType type;
  std::vector<uint32_t> kv_len, window;
  bool tree, neighbours, qk_norm;
  uint32_t workers;
};

/// Stores the cached tokens through rope_kv in one step, then runs the window in another; returns the attention output.
std::vector<float> run_attention(Rig &rig, const AttentionCase &c) {
  const uint32_t width = (c.q_heads + 2 * c.kv_heads) * c.head_dim, seqs = static_cast<uint32_t>(c.kv_len.size());
  uint32_t cached = 0, fresh = 0, per_seq = 0;
  for (uint32_t s = 0; s < seqs; ++s) {
    cached += c.kv_len[s], fresh += c.window[s];
    per_seq = std::max(per_seq, (c.kv_len[s] + c.window[s] + c.block_size - 1) / c.block_size);
  }
  const uint32_t tokens = std::max({cached, fresh, 1u});
  graph::RopeKvOp rope{0,
                       0,
                       1,
                       c.q_heads,
                       c.kv_heads,
                       c.head_dim,
                       c.head_dim / 2,
                       c.neighbours ? graph::RopeStyle::kNeighbours : graph::RopeStyle::kHalves,
                       {},
                       {},
                       {},
                       1e-6f};
  graph::AttentionOp attend{
      0, 0, 1, c.q_heads, c.kv_heads, c.head_dim, 1.0f / std::sqrt(static_cast<float>(c.head_dim))};
  std::vector<float> inv_freq(c.head_dim / 2);
  for (uint32_t i = 0; i < inv_freq.size(); ++i)
    inv_freq[i] = std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(c.head_dim));
  rope.inv_freq = rig.constant(inv_freq);
  if (c.qk_norm) rope.q_norm = rig.constant(normal(c.head_dim, 91)), rope.k_norm = rig.constant(normal(c.head_dim, 92));
  const graph::StepLimits limits{tokens, seqs, 1, per_seq * c.block_size, per_seq, tokens};
  rig.device().configure(limits, std::vector<graph::Op>{rope, attend},
                         {2, c.kv_heads, c.head_dim, c.block_size, seqs * per_seq + 1, 0, c.type});
  std::vector<uint32_t> table;  // blocks in descending order, so that ids mean nothing
  for (uint32_t i = 0; i < seqs * per_seq; ++i) table.push_back(seqs * per_seq - i);
  rig.set(&StepArgs::block_table, table);

  std::vector<int32_t> positions;
  std::vector<uint32_t> slots, q_begin{0}, tree_begin{0};
  std::vector<uint64_t> mask;
  const auto place = [&](uint32_t s, uint32_t cell) {
    slots.push_back(table[s * per_seq + cell / c.block_size] * c.block_size + cell % c.block_size);
    positions.push_back(static_cast<int32_t>(cell));
  };
  for (uint32_t s = 0; s < seqs; ++s)
    for (uint32_t i = 0; i < c.kv_len[s]; ++i) place(s, i);
  rope.qkv = rig.activation(normal(uint64_t{tokens} * width, 5));
  rope.q = rig.activation(std::vector<float>(uint64_t{tokens} * c.q_heads * c.head_dim));
  rig.set(&StepArgs::positions, positions);
  rig.set(&StepArgs::slots, slots);
  rig.shape.tokens = cached;
  rig.begin();
  if (cached > 0) rig.device().rope_kv(rope);

  positions.clear(), slots.clear();
  for (uint32_t s = 0; s < seqs; ++s) {
    for (uint32_t i = 0; i < c.window[s]; ++i) place(s, c.kv_len[s] + i);
    q_begin.push_back(static_cast<uint32_t>(slots.size()));
    const uint32_t words = (c.window[s] + 63) / 64;
    for (uint32_t i = 0; c.tree && i < c.window[s]; ++i) {  // a binary tree: the parent of i is (i - 1) / 2
      std::vector<uint64_t> bits(words);
      for (uint32_t j = i;; j = (j - 1) / 2) {
        bits[j / 64] |= uint64_t{1} << (j % 64);
        if (j == 0) break;
      }
      mask.insert(mask.end(), bits.begin(), bits.end());
    }
    tree_begin.push_back(static_cast<uint32_t>(mask.size()));
  }
  rope.qkv = rig.activation(normal(uint64_t{tokens} * width, 6));
  attend.q = rope.q = rig.activation(std::vector<float>(uint64_t{tokens} * c.q_heads * c.head_dim));
  attend.out = rig.activation(uint64_t{fresh} * c.q_heads * c.head_dim);
  rig.set(&StepArgs::positions, positions);
  rig.set(&StepArgs::slots, slots);
  rig.set(&StepArgs::q_begin, q_begin);
  rig.set(&StepArgs::kv_len, c.kv_len);
  rig.set(&StepArgs::tree_begin, tree_begin);
  rig.set(&StepArgs::tree_mask, mask);
  std::vector<graph::AttentionItem> items(graph::max_attention_items(limits));
  std::vector<graph::AttentionMerge> merges(graph::max_attention_merges(limits));
  const graph::AttentionPlan plan = graph::plan_attention(
      {q_begin, c.kv_len, tree_begin, mask, graph::kSplitTokens, c.workers}, items.data(), merges.data());
  rig.set(&StepArgs::items, items);
  rig.set(&StepArgs::merges, merges);
  rig.shape = {fresh, seqs, 0, plan.items, plan.merges, graph::kSplitTokens};
  rig.begin();
  rig.device().rope_kv(rope);
  rig.device().attention(attend);
  return rig.read(attend.out);
}

TEST_P(Ops, AttentionMatchesReference) {
  using graph::KvType;
  const std::vector<AttentionCase> cases = {
      {4, 4, 64, 16, KvType::kF32, {0}, {1}, false, true, false, 1},
      {4, 2, 64, 16, KvType::kF16, {15, 0, 31}, {1, 7, 2}, false, true, false, 1},
      {8, 1, 80, 8, KvType::kF16, {7, 8, 9}, {8, 9, 10}, false, false, true, 1},
      {28, 4, 96, 32, KvType::kF32, {33}, {5}, false, false, false, 1},
      {2, 2, 20, 16, KvType::kF32, {5}, {3}, false, true, false, 1},
      {2, 1, 128, 16, KvType::kF16, {511, 512, 513}, {1, 1, 1}, false, true, false, 1},
      {2, 1, 64, 16, KvType::kF16, {1100}, {3}, false, true, false, 64},
      {2, 1, 64, 16, KvType::kF32, {505}, {20}, false, true, false, 64},
      {4, 2, 64, 16, KvType::kF32, {20, 505}, {13, 70}, true, true, false, 1},
      {4, 2, 64, 16, KvType::kF16, {600}, {9}, true, true, false, 64},
      {1, 1, 256, 256, KvType::kF32, {3}, {40}, false, false, false, 1},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    Rig a = make(), b = Rig::reference();
    expect_close(run_attention(a, cases[i]), run_attention(b, cases[i]), 1e-9, 1e-3, "case " + std::to_string(i));
    EXPECT_TRUE(a.intact());
  }
}

TEST_P(Ops, AttentionKeepsItsBitsWhenSplit) {
  for (const bool tree : {false, true}) {
    AttentionCase c{4, 2, 64, 16, graph::KvType::kF16, {1300}, {6}, tree, true, false, 1};
    Rig whole = make(), split = make();
    const std::vector<float> a = run_attention(whole, c);
    c.workers = 64;
    EXPECT_EQ(a, run_attention(split, c)) << "tree " << tree;
  }
}

std::string isa_name(const testing::TestParamInfo<const cpu::KernelTable *> &info) { return info.param->name; }
INSTANTIATE_TEST_SUITE_P(Isa, Ops, testing::ValuesIn(cpu::usable_kernels()), isa_name);

}  // namespace
}  // namespace sluice::test

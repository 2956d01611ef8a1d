// Llama and the families that differ from it in a detail: RMSNorm, rotary attention with grouped heads, SwiGLU.
#include "backends/graph/architectures.hpp"

#include <sluice/sdk/error.hpp>

#include <cmath>

namespace sluice::graph {
namespace {

/// What sets a family apart from llama.
struct Variant {
  RopeStyle rope;
  bool qkv_bias;  ///< Qwen2 adds a bias to q, k and v
  bool qk_norm;   ///< Qwen3 normalises every head of q and k before it rotates them
};

struct Sizes {
  ModelShape model;
  uint32_t ff = 0;
  uint32_t rope_pairs = 0;
  float eps = 0;
  uint32_t q_width() const { return model.q_heads * model.head_dim; }
  uint32_t kv_width() const { return model.kv_heads * model.head_dim; }
};

constexpr uint32_t kMaxWidth = 1u << 20;

Sizes read_sizes(const ModelBuilder &b) {
  Sizes s;
  s.model.arch = b.arch();
  s.model.hidden = b.count("embedding_length", 1, kMaxWidth);
  s.model.layers = b.count("block_count", 1, 1024);
  s.model.max_context_tokens = b.count("context_length", 1, 1u << 28);
  s.model.q_heads = b.count("attention.head_count", 1, 4096);
  s.model.kv_heads = b.optional_count("attention.head_count_kv", 1, 4096).value_or(s.model.q_heads);
  if (s.model.q_heads % s.model.kv_heads != 0)
    throw sdk::Error(SLUICE_E_INVALID_ARGUMENT,
                     b.arch() + ".attention.head_count is " + std::to_string(s.model.q_heads) +
                         ", not a multiple of head_count_kv " + std::to_string(s.model.kv_heads));
  s.model.head_dim = b.optional_count("attention.key_length", 2, 1024).value_or(s.model.hidden / s.model.q_heads);
  const uint32_t v_dim = b.optional_count("attention.value_length", 2, 1024).value_or(s.model.head_dim);
  if (v_dim != s.model.head_dim || s.model.head_dim % 2 != 0)
    throw sdk::Error(SLUICE_E_UNSUPPORTED, "heads of " + std::to_string(s.model.head_dim) + " key and " +
                                               std::to_string(v_dim) + " value elements: they must be equal and even");
  s.ff = b.count("feed_forward_length", 1, kMaxWidth);
  s.eps = b.number("attention.layer_norm_rms_epsilon");
  const uint32_t rope_dim = b.optional_count("rope.dimension_count", 2, s.model.head_dim).value_or(s.model.head_dim);
  s.rope_pairs = rope_dim / 2;
  s.model.vocab = static_cast<uint32_t>(b.rows_of("token_embd.weight", s.model.hidden));
  const auto stated = b.optional_count("vocab_size", 1, 1u << 24);
  if (stated && *stated != s.model.vocab)
    throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, b.arch() + ".vocab_size is " + std::to_string(*stated) +
                                                    ", but token_embd.weight has " + std::to_string(s.model.vocab) +
                                                    " rows");
  return s;
}

/// One frequency per rotated pair. Linear scaling divides all of them; Llama 3.1 files carry a divisor for each.
std::vector<float> inverse_frequencies(const ModelBuilder &b, const Sizes &s) {
  const double base = b.optional_number("rope.freq_base").value_or(10000.0f);
  const std::string scaling = b.optional_text("rope.scaling.type").value_or("none");
  if (scaling != "none" && scaling != "linear" && scaling != "llama3")
    throw sdk::Error(SLUICE_E_UNSUPPORTED, b.arch() + ".rope.scaling.type is '" + scaling +
                                               "'; known are none, linear and llama3 (rope_freqs.weight)");
  const double factor = scaling == "linear" ? b.optional_number("rope.scaling.factor").value_or(1.0f) : 1.0;
  if (!(base > 0) || !(factor > 0))
    throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, b.arch() + ".rope.freq_base and rope.scaling.factor must be positive");
  std::vector<float> divisors(s.rope_pairs, 1.0f);
  if (b.has_tensor("rope_freqs.weight")) divisors = b.values("rope_freqs.weight", s.rope_pairs);
  std::vector<float> out(s.rope_pairs);
  for (uint32_t i = 0; i < s.rope_pairs; ++i)
    out[i] = static_cast<float>(std::pow(base, -2.0 * i / (2.0 * s.rope_pairs)) / factor / divisors[i]);
  return out;
}

BuiltModel build(ModelBuilder &b, const Variant &variant) {
  if (b.optional_count("expert_count", 0, 4096).value_or(0) > 0)
    throw sdk::Error(SLUICE_E_UNSUPPORTED, b.arch() +
                                               ".expert_count: mixtures of experts (op moe_linear_glu) are not "
                                               "built yet; use a dense model");
  const Sizes s = read_sizes(b);
  const uint32_t d = s.model.hidden, q_width = s.q_width(), kv_width = s.kv_width();
  BuiltModel out{s.model, {}, 0, {}};
  Program &p = out.program;
  const Slot x = p.add_activation("residual", Extent::kTokens, d);
  const Slot h = p.add_activation("normed", Extent::kTokens, d);
  const Slot qkv = p.add_activation("qkv", Extent::kTokens, q_width + 2 * kv_width);
  const Slot q = p.add_activation("q", Extent::kTokens, q_width);
  const Slot att = p.add_activation("attention", Extent::kTokens, q_width);
  const Slot ff = p.add_activation("ff", Extent::kTokens, s.ff);
  const Slot last = p.add_activation("last", Extent::kRows, d);
  p.logits = p.add_activation("logits", Extent::kRows, s.model.vocab);

  const Buffer inv_freq = b.constant(inverse_frequencies(b, s));
  const auto norm = [&](const std::string &weight, Slot in, Slot to, Extent extent) {
    p.ops.push_back(NormOp{in, to, extent, d, b.vector({{weight, d}}), s.eps});
  };
  p.ops.push_back(EmbedOp{b.matrix(WeightUse::kEmbed, {{"token_embd.weight", s.model.vocab}}, d), x});
  for (uint32_t layer = 0; layer < s.model.layers; ++layer) {
    const std::string blk = "blk." + std::to_string(layer) + ".";
    norm(blk + "attn_norm.weight", x, h, Extent::kTokens);
    LinearOp project{
        b.matrix(
            WeightUse::kLinear,
            {{blk + "attn_q.weight", q_width}, {blk + "attn_k.weight", kv_width}, {blk + "attn_v.weight", kv_width}},
            d),
        h,
        qkv,
        Extent::kTokens,
        d,
        q_width + 2 * kv_width,
        {},
        false};
    if (variant.qkv_bias)
      project.bias =
          b.vector({{blk + "attn_q.bias", q_width}, {blk + "attn_k.bias", kv_width}, {blk + "attn_v.bias", kv_width}});
    p.ops.push_back(project);
    RopeKvOp rope{
        qkv, q,  layer, s.model.q_heads, s.model.kv_heads, s.model.head_dim, s.rope_pairs, variant.rope, inv_freq,
        {},  {}, s.eps};
    if (variant.qk_norm) {
      rope.q_norm = b.vector({{blk + "attn_q_norm.weight", s.model.head_dim}});
      rope.k_norm = b.vector({{blk + "attn_k_norm.weight", s.model.head_dim}});
    }
    p.ops.push_back(rope);
    p.ops.push_back(AttentionOp{q, att, layer, s.model.q_heads, s.model.kv_heads, s.model.head_dim,
                                1.0f / std::sqrt(static_cast<float>(s.model.head_dim))});
    p.ops.push_back(LinearOp{b.matrix(WeightUse::kLinear, {{blk + "attn_output.weight", d}}, q_width),
                             att,
                             x,
                             Extent::kTokens,
                             q_width,
                             d,
                             {},
                             true});
    norm(blk + "ffn_norm.weight", x, h, Extent::kTokens);
    p.ops.push_back(LinearGluOp{
        b.matrix(WeightUse::kLinearGlu, {{blk + "ffn_gate.weight", s.ff}, {blk + "ffn_up.weight", s.ff}}, d), h, ff, d,
        s.ff});
    p.ops.push_back(LinearOp{
        b.matrix(WeightUse::kLinear, {{blk + "ffn_down.weight", d}}, s.ff), ff, x, Extent::kTokens, s.ff, d, {}, true});
  }
  p.ops.push_back(GatherRowsOp{x, last, d});
  norm("output_norm.weight", last, last, Extent::kRows);
  const char *head = b.has_tensor("output.weight") ? "output.weight" : "token_embd.weight";  // tied when absent
  out.last_hidden = last;
  out.output = b.matrix(WeightUse::kLinear, {{head, s.model.vocab}}, d);
  p.ops.push_back(LinearOp{out.output,
                           last,
                           p.logits,
                           Extent::kRows,
                           d,
                           s.model.vocab,
                           {},
                           false});
  return out;
}

}  // namespace

BuiltModel build_llama(ModelBuilder &b) { return build(b, {RopeStyle::kNeighbours, false, false}); }
BuiltModel build_qwen2(ModelBuilder &b) { return build(b, {RopeStyle::kHalves, true, false}); }
BuiltModel build_qwen3(ModelBuilder &b) { return build(b, {RopeStyle::kHalves, false, true}); }

}  // namespace sluice::graph

#include "core/model_file/synth.hpp"

#include "core/model_file/gguf_writer.hpp"
#include "core/model_file/random_weights.hpp"
#include "core/model_file/synth_vocabulary.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <numbers>

namespace sluice::model_file {
namespace {

/// A llama model's published shape. Heads are d_model / n_heads wide.
struct Preset {
  std::string_view name;
  uint32_t d_model, n_layers, n_heads, n_kv_heads, d_ff, vocab_size, context_tokens;
  float rope_base;
  float rope_factor;  ///< how far Llama 3's scaling stretches the slow frequencies; 0: none
  bool tied_embeddings;
  SynthSpecials specials;
};

// Sources: the config.json of TinyLlama-1.1B-Chat-v1.0, Llama-3.2-3B-Instruct and Llama-3.1-8B-Instruct.
constexpr Preset kPresets[] = {
    {"tiny", 256, 2, 4, 2, 512, 512, 512, 1e4f, 0, false, SynthSpecials::kSentence},
    {"tinyllama-1.1b", 2048, 22, 32, 4, 5632, 32000, 2048, 1e4f, 0, false, SynthSpecials::kSentence},
    {"llama-3.2-3b", 3072, 28, 24, 8, 8192, 128256, 131072, 5e5f, 32, true, SynthSpecials::kLlama3},
    {"llama-3.1-8b", 4096, 32, 32, 8, 14336, 128256, 131072, 5e5f, 8, false, SynthSpecials::kLlama3},
};

enum class Fill { kRandom, kOnes, kRopeFactors };

struct PlannedTensor {
  std::string name;
  TensorType type;
  std::vector<uint64_t> dims;
  Fill fill;
};

std::vector<PlannedTensor> plan_tensors(const Preset &p, TensorType type) {
  const uint64_t d = p.d_model;
  const uint64_t head = d / p.n_heads;
  std::vector<PlannedTensor> out;
  const auto matrix = [&](std::string name, uint64_t columns, uint64_t rows) {
    out.push_back({std::move(name), type, {columns, rows}, Fill::kRandom});
  };
  const auto norm = [&](std::string name) { out.push_back({std::move(name), TensorType::kF32, {d}, Fill::kOnes}); };
  matrix("token_embd.weight", d, p.vocab_size);
  if (p.rope_factor != 0) out.push_back({"rope_freqs.weight", TensorType::kF32, {head / 2}, Fill::kRopeFactors});
  for (uint32_t layer = 0; layer < p.n_layers; ++layer) {
    const std::string block = fmt::format("blk.{}.", layer);
    norm(block + "attn_norm.weight");
    matrix(block + "attn_q.weight", d, d);
    matrix(block + "attn_k.weight", d, head * p.n_kv_heads);
    matrix(block + "attn_v.weight", d, head * p.n_kv_heads);
    matrix(block + "attn_output.weight", d, d);
    norm(block + "ffn_norm.weight");
    matrix(block + "ffn_gate.weight", d, p.d_ff);
    matrix(block + "ffn_up.weight", d, p.d_ff);
    matrix(block + "ffn_down.weight", p.d_ff, d);
  }
  norm("output_norm.weight");
  if (!p.tied_embeddings) matrix("output.weight", d, p.vocab_size);
  return out;
}

uint32_t file_type(TensorType type) {
  switch (type) {
    case TensorType::kF16:
      return 1;
    case TensorType::kQ8_0:
      return 7;
    default:
      return 14;  // mostly Q4_K, small
  }
}

void write_metadata(GgufWriter &w, const Preset &p, const SynthOptions &options) {
  w.string("general.architecture", "llama");
  w.string("general.name", fmt::format("{} random weights, seed {}", p.name, options.seed));
  w.u32("general.file_type", file_type(options.type));
  w.u32("general.quantization_version", 2);
  w.u32("llama.block_count", p.n_layers);
  w.u32("llama.context_length", p.context_tokens);
  w.u32("llama.embedding_length", p.d_model);
  w.u32("llama.feed_forward_length", p.d_ff);
  w.u32("llama.attention.head_count", p.n_heads);
  w.u32("llama.attention.head_count_kv", p.n_kv_heads);
  w.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  w.u32("llama.rope.dimension_count", p.d_model / p.n_heads);
  w.f32("llama.rope.freq_base", p.rope_base);
  w.u32("llama.vocab_size", p.vocab_size);
  const SynthVocabulary v = make_synth_vocabulary(p.vocab_size, p.specials);
  w.string("tokenizer.ggml.model", "gpt2");
  w.string("tokenizer.ggml.pre", p.specials == SynthSpecials::kLlama3 ? "llama-bpe" : "gpt-2");
  w.strings("tokenizer.ggml.tokens", v.tokens);
  w.ints("tokenizer.ggml.token_type", v.types);
  w.strings("tokenizer.ggml.merges", v.merges);
  w.u32("tokenizer.ggml.bos_token_id", v.bos);
  w.u32("tokenizer.ggml.eos_token_id", v.eos);
  w.boolean("tokenizer.ggml.add_bos_token", true);
  w.string("tokenizer.chat_template", v.chat_template);
}

/// What each rotation frequency is divided by: 1 for the fast ones, the factor for the slow ones, smooth in between.
/// source  rope_scaling of Llama 3.1: low_freq_factor 1, high_freq_factor 4, original context 8192
std::vector<float> rope_factors(const Preset &p) {
  constexpr double kOriginalContext = 8192, kLow = 1, kHigh = 4;
  const uint32_t head = p.d_model / p.n_heads;
  std::vector<float> out;
  for (uint32_t i = 0; i < head; i += 2) {
    const double wavelength = 2 * std::numbers::pi * std::pow(double{p.rope_base}, double(i) / head);
    const double turns = kOriginalContext / wavelength;
    const double smooth = std::clamp((turns - kLow) / (kHigh - kLow), 0.0, 1.0);
    out.push_back(static_cast<float>(1 / ((1 - smooth) / p.rope_factor + smooth)));
  }
  return out;
}

/// Hands out a tensor's bytes in pieces, and reports them.
class Pieces {
 public:
  Pieces(GgufWriter &writer, const SynthOptions &options)
      : writer_(writer), options_(options), random_type_(options.type) {}

  Result<> write(const Preset &preset, const PlannedTensor &tensor, uint64_t index) {
    if (tensor.fill == Fill::kRandom) return write_random(tensor, index);
    const std::vector<float> values =
        tensor.fill == Fill::kOnes ? std::vector<float>(tensor.dims[0], 1.0f) : rope_factors(preset);
    return put(std::as_bytes(std::span(values)));
  }

 private:
  Result<> write_random(const PlannedTensor &tensor, uint64_t index) {
    Xoshiro random(options_.seed * 0x9e3779b97f4a7c15u + index);
    const uint64_t row = row_bytes(tensor.type, tensor.dims[0]).value();
    const uint64_t rows_at_once = std::max<uint64_t>(1, (4u << 20) / row);
    for (uint64_t done = 0; done < tensor.dims[1];) {
      const uint64_t n = std::min(rows_at_once, tensor.dims[1] - done);
      buffer_.resize(n * row);
      random_type_.fill(random, buffer_);
      if (auto r = put(buffer_); !r) return r;
      done += n;
    }
    return {};
  }

  Result<> put(std::span<const std::byte> piece) {
    if (auto r = writer_.write(piece); !r) return r;
    done_bytes_ += piece.size();
    if (options_.progress) options_.progress(done_bytes_, writer_.data_bytes());
    return {};
  }

  GgufWriter &writer_;
  const SynthOptions &options_;
  RandomWeights random_type_;
  std::vector<std::byte> buffer_;
  uint64_t done_bytes_ = 0;
};

Result<const Preset *> find_preset(const SynthOptions &options) {
  std::string known;
  for (const Preset &preset : kPresets) {
    if (preset.name == options.preset) return &preset;
    known += fmt::format(" {}", preset.name);
  }
  return invalid_argument(fmt::format("no preset '{}'; there are:{}", options.preset, known), "preset");
}

}  // namespace

std::vector<std::string_view> synth_presets() {
  std::vector<std::string_view> out;
  for (const Preset &preset : kPresets) out.push_back(preset.name);
  return out;
}

Result<> synthesize(const SynthOptions &options, std::ostream &out) {
  auto preset = find_preset(options);
  if (!preset) return preset.error();
  if (!RandomWeights::supports(options.type))
    return invalid_argument(
        fmt::format("type {} cannot be synthesised; take q8_0, q4_k, f16 or f32", type_name(options.type)), "type");
  GgufWriter writer(out);
  write_metadata(writer, **preset, options);
  const auto tensors = plan_tensors(**preset, options.type);
  for (const PlannedTensor &tensor : tensors)
    if (auto r = writer.tensor(tensor.name, tensor.type, tensor.dims); !r) return r;
  if (auto r = writer.begin(); !r) return r;
  Pieces pieces(writer, options);
  for (size_t i = 0; i < tensors.size(); ++i)
    if (auto r = pieces.write(**preset, tensors[i], i); !r) return r;
  return writer.finish();
}

Result<> synthesize(const SynthOptions &options, const std::filesystem::path &out) {
  if (auto preset = find_preset(options); !preset) return preset.error();
  std::filesystem::path part = out;
  part += ".part";
  std::error_code code;
  Result<> result;
  {
    std::ofstream file(part, std::ios::binary | std::ios::trunc);
    if (!file) return Error{Code::kUnavailable, fmt::format("{}: cannot be created", part.string()), {}};
    result = synthesize(options, file);
    file.close();
    if (result && !file) result = Error{Code::kUnavailable, fmt::format("{}: writing failed", part.string()), {}};
  }
  if (result) std::filesystem::rename(part, out, code);
  if (result && code) result = Error{Code::kUnavailable, fmt::format("{}: {}", out.string(), code.message()), {}};
  if (!result) std::filesystem::remove(part, code);
  return result;
}

}  // namespace sluice::model_file

// From file to step program: what is refused, and what a small variation of a good file does.
#include "backends/graph/architectures.hpp"
#include "backends/reference/reference_device.hpp"
#include "core/model_file/gguf_writer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sluice/sdk/error.hpp>

#include <functional>
#include <map>
#include <sstream>

namespace sluice::graph {
namespace {

using model_file::GgufWriter;
using testing::HasSubstr;

struct Tensor {
  std::vector<uint64_t> dims;
  TensorType type = TensorType::kF32;
};

/// A llama of one layer: metadata and tensors, to be changed before it is written.
struct File {
  std::string arch = "llama";
  std::map<std::string, uint32_t> counts{{"embedding_length", 8},        {"block_count", 1},
                                         {"context_length", 64},         {"attention.head_count", 2},
                                         {"attention.head_count_kv", 1}, {"feed_forward_length", 12}};
  std::map<std::string, std::string> text;
  std::map<std::string, Tensor> tensors{{"token_embd.weight", {{8, 20}}},   {"output.weight", {{8, 20}}},
                                        {"output_norm.weight", {{8}}},      {"blk.0.attn_norm.weight", {{8}}},
                                        {"blk.0.attn_q.weight", {{8, 8}}},  {"blk.0.attn_k.weight", {{8, 4}}},
                                        {"blk.0.attn_v.weight", {{8, 4}}},  {"blk.0.attn_output.weight", {{8, 8}}},
                                        {"blk.0.ffn_norm.weight", {{8}}},   {"blk.0.ffn_gate.weight", {{8, 12}}},
                                        {"blk.0.ffn_up.weight", {{8, 12}}}, {"blk.0.ffn_down.weight", {{12, 8}}}};

  std::string bytes() const {
    std::ostringstream out;
    GgufWriter w(out);
    w.string("general.architecture", arch);
    for (const auto &[key, value] : counts) w.u32(arch + "." + key, value);
    for (const auto &[key, value] : text) w.string(arch + "." + key, value);
    w.f32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f);
    for (const auto &[name, t] : tensors) EXPECT_TRUE(w.tensor(name, t.type, t.dims));
    EXPECT_TRUE(w.begin());
    for (const auto &[name, t] : tensors) {
      uint64_t rows = 1;
      for (size_t i = 1; i < t.dims.size(); ++i) rows *= t.dims[i];
      const std::vector<std::byte> zeros(rows * model_file::row_bytes(t.type, t.dims[0]).value());
      EXPECT_TRUE(w.write(zeros));
    }
    EXPECT_TRUE(w.finish());
    return out.str();
  }
};

/// A device without a kernel for one format.
class PickyDevice : public reference::ReferenceDevice {
 public:
  const char *name() const override { return "picky"; }
  bool supports(OpKind op, TensorType type) const override {
    return !(op == OpKind::kLinearGlu && type == TensorType::kF16);
  }
};

/// The built model, or the words of the refusal in `why`.
struct Outcome {
  BuiltModel model;
  int32_t code = 0;
  std::string why;
};
Outcome build(const File &file, const ModelBuilder::Progress &progress = {}) {
  const std::string bytes = file.bytes();
  const auto gguf =
      model_file::Gguf::parse({reinterpret_cast<const std::byte *>(bytes.data()), bytes.size()}, "test.gguf");
  EXPECT_TRUE(gguf);
  PickyDevice device;
  Outcome out;
  try {
    ModelBuilder builder(*gguf, device, progress);
    const Architecture *architecture = find_architecture(builder.arch());
    if (architecture == nullptr) throw sdk::Error(SLUICE_E_UNSUPPORTED, "no architecture");
    out.model = architecture->build(builder);
  } catch (const sdk::Error &e) {
    out.code = e.code;
    out.why = e.what();
  }
  return out;
}
std::string refusal(const std::function<void(File &)> &change) {
  File file;
  change(file);
  return build(file).why;
}

TEST(Loading, AGoodFileBecomesAProgram) {
  const Outcome out = build({});
  ASSERT_EQ(out.why, "");
  EXPECT_EQ(out.model.shape.vocab, 20u);
  EXPECT_EQ(out.model.shape.head_dim, 4u);
  EXPECT_EQ(out.model.program.ops.size(), 1u + 8 + 3);
}

TEST(Loading, TiedOutputUsesTheEmbedding) {
  File file;
  file.tensors.erase("output.weight");
  EXPECT_EQ(build(file).why, "");
}

TEST(Loading, NamesTheTensorOrKey) {
  EXPECT_THAT(refusal([](File &f) { f.tensors.erase("blk.0.ffn_up.weight"); }),
              HasSubstr("no tensor 'blk.0.ffn_up.weight'"));
  EXPECT_THAT(refusal([](File &f) {
                f.tensors["blk.0.attn_k.weight"].dims = {8, 5};
              }),
              HasSubstr("'blk.0.attn_k.weight' is [8,5]; expected [8,4]"));
  EXPECT_THAT(refusal([](File &f) { f.tensors["output_norm.weight"].dims = {9}; }),
              HasSubstr("'output_norm.weight' is [9]"));
  EXPECT_THAT(refusal([](File &f) { f.tensors["token_embd.weight"].dims = {20, 8}; }), HasSubstr("token_embd.weight"));
  EXPECT_THAT(refusal([](File &f) { f.counts.erase("block_count"); }), HasSubstr("llama.block_count"));
  EXPECT_THAT(refusal([](File &f) { f.counts["block_count"] = 0; }),
              HasSubstr("llama.block_count is 0; it must be 1..1024"));
  EXPECT_THAT(refusal([](File &f) { f.counts["attention.head_count_kv"] = 3; }), HasSubstr("not a multiple"));
  EXPECT_THAT(refusal([](File &f) { f.counts["vocab_size"] = 21; }), HasSubstr("vocab_size is 21"));
  EXPECT_THAT(refusal([](File &f) { f.counts["expert_count"] = 8; }), HasSubstr("moe_linear_glu"));
  EXPECT_THAT(refusal([](File &f) { f.text["rope.scaling.type"] = "yarn"; }), HasSubstr("'yarn'"));
  EXPECT_THAT(refusal([](File &f) { f.arch = "mamba"; }), HasSubstr("no architecture"));
  EXPECT_THAT(refusal([](File &f) { f.arch = "qwen2"; }), HasSubstr("attn_q.bias"));
  EXPECT_THAT(refusal([](File &f) { f.arch = "qwen3"; }), HasSubstr("attn_q_norm.weight"));
}

TEST(Loading, AMissingKernelNamesOpFormatAndTensor) {
  File file;
  file.tensors["blk.0.ffn_gate.weight"].type = TensorType::kF16;
  const Outcome out = build(file);
  EXPECT_EQ(out.code, SLUICE_E_UNSUPPORTED);
  EXPECT_THAT(out.why, HasSubstr("op linear_glu has no f16 kernel on device 'picky' (tensor 'blk.0.ffn_gate.weight')"));
}

TEST(Loading, ProgressCountsUpAndCanStop) {
  uint64_t last = 0;
  const auto counting = [&](uint64_t done, uint64_t total) {
    EXPECT_GT(done, last);
    EXPECT_LE(done, total);
    last = done;
    return true;
  };
  EXPECT_EQ(build({}, counting).why, "");
  EXPECT_GT(last, 0u);
  EXPECT_EQ(build({}, [](uint64_t, uint64_t) { return false; }).code, SLUICE_E_CANCELLED);
}

}  // namespace
}  // namespace sluice::graph

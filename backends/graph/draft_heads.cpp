#include "backends/graph/draft_heads.hpp"

#include "core/model_file/gguf.hpp"

#include <sluice/sdk/error.hpp>

#include <algorithm>
#include <charconv>

namespace sluice::graph {
namespace {

constexpr uint32_t kMaxHeads = 32, kMaxLayers = 16;

struct Layer {
  const model_file::Tensor *weight = nullptr, *bias = nullptr;
};
struct Head {
  std::vector<Layer> layers;
  const model_file::Tensor *output = nullptr;
  uint32_t output_at = 0;  ///< the layer number in its name
};

[[noreturn]] void refuse(const model_file::Safetensors &file, const std::string &what) {
  throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, file.name() + ": " + what);
}

std::string file_shape_text(const model_file::Tensor &t) {  // as the file has it: rows first
  std::string text = "[";
  for (uint32_t i = t.n_dims; i > 0; --i) text += std::to_string(t.dims[i - 1]) + (i > 1 ? "," : "]");
  return text;
}

/// "12." at the front of a name; false for anything but a plain number below max.
bool take_number(std::string_view &name, uint32_t max, uint32_t &out) {
  const size_t dot = name.find('.');
  if (dot == 0 || dot == std::string_view::npos || (name[0] == '0' && dot > 1)) return false;
  const auto [end, error] = std::from_chars(name.data(), name.data() + dot, out);
  if (error != std::errc() || end != name.data() + dot || out >= max) return false;
  name.remove_prefix(dot + 1);
  return true;
}

/// Puts a tensor where its name says; false when the name says nothing known.
bool place(const model_file::Tensor &tensor, std::vector<Head> &heads) {
  std::string_view name = tensor.name;
  uint32_t head = 0, layer = 0;
  if (!take_number(name, kMaxHeads, head) || !take_number(name, kMaxLayers, layer)) return false;
  const bool output = name == "weight";
  if (!output && name != "linear.weight" && name != "linear.bias") return false;
  if (heads.size() <= head) heads.resize(head + 1);
  Head &to = heads[head];
  if (output) {
    if (to.output != nullptr) return false;  // a second one, of another layer number
    to.output = &tensor, to.output_at = layer;
    return true;
  }
  if (to.layers.size() <= layer) to.layers.resize(layer + 1);
  (name == "linear.bias" ? to.layers[layer].bias : to.layers[layer].weight) = &tensor;
  return true;
}

std::vector<Head> read_heads(const model_file::Safetensors &file) {
  std::vector<Head> heads;
  for (const model_file::Tensor &t : file.tensors())
    if (!place(t, heads))
      refuse(file, "tensor '" + model_file::printable(t.name) +
                       "' is none of Medusa heads: {head}.{layer}.linear.weight, .linear.bias, and one {head}.{layer}"
                       ".weight behind the layers of each head");
  if (heads.empty()) refuse(file, "there are no draft heads in it");
  for (size_t i = 0; i < heads.size(); ++i) {
    const Head &h = heads[i];
    const std::string head = std::to_string(i);
    if (h.layers.empty() && h.output == nullptr) refuse(file, "head " + head + " is missing");
    for (size_t l = 0; l < h.layers.size(); ++l)
      if (h.layers[l].weight == nullptr)
        refuse(file, "tensor '" + head + "." + std::to_string(l) + ".linear.weight' is missing");
    if ((h.output == nullptr) != (heads[0].output == nullptr))
      refuse(file, "head " + head + (h.output == nullptr ? " has no" : " has an") +
                       " output matrix of its own, unlike head 0; all must have one or none");
    if (h.output != nullptr && h.output_at != h.layers.size())
      refuse(file, "tensor '" + std::string(h.output->name) + "' should stand behind the head's " +
                       std::to_string(h.layers.size()) + " layers");
  }
  return heads;
}

/// Adds heads to one model.
class HeadBuilder {
 public:
  HeadBuilder(const model_file::Safetensors &file, Device &device, BuiltModel &model)
      : file_(file), device_(device), model_(model), hidden_(model.shape.hidden), vocab_(model.shape.vocab) {}

  void run() {
    const std::vector<Head> heads = read_heads(file_);
    Program &p = model_.program;
    p.n_heads = model_.shape.n_heads = static_cast<uint32_t>(heads.size());
    p.head_top = model_.shape.head_top = std::min(kHeadTop, vocab_);
    const Slot last = p.add_activation("head rows", Extent::kHeadRows, hidden_);
    const Slot x = p.add_activation("head residual", Extent::kHeadRows, hidden_);
    const Slot y = p.add_activation("head layer", Extent::kHeadRows, hidden_);
    const Slot logits = p.add_activation("head logits", Extent::kHeadRows, vocab_);
    p.ops.push_back(GatherRowsOp{model_.last_hidden, last, hidden_, Extent::kHeadRows});
    for (uint32_t i = 0; i < p.n_heads; ++i) {
      Slot from = last;
      for (const Layer &layer : heads[i].layers) {
        linear(matrix(*layer.weight, hidden_), from, y, hidden_, layer.bias);
        p.ops.push_back(SiluAddOp{y, from, x, Extent::kHeadRows, hidden_});
        from = x;
      }
      linear(heads[i].output == nullptr ? model_.output : matrix(*heads[i].output, vocab_), from, logits, vocab_,
             nullptr);
      p.ops.push_back(TopOp{logits, vocab_, i, p.n_heads, p.head_top});
    }
  }

 private:
  void linear(WeightId weight, Slot in, Slot out, uint32_t n_out, const model_file::Tensor *bias) {
    model_.program.ops.push_back(LinearOp{weight, in, out, Extent::kHeadRows, hidden_, n_out,
                                          bias == nullptr ? Buffer{} : vector(*bias), false});
  }

  void expect(const model_file::Tensor &t, uint32_t n_dims, uint64_t rows) const {
    const bool fits = t.n_dims == n_dims && t.dims[0] == hidden_ && t.dims[1] == rows;
    if (fits) return;
    const std::string wanted = (n_dims == 2 ? "[" + std::to_string(rows) + "," : "[") + std::to_string(hidden_) + "]";
    refuse(file_, "tensor '" + std::string(t.name) + "' is " + file_shape_text(t) + "; this model needs " + wanted +
                      " (hidden size " + std::to_string(hidden_) + ", vocabulary " + std::to_string(vocab_) + ")");
  }

  WeightId matrix(const model_file::Tensor &t, uint32_t rows) {
    expect(t, 2, rows);
    if (!device_.supports(OpKind::kLinear, t.type))
      throw sdk::Error(SLUICE_E_UNSUPPORTED,
                       std::string("op linear has no ") + std::string(model_file::type_name(t.type)) +
                           " kernel on device '" + device_.name() + "' (tensor '" + std::string(t.name) + "')");
    return device_.add_weight({WeightUse::kLinear, hidden_, {{std::string(t.name), t.type, t.bytes.data(), rows}}});
  }

  Buffer vector(const model_file::Tensor &t) {
    expect(t, 1, 1);
    std::vector<float> values(hidden_);
    model_file::dequantize_row(t.type, t.bytes.data(), values.data(), hidden_);
    const Buffer buffer = device_.allocate(values.size() * sizeof(float), BufferUse::kDevice);
    device_.upload(buffer, values.data(), values.size() * sizeof(float));
    return buffer;
  }

  const model_file::Safetensors &file_;
  Device &device_;
  BuiltModel &model_;
  const uint32_t hidden_, vocab_;
};

}  // namespace

void add_draft_heads(const model_file::Safetensors &file, Device &device, BuiltModel &model) {
  HeadBuilder(file, device, model).run();
}

}  // namespace sluice::graph

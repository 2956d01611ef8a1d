// What an architecture is given to build from: the file's metadata and tensors, checked, and the device they go to.
#pragma once
#include "backends/graph/program.hpp"
#include "core/model_file/gguf.hpp"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace sluice::graph {

/// What the host is told about a model, and what sizes its cache.
struct ModelShape {
  std::string arch;
  uint32_t vocab = 0, hidden = 0, layers = 0, max_context_tokens = 0;
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  uint32_t n_heads = 0, head_top = 0;  ///< attached draft heads, and candidates of each
};

struct BuiltModel {
  ModelShape shape;
  Program program;
  Slot last_hidden = 0;  ///< [rows, hidden] what the output matrix is given
  WeightId output;       ///< [vocab, hidden]
};

/// Reads metadata and moves tensors to the device. Every call throws sdk::Error: INVALID_ARGUMENT names the key or
/// tensor, UNSUPPORTED names the op and the format, CANCELLED when progress said stop. [init]
class ModelBuilder {
 public:
  using Progress = std::function<bool(uint64_t done_bytes, uint64_t total_bytes)>;
  ModelBuilder(const model_file::Gguf &file, Device &device, Progress progress);

  /// Metadata under "<arch>.<key>".
  uint32_t count(const std::string &key, uint32_t min, uint32_t max) const;
  std::optional<uint32_t> optional_count(const std::string &key, uint32_t min, uint32_t max) const;
  float number(const std::string &key) const;
  std::optional<float> optional_number(const std::string &key) const;
  std::optional<std::string> optional_text(const std::string &key) const;
  const std::string &arch() const { return arch_; }

  bool has_tensor(const std::string &name) const;
  /// Rows of a matrix tensor, checked against cols.
  uint64_t rows_of(const std::string &name, uint64_t cols) const;

  struct Rows {
    std::string name;
    uint64_t rows;
  };
  /// Tensors [rows, cols] each, packed for one use.
  WeightId matrix(WeightUse use, const std::vector<Rows> &parts, uint64_t cols);
  /// f32 vectors laid end to end; F16 and BF16 are widened.
  Buffer vector(const std::vector<Rows> &parts);
  Buffer constant(const std::vector<float> &values);
  /// The values of a small tensor.
  std::vector<float> values(const std::string &name, uint64_t n) const;

 private:
  const model_file::Tensor &tensor(const std::string &name) const;
  void advance(uint64_t bytes);

  const model_file::Gguf &file_;
  Device &device_;
  Progress progress_;
  std::string arch_;
  uint64_t done_bytes_ = 0, total_bytes_ = 0;
};

}  // namespace sluice::graph

#pragma once
#include "core/base/error.hpp"
#include "core/model_file/mapped_file.hpp"
#include "core/model_file/tensor.hpp"

#include <deque>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

namespace sluice::model_file {

/// What a file may claim. A file beyond a limit is refused, never truncated.
struct SafetensorsLimits {
  static constexpr uint64_t kHeaderBytes = 4ull << 20;
  static constexpr uint64_t kTensors = 65536;
  static constexpr uint64_t kTensorNameBytes = 1024;
};

/// A safetensors file: u64 header length, a JSON object of tensors, their bytes end to end. Length, shapes and offsets
/// were checked when it was opened: as the format demands, the tensors cover the data without gap or overlap.
/// F32, F16 and BF16 are read. Views point into the mapping and live as long as this object, also when it is moved.
/// Immutable. [any]
/// source  https://github.com/huggingface/safetensors, "Format"
class Safetensors {
 public:
  /// errors  kNotFound, kUnavailable, kInvalidArgument (names the file and the tensor),
  ///         kUnsupported (a dtype that is valid but not read here).
  static Result<Safetensors> open(const std::filesystem::path &path);

  /// As open(), from memory that outlives the object. name stands for the path in messages.
  static Result<Safetensors> parse(std::span<const std::byte> bytes, std::string name);

  const std::string &name() const { return name_; }
  Result<> check_unchanged() const { return file_.check_unchanged(); }

  /// In the order of the data. A shape [n, m] of the file is dims {m, n}; a scalar is a vector of one.
  std::span<const Tensor> tensors() const { return tensors_; }
  const Tensor *find_tensor(std::string_view name) const;  ///< null: none of that name

 private:
  friend class SafetensorsParser;
  MappedFile file_;
  std::string name_;
  std::deque<std::string> names_;  ///< what the tensors' names point to: in the file they may be escaped
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string_view, size_t> index_;
};

}  // namespace sluice::model_file

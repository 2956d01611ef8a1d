#pragma once
#include "core/base/error.hpp"
#include "core/model_file/formats.hpp"

#include <cstdint>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::model_file {

/// Writes a GGUF v3 file front to back: first all keys and tensors are declared, then begin(), then every tensor's
/// bytes in the order of declaration, in pieces of any size, then finish(). Does not check for duplicate names.
/// [any], one thread at a time
class GgufWriter {
 public:
  /// out  outlives the writer; binary.
  explicit GgufWriter(std::ostream &out) : out_(out) {}

  void u32(std::string_view key, uint32_t value);
  void f32(std::string_view key, float value);
  void boolean(std::string_view key, bool value);
  void string(std::string_view key, std::string_view value);
  void strings(std::string_view key, std::span<const std::string> values);
  void floats(std::string_view key, std::span<const float> values);
  void ints(std::string_view key, std::span<const int32_t> values);

  /// dims  1 to 4, the contiguous one first
  /// errors  kInvalidArgument (the row is no whole number of blocks, too many dims)
  Result<> tensor(std::string_view name, TensorType type, std::span<const uint64_t> dims);

  /// Writes the header. Nothing may be declared afterwards.
  Result<> begin();

  /// The next bytes of the current tensor. A piece never spans two tensors.
  Result<> write(std::span<const std::byte> piece);

  /// errors  kInvalidArgument (tensor bytes are missing), kUnavailable (the stream failed)
  Result<> finish();

  uint64_t data_bytes() const { return data_bytes_; }  ///< of all declared tensors, padding included

 private:
  void key(std::string_view key, uint32_t type);
  Result<> pad_to(uint64_t alignment);
  Result<> put(const void *bytes, size_t size_bytes);

  std::ostream &out_;
  std::string metadata_;
  std::string tensor_infos_;
  std::vector<uint64_t> tensor_bytes_;
  uint64_t n_keys_ = 0;
  uint64_t data_bytes_ = 0;
  uint64_t written_bytes_ = 0;
  size_t current_tensor_ = 0;
  uint64_t current_bytes_ = 0;  // written of the current tensor
};

}  // namespace sluice::model_file

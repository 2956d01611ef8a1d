#pragma once
#include "core/base/error.hpp"
#include "core/model_file/formats.hpp"
#include "core/model_file/mapped_file.hpp"
#include "core/model_file/tensor.hpp"

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sluice::model_file {

/// GGUF's metadata types, by the file's numbers.
enum class ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

/// What a file may claim. A file beyond a limit is refused, never truncated.
struct GgufLimits {
  static constexpr uint64_t kMetadataBytes = 256ull << 20;
  static constexpr uint64_t kStringBytes = 16ull << 20;
  static constexpr uint64_t kKeyBytes = 65535;
  static constexpr uint64_t kTensorNameBytes = 1024;
  static constexpr uint64_t kKeys = 65536;
  static constexpr uint64_t kTensors = 262144;
  static constexpr uint64_t kAlignment = 64 << 10;
};

/// One metadata value as the file encodes it: little endian, an array's elements back to back, a string with its
/// 64-bit length before it.
struct MetadataValue {
  ValueType type = ValueType::kU8;  ///< an array's: that of its elements, never kArray
  bool is_array = false;
  uint64_t count = 1;  ///< elements; 1 for a scalar
  std::span<const std::byte> encoded;
};

/// A GGUF file, version 2 or 3, little endian: every count, length, offset and product was checked when it was opened.
/// All views point into the mapping and live as long as this object, also when it is moved. Immutable. [any]
class Gguf {
 public:
  /// errors  kNotFound, kUnavailable, kInvalidArgument (names the file, the entry and the offset),
  ///         kUnsupported (a version, byte order or tensor type that is valid but not read here).
  static Result<Gguf> open(const std::filesystem::path &path);

  /// As open(), from memory that outlives the object. name stands for the path in messages.
  static Result<Gguf> parse(std::span<const std::byte> bytes, std::string name);

  const std::string &name() const { return name_; }
  uint32_t version() const { return version_; }
  uint64_t file_bytes() const { return bytes_.size(); }
  Result<> check_unchanged() const { return file_.check_unchanged(); }

  /// In the order of the file.
  std::span<const Tensor> tensors() const { return tensors_; }
  const Tensor *find_tensor(std::string_view name) const;  ///< null: none of that name
  Result<Tensor> tensor(std::string_view name) const;      ///< kNotFound

  bool has(std::string_view key) const { return find(key) != nullptr; }
  const MetadataValue *find(std::string_view key) const;
  std::span<const std::string_view> keys() const { return keys_; }  ///< in the order of the file

  // A key that must be there. Any integer type is taken when the value fits; f32() takes every numeric type.
  // errors  kNotFound (no such key), kInvalidArgument (another type, out of range)
  Result<uint32_t> u32(std::string_view key) const;
  Result<uint64_t> u64(std::string_view key) const;
  Result<float> f32(std::string_view key) const;
  Result<bool> boolean(std::string_view key) const;
  Result<std::string_view> string(std::string_view key) const;
  Result<std::vector<std::string_view>> strings(std::string_view key) const;
  Result<std::vector<float>> floats(std::string_view key) const;
  Result<std::vector<int32_t>> ints(std::string_view key) const;

  // A key that may be missing: then the fallback; a key of another type is an error all the same.
  Result<uint32_t> u32_or(std::string_view key, uint32_t fallback) const;
  Result<float> f32_or(std::string_view key, float fallback) const;
  Result<bool> boolean_or(std::string_view key, bool fallback) const;
  Result<std::string_view> string_or(std::string_view key, std::string_view fallback) const;

 private:
  friend class GgufParser;
  Result<const MetadataValue *> typed(std::string_view key, bool is_array, std::string_view wanted) const;

  MappedFile file_;
  std::span<const std::byte> bytes_;
  std::string name_;
  uint32_t version_ = 0;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
  std::vector<std::string_view> keys_;
  std::unordered_map<std::string_view, MetadataValue> metadata_;
};

/// Text from a file, fit for a message: at most 64 bytes, control bytes and invalid bytes as \xNN. [any]
std::string printable(std::string_view text);

}  // namespace sluice::model_file

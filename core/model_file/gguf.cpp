#include "core/model_file/gguf.hpp"

#include <fmt/format.h>
#include <cmath>
#include <limits>
#include <optional>

namespace sluice::model_file {
namespace {

template <class T>
T load(const std::byte *from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// An integer element as sign and magnitude bits; empty when the type is no integer.
struct Integer {
  bool negative;
  uint64_t bits;  // two's complement
};

Integer signed_integer(int64_t value) { return {value < 0, static_cast<uint64_t>(value)}; }

std::optional<Integer> load_integer(ValueType type, const std::byte *from) {
  switch (type) {
    case ValueType::kU8:
      return Integer{false, load<uint8_t>(from)};
    case ValueType::kU16:
      return Integer{false, load<uint16_t>(from)};
    case ValueType::kU32:
      return Integer{false, load<uint32_t>(from)};
    case ValueType::kU64:
      return Integer{false, load<uint64_t>(from)};
    case ValueType::kI8:
      return signed_integer(load<int8_t>(from));
    case ValueType::kI16:
      return signed_integer(load<int16_t>(from));
    case ValueType::kI32:
      return signed_integer(load<int32_t>(from));
    case ValueType::kI64:
      return signed_integer(load<int64_t>(from));
    default:
      return std::nullopt;
  }
}

std::optional<float> load_number(ValueType type, const std::byte *from) {
  if (type == ValueType::kF32) return load<float>(from);
  if (type == ValueType::kF64) {
    const auto value = load<double>(from);
    if (std::isfinite(value) && std::fabs(value) > std::numeric_limits<float>::max()) return std::nullopt;
    return static_cast<float>(value);
  }
  const auto integer = load_integer(type, from);
  if (!integer) return std::nullopt;
  return integer->negative ? static_cast<float>(static_cast<int64_t>(integer->bits))
                           : static_cast<float>(integer->bits);
}

std::string_view load_string(const std::byte *from) {
  return {reinterpret_cast<const char *>(from + 8), load<uint64_t>(from)};
}

size_t stride_bytes(const MetadataValue &value) { return value.count == 0 ? 0 : value.encoded.size() / value.count; }

Error wrong_type(const Gguf &file, std::string_view key, std::string_view wanted) {
  return invalid_argument(fmt::format("{}: metadata '{}' must be {}", file.name(), key, wanted));
}

Result<uint64_t> unsigned_value(const Gguf &file, std::string_view key, const MetadataValue &value, uint64_t maximum) {
  const auto integer = load_integer(value.type, value.encoded.data());
  if (!integer) return wrong_type(file, key, "an integer");
  if (integer->negative || integer->bits > maximum)
    return invalid_argument(fmt::format("{}: metadata '{}' is {}{}; it must be 0..{}", file.name(), key,
                                        integer->negative ? "-" : "",
                                        integer->negative ? 0 - integer->bits : integer->bits, maximum));
  return integer->bits;
}

}  // namespace

const Tensor *Gguf::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

Result<Tensor> Gguf::tensor(std::string_view name) const {
  if (const Tensor *found = find_tensor(name)) return *found;
  return Error{Code::kNotFound, fmt::format("{}: the file has no tensor '{}'", name_, name), {}};
}

const MetadataValue *Gguf::find(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

Result<const MetadataValue *> Gguf::typed(std::string_view key, bool is_array, std::string_view wanted) const {
  const MetadataValue *value = find(key);
  if (value == nullptr)
    return Error{Code::kNotFound, fmt::format("{}: the file has no metadata key '{}'", name_, key), {}};
  if (value->is_array != is_array) return wrong_type(*this, key, wanted);
  return value;
}

Result<uint32_t> Gguf::u32(std::string_view key) const {
  auto value = typed(key, false, "an integer");
  if (!value) return value.error();
  auto number = unsigned_value(*this, key, **value, std::numeric_limits<uint32_t>::max());
  if (!number) return number.error();
  return static_cast<uint32_t>(*number);
}

Result<uint64_t> Gguf::u64(std::string_view key) const {
  auto value = typed(key, false, "an integer");
  if (!value) return value.error();
  return unsigned_value(*this, key, **value, std::numeric_limits<uint64_t>::max());
}

Result<float> Gguf::f32(std::string_view key) const {
  auto value = typed(key, false, "a number");
  if (!value) return value.error();
  const auto number = load_number((*value)->type, (*value)->encoded.data());
  if (!number || !std::isfinite(*number)) return wrong_type(*this, key, "a finite number");
  return *number;
}

Result<bool> Gguf::boolean(std::string_view key) const {
  auto value = typed(key, false, "a boolean");
  if (!value) return value.error();
  if ((*value)->type != ValueType::kBool) return wrong_type(*this, key, "a boolean");
  return (*value)->encoded[0] != std::byte{0};
}

Result<std::string_view> Gguf::string(std::string_view key) const {
  auto value = typed(key, false, "a string");
  if (!value) return value.error();
  if ((*value)->type != ValueType::kString) return wrong_type(*this, key, "a string");
  return load_string((*value)->encoded.data());
}

Result<std::vector<std::string_view>> Gguf::strings(std::string_view key) const {
  auto value = typed(key, true, "an array of strings");
  if (!value) return value.error();
  if ((*value)->type != ValueType::kString) return wrong_type(*this, key, "an array of strings");
  std::vector<std::string_view> out;
  out.reserve((*value)->count);
  const std::byte *from = (*value)->encoded.data();
  for (uint64_t i = 0; i < (*value)->count; ++i) {
    out.push_back(load_string(from));
    from += 8 + out.back().size();
  }
  return out;
}

Result<std::vector<float>> Gguf::floats(std::string_view key) const {
  auto value = typed(key, true, "an array of numbers");
  if (!value) return value.error();
  const MetadataValue &array = **value;
  std::vector<float> out;
  if (array.type == ValueType::kString || array.type == ValueType::kBool)
    return wrong_type(*this, key, "an array of numbers");
  out.reserve(array.count);
  for (uint64_t i = 0; i < array.count; ++i) {
    const auto number = load_number(array.type, array.encoded.data() + i * stride_bytes(array));
    if (!number) return wrong_type(*this, key, "an array of numbers that fit f32");
    out.push_back(*number);
  }
  return out;
}

Result<std::vector<int32_t>> Gguf::ints(std::string_view key) const {
  auto value = typed(key, true, "an array of integers");
  if (!value) return value.error();
  const MetadataValue &array = **value;
  if (array.count > 0 && array.type == ValueType::kString) return wrong_type(*this, key, "an array of integers");
  std::vector<int32_t> out;
  out.reserve(array.count);
  for (uint64_t i = 0; i < array.count; ++i) {
    const auto integer = load_integer(array.type, array.encoded.data() + i * stride_bytes(array));
    if (!integer) return wrong_type(*this, key, "an array of integers");
    const auto number = static_cast<int64_t>(integer->bits);
    if ((!integer->negative && number < 0) || number < std::numeric_limits<int32_t>::min() ||
        number > std::numeric_limits<int32_t>::max())
      return wrong_type(*this, key, "an array of 32-bit integers");
    out.push_back(static_cast<int32_t>(number));
  }
  return out;
}

Result<uint32_t> Gguf::u32_or(std::string_view key, uint32_t fallback) const {
  return has(key) ? u32(key) : Result<uint32_t>(fallback);
}
Result<float> Gguf::f32_or(std::string_view key, float fallback) const {
  return has(key) ? f32(key) : Result<float>(fallback);
}
Result<bool> Gguf::boolean_or(std::string_view key, bool fallback) const {
  return has(key) ? boolean(key) : Result<bool>(fallback);
}
Result<std::string_view> Gguf::string_or(std::string_view key, std::string_view fallback) const {
  return has(key) ? string(key) : Result<std::string_view>(fallback);
}

}  // namespace sluice::model_file

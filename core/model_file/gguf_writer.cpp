#include "core/model_file/gguf_writer.hpp"

#include "core/model_file/checked.hpp"
#include "core/model_file/gguf.hpp"

#include <fmt/format.h>

namespace sluice::model_file {
namespace {

constexpr uint64_t kAlignment = 32;

template <class T>
void append(std::string &to, T value) {
  to.append(reinterpret_cast<const char *>(&value), sizeof value);
}

void append_string(std::string &to, std::string_view text) {
  append(to, uint64_t{text.size()});
  to.append(text);
}

void append_array(std::string &to, ValueType type, size_t count) {
  append(to, static_cast<uint32_t>(type));
  append(to, uint64_t{count});
}

}  // namespace

void GgufWriter::key(std::string_view key, uint32_t type) {
  append_string(metadata_, key);
  append(metadata_, type);
  ++n_keys_;
}

void GgufWriter::u32(std::string_view name, uint32_t value) {
  key(name, static_cast<uint32_t>(ValueType::kU32));
  append(metadata_, value);
}

void GgufWriter::f32(std::string_view name, float value) {
  key(name, static_cast<uint32_t>(ValueType::kF32));
  append(metadata_, value);
}

void GgufWriter::boolean(std::string_view name, bool value) {
  key(name, static_cast<uint32_t>(ValueType::kBool));
  append(metadata_, static_cast<uint8_t>(value));
}

void GgufWriter::string(std::string_view name, std::string_view value) {
  key(name, static_cast<uint32_t>(ValueType::kString));
  append_string(metadata_, value);
}

void GgufWriter::strings(std::string_view name, std::span<const std::string> values) {
  key(name, static_cast<uint32_t>(ValueType::kArray));
  append_array(metadata_, ValueType::kString, values.size());
  for (const std::string &value : values) append_string(metadata_, value);
}

void GgufWriter::floats(std::string_view name, std::span<const float> values) {
  key(name, static_cast<uint32_t>(ValueType::kArray));
  append_array(metadata_, ValueType::kF32, values.size());
  for (const float value : values) append(metadata_, value);
}

void GgufWriter::ints(std::string_view name, std::span<const int32_t> values) {
  key(name, static_cast<uint32_t>(ValueType::kArray));
  append_array(metadata_, ValueType::kI32, values.size());
  for (const int32_t value : values) append(metadata_, value);
}

Result<> GgufWriter::tensor(std::string_view name, TensorType type, std::span<const uint64_t> dims) {
  if (dims.empty() || dims.size() > 4)
    return invalid_argument(fmt::format("tensor '{}' has {} dimensions; 1 to 4 are possible", name, dims.size()));
  auto row = row_bytes(type, dims[0]);
  if (!row) return invalid_argument(fmt::format("tensor '{}': {}", name, row.error().message));
  uint64_t size_bytes = *row;
  uint64_t end = 0;
  bool fits = true;
  for (const uint64_t dim : dims.subspan(1)) fits = fits && checked_mul(size_bytes, dim, size_bytes);
  if (!fits || !checked_add(data_bytes_, size_bytes, end) || !checked_align(end, kAlignment, end))
    return invalid_argument(fmt::format("tensor '{}' exceeds 64 bits of bytes", name));
  append_string(tensor_infos_, name);
  append(tensor_infos_, static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) append(tensor_infos_, dim);
  append(tensor_infos_, static_cast<uint32_t>(type));
  append(tensor_infos_, data_bytes_);
  tensor_bytes_.push_back(size_bytes);
  data_bytes_ = end;
  return {};
}

Result<> GgufWriter::begin() {
  std::string header = "GGUF";
  append(header, uint32_t{3});
  append(header, uint64_t{tensor_bytes_.size()});
  append(header, n_keys_);
  header += metadata_;
  header += tensor_infos_;
  if (auto r = put(header.data(), header.size()); !r) return r;
  return pad_to(kAlignment);
}

Result<> GgufWriter::write(std::span<const std::byte> piece) {
  if (current_tensor_ == tensor_bytes_.size() || piece.size() > tensor_bytes_[current_tensor_] - current_bytes_)
    return invalid_argument(fmt::format("tensor {} is given more bytes than it was declared with", current_tensor_));
  if (auto r = put(piece.data(), piece.size()); !r) return r;
  current_bytes_ += piece.size();
  if (current_bytes_ < tensor_bytes_[current_tensor_]) return {};
  ++current_tensor_;
  current_bytes_ = 0;
  return pad_to(kAlignment);
}

Result<> GgufWriter::finish() {
  if (current_tensor_ != tensor_bytes_.size())
    return invalid_argument(
        fmt::format("tensor {} of {} was not written in full", current_tensor_, tensor_bytes_.size()));
  out_.flush();
  return put(nullptr, 0);
}

Result<> GgufWriter::pad_to(uint64_t alignment) {
  static constexpr char kZeros[kAlignment] = {};
  const uint64_t over = written_bytes_ % alignment;
  return over == 0 ? Result<>() : put(kZeros, alignment - over);
}

Result<> GgufWriter::put(const void *bytes, size_t size_bytes) {
  if (size_bytes > 0) out_.write(static_cast<const char *>(bytes), static_cast<std::streamsize>(size_bytes));
  if (!out_) return Error{Code::kUnavailable, "writing the model file failed; is the disk full?", {}};
  written_bytes_ += size_bytes;
  return {};
}

}  // namespace sluice::model_file

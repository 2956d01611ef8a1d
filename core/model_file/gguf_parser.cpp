// Reading the header of a GGUF file. Nothing here trusts a number before it was compared with what is left of the file.
#include "core/model_file/checked.hpp"
#include "core/model_file/gguf.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <bit>

namespace sluice::model_file {

static_assert(std::endian::native == std::endian::little, "GGUF is read in place; a big-endian host needs a copy");

namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kMinKeyValueBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorInfoBytes = 8 + 4 + 8 + 4 + 8;

/// Bytes of one element; 0 for a string, whose size varies, and for anything that is no element type.
uint64_t element_bytes(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
      return 1;
    case ValueType::kU16:
    case ValueType::kI16:
      return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32:
      return 4;
    case ValueType::kU64:
    case ValueType::kI64:
    case ValueType::kF64:
      return 8;
    case ValueType::kString:
    case ValueType::kArray:
      return 0;
  }
  return 0;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 64)) {
    if (c >= 0x20 && c < 0x7f)
      out += c;
    else
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  if (text.size() > 64) out += "...";
  return out;
}

/// Fills a Gguf from bytes_. Always: at_ <= bytes().size().
class GgufParser {
 public:
  explicit GgufParser(Gguf &file) : file_(file) {}

  Result<> run() {
    uint64_t n_tensors = 0;
    uint64_t n_keys = 0;
    if (auto r = header(n_tensors, n_keys); !r) return r;
    for (uint64_t i = 0; i < n_keys; ++i)
      if (auto r = key_value(i); !r) return r;
    uint64_t alignment = 32;
    if (auto r = read_alignment(alignment); !r) return r;
    file_.tensors_.reserve(n_tensors);
    offsets_.reserve(n_tensors);
    for (uint64_t i = 0; i < n_tensors; ++i)
      if (auto r = tensor_info(i, alignment); !r) return r;
    return place_tensors(alignment);
  }

 private:
  std::span<const std::byte> bytes() const { return file_.bytes_; }
  uint64_t left() const { return bytes().size() - at_; }

  template <class... A>
  Error bad(fmt::format_string<A...> text, A &&...a) const {
    return invalid_argument(
        fmt::format("{}: {} (at byte {})", file_.name_, fmt::format(text, std::forward<A>(a)...), at_));
  }
  Error cut_short(std::string_view what) const { return bad("the file ends inside {}; it is truncated", what); }

  template <class T>
  bool read(T &out) {
    if (left() < sizeof(T)) return false;
    std::memcpy(&out, bytes().data() + at_, sizeof(T));
    at_ += sizeof(T);
    return true;
  }

  Result<std::string_view> read_string(std::string_view what, uint64_t limit_bytes) {
    uint64_t length = 0;
    if (!read(length)) return cut_short(what);
    if (length > limit_bytes) return bad("{} claims {} bytes; the limit is {}", what, length, limit_bytes);
    if (length > left()) return cut_short(what);
    const std::string_view text(reinterpret_cast<const char *>(bytes().data() + at_), length);
    at_ += length;
    return text;
  }

  Result<> header(uint64_t &n_tensors, uint64_t &n_keys) {
    uint32_t magic = 0;
    if (!read(magic) || magic != kMagic) return bad("not a GGUF file: it does not begin with 'GGUF'");
    if (!read(file_.version_)) return cut_short("the header");
    if (file_.version_ == 0x03000000 || file_.version_ == 0x02000000)
      return Error{Code::kUnsupported, file_.name_ + ": a big-endian GGUF file; convert it to little endian", {}};
    if (file_.version_ != 2 && file_.version_ != 3)
      return Error{Code::kUnsupported,
                   fmt::format("{}: GGUF version {}; versions 2 and 3 are read", file_.name_, file_.version_),
                   {}};
    if (!read(n_tensors) || !read(n_keys)) return cut_short("the header");
    if (n_tensors > GgufLimits::kTensors || n_tensors > left() / kMinTensorInfoBytes)
      return bad("{} tensors are claimed; {} bytes of file cannot hold them", n_tensors, left());
    if (n_keys > GgufLimits::kKeys || n_keys > left() / kMinKeyValueBytes)
      return bad("{} metadata keys are claimed; {} bytes of file cannot hold them", n_keys, left());
    return {};
  }

  Result<> key_value(uint64_t index) {
    auto key = read_string("a metadata key", GgufLimits::kKeyBytes);
    if (!key) return key.error();
    if (key->empty()) return bad("metadata key {} is empty", index);
    auto value = read_value(*key);
    if (!value) return value.error();
    if (at_ > GgufLimits::kMetadataBytes) return bad("the metadata exceeds {} MiB", GgufLimits::kMetadataBytes >> 20);
    if (!file_.metadata_.emplace(*key, *value).second) return bad("metadata key '{}' appears twice", printable(*key));
    file_.keys_.push_back(*key);
    return {};
  }

  Result<MetadataValue> read_value(std::string_view key) {
    MetadataValue value;
    uint32_t type = 0;
    if (!read(type)) return cut_short("a metadata value");
    if (type == static_cast<uint32_t>(ValueType::kArray)) {
      value.is_array = true;
      if (!read(type) || !read(value.count)) return cut_short("a metadata array");
      if (type == static_cast<uint32_t>(ValueType::kArray))
        return bad("'{}' is an array of arrays, which no known key is", printable(key));
    }
    if (type > static_cast<uint32_t>(ValueType::kF64))
      return bad("'{}' has metadata type {}, which does not exist", printable(key), type);
    value.type = static_cast<ValueType>(type);
    const uint64_t begin = at_;
    if (auto r = skip_elements(key, value); !r) return r.error();
    value.encoded = bytes().subspan(begin, at_ - begin);
    return value;
  }

  Result<> skip_elements(std::string_view key, const MetadataValue &value) {
    if (value.type == ValueType::kString) {
      if (value.count > left() / 8)
        return bad("'{}' claims {} strings; the file is too short", printable(key), value.count);
      for (uint64_t i = 0; i < value.count; ++i)
        if (auto text = read_string("a metadata string", GgufLimits::kStringBytes); !text) return text.error();
      return {};
    }
    uint64_t size_bytes = 0;
    if (!checked_mul(value.count, element_bytes(value.type), size_bytes) || size_bytes > left())
      return bad("'{}' claims {} elements; the file is too short", printable(key), value.count);
    if (value.type == ValueType::kBool)
      for (uint64_t i = 0; i < size_bytes; ++i)
        if (std::to_integer<unsigned>(bytes()[at_ + i]) > 1)
          return bad("'{}' is a boolean but neither 0 nor 1", printable(key));
    at_ += size_bytes;
    return {};
  }

  Result<> read_alignment(uint64_t &alignment) const {
    if (!file_.has("general.alignment")) return {};
    auto declared = file_.u32("general.alignment");
    if (!declared) return declared.error();
    if (!std::has_single_bit(*declared) || *declared > GgufLimits::kAlignment)
      return bad("general.alignment is {}; it must be a power of two up to {}", *declared, GgufLimits::kAlignment);
    alignment = *declared;
    return {};
  }

  Result<> tensor_info(uint64_t index, uint64_t alignment) {
    Tensor tensor;
    auto name = read_string("a tensor name", GgufLimits::kTensorNameBytes);
    if (!name) return name.error();
    if (name->empty()) return bad("tensor {} has no name", index);
    tensor.name = *name;
    if (!read(tensor.n_dims)) return cut_short("a tensor");
    if (tensor.n_dims < 1 || tensor.n_dims > 4)
      return bad("tensor '{}' has {} dimensions; 1 to 4 are possible", printable(*name), tensor.n_dims);
    for (uint32_t d = 0; d < tensor.n_dims; ++d) {
      if (!read(tensor.dims[d])) return cut_short("a tensor");
      if (tensor.dims[d] == 0) return bad("tensor '{}' has a dimension of 0", printable(*name));
    }
    uint32_t type = 0;
    uint64_t offset = 0;
    if (!read(type) || !read(offset)) return cut_short("a tensor");
    const auto known = type_from_id(type);
    if (!known) return unsupported_type(*name, type);
    tensor.type = *known;
    if (offset % alignment != 0)
      return bad("tensor '{}' lies at offset {}, no multiple of {}", printable(*name), offset, alignment);
    if (!file_.tensor_index_.emplace(*name, file_.tensors_.size()).second)
      return bad("tensor '{}' appears twice", printable(*name));
    file_.tensors_.push_back(tensor);
    offsets_.push_back(offset);
    return {};
  }

  Error unsupported_type(std::string_view name, uint32_t type) const {
    std::string supported;
    for (const TypeInfo &info : all_types()) supported += fmt::format(" {}", info.name);
    return {Code::kUnsupported,
            fmt::format("{}: tensor '{}' has type {} ({}); supported:{}", file_.name_, printable(name), type,
                        ggml_type_name(type), supported),
            {}};
  }

  /// Gives every tensor its bytes; refuses one that reaches beyond the file or into another.
  Result<> place_tensors(uint64_t alignment) {
    uint64_t data_begin = 0;
    if (!checked_align(at_, alignment, data_begin)) return bad("the header is too long");
    for (size_t i = 0; i < file_.tensors_.size(); ++i) {
      Tensor &tensor = file_.tensors_[i];
      auto size_bytes = row_bytes(tensor.type, tensor.dims[0]);
      if (!size_bytes) return bad("tensor '{}': {}", printable(tensor.name), size_bytes.error().message);
      uint64_t total = *size_bytes;
      bool fits = checked_mul(total, tensor.dims[1], total) && checked_mul(total, tensor.dims[2], total) &&
                  checked_mul(total, tensor.dims[3], total);
      uint64_t begin = 0;
      uint64_t end = 0;
      fits = fits && checked_add(data_begin, offsets_[i], begin) && checked_add(begin, total, end);
      if (!fits || end > bytes().size())
        return bad("tensor '{}' reaches beyond the end of the file ({} bytes); the file is truncated or damaged",
                   printable(tensor.name), bytes().size());
      tensor.bytes = bytes().subspan(begin, total);
    }
    return check_overlap();
  }

  Result<> check_overlap() const {
    std::vector<const Tensor *> by_place;
    for (const Tensor &tensor : file_.tensors_) by_place.push_back(&tensor);
    std::sort(by_place.begin(), by_place.end(),
              [](const Tensor *a, const Tensor *b) { return a->bytes.data() < b->bytes.data(); });
    for (size_t i = 1; i < by_place.size(); ++i) {
      const Tensor &before = *by_place[i - 1];
      if (before.bytes.data() + before.bytes.size() > by_place[i]->bytes.data())
        return bad("tensors '{}' and '{}' overlap", printable(before.name), printable(by_place[i]->name));
    }
    return {};
  }

  Gguf &file_;
  uint64_t at_ = 0;
  std::vector<uint64_t> offsets_;  // of the tensors, from the start of the data section
};

Result<Gguf> Gguf::parse(std::span<const std::byte> bytes, std::string name) {
  Gguf file;
  file.bytes_ = bytes;
  file.name_ = std::move(name);
  if (auto r = GgufParser(file).run(); !r) return r.error();
  return file;
}

Result<Gguf> Gguf::open(const std::filesystem::path &path) {
  auto mapped = MappedFile::open(path);
  if (!mapped) return mapped.error();
  auto file = parse(mapped->bytes(), path.string());
  if (file) file->file_ = std::move(*mapped);
  return file;
}

}  // namespace sluice::model_file

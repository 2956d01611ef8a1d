#include "core/model_file/safetensors.hpp"

#include "core/model_file/checked.hpp"
#include "core/model_file/gguf.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <boost/json/parse.hpp>

namespace sluice::model_file {

static_assert(std::endian::native == std::endian::little, "safetensors is read in place; a big-endian host needs a copy");

namespace json = boost::json;

/// Fills a Safetensors from the bytes of a file.
class SafetensorsParser {
 public:
  SafetensorsParser(Safetensors &file, std::span<const std::byte> bytes) : file_(file), bytes_(bytes) {}

  Result<> run() {
    auto header = parse_header();
    if (!header) return header.error();
    if (header->size() > SafetensorsLimits::kTensors)
      return bad("{} tensors; at most {} are read", header->size(), SafetensorsLimits::kTensors);
    for (const auto &entry : *header) {
      if (entry.key() == "__metadata__") continue;  // strings for people
      if (auto r = tensor(entry.key(), entry.value()); !r) return r;
    }
    return check_cover();
  }

 private:
  template <class... A>
  Error bad(fmt::format_string<A...> text, A &&...a) const {
    return invalid_argument(fmt::format("{}: {}", file_.name_, fmt::format(text, std::forward<A>(a)...)));
  }

  Result<json::object> parse_header() {
    uint64_t length = 0;
    if (bytes_.size() < sizeof length) return bad("{} bytes are no safetensors file", bytes_.size());
    std::memcpy(&length, bytes_.data(), sizeof length);
    if (length > SafetensorsLimits::kHeaderBytes)
      return bad("a header of {} bytes is claimed; at most {} MiB are read. Is this a safetensors file?", length,
                 SafetensorsLimits::kHeaderBytes >> 20);
    if (length > bytes_.size() - sizeof length)
      return bad("a header of {} bytes is claimed; the file has {}; it is truncated", length, bytes_.size());
    const std::string_view text(reinterpret_cast<const char *>(bytes_.data()) + sizeof length, length);
    data_ = bytes_.subspan(sizeof length + length);
    json::parse_options options;
    options.max_depth = 4;
    json::error_code error;
    json::value header = json::parse(text, error, {}, options);
    if (error) return bad("the header is not JSON: {}", error.message());
    if (!header.is_object()) return bad("the header is not a JSON object");
    return std::move(header.get_object());
  }

  /// A list of whole numbers of at most 2^63, as shapes and offsets are.
  static bool read_numbers(const json::object &about, std::string_view key, std::vector<uint64_t> &out) {
    const json::value *list = about.if_contains(key);
    if (list == nullptr || !list->is_array()) return false;
    for (const json::value &item : list->get_array()) {
      if (!item.is_int64() || item.get_int64() < 0) return false;
      out.push_back(static_cast<uint64_t>(item.get_int64()));
    }
    return true;
  }

  Result<> tensor(std::string_view key, const json::value &value) {
    const std::string name = printable(key);
    if (key.empty() || key.size() > SafetensorsLimits::kTensorNameBytes)
      return bad("a tensor has a name of {} bytes; 1 to {} are possible", key.size(),
                 SafetensorsLimits::kTensorNameBytes);
    const json::object *about = value.if_object();
    std::vector<uint64_t> shape, offsets;
    const json::value *dtype = about == nullptr ? nullptr : about->if_contains("dtype");
    if (dtype == nullptr || !dtype->is_string() || about->size() != 3 || !read_numbers(*about, "shape", shape) ||
        !read_numbers(*about, "data_offsets", offsets) || offsets.size() != 2)
      return bad("tensor '{}' must have dtype, shape and data_offsets [begin, end], whole numbers, and no more", name);
    Tensor t;
    if (!read_type(std::string_view(dtype->get_string()), t.type))
      return Error{Code::kUnsupported,
                   fmt::format("{}: tensor '{}' has dtype {}; supported: F32 F16 BF16", file_.name_, name,
                               printable(std::string_view(dtype->get_string()))),
                   {}};
    if (shape.size() > t.dims.size())
      return bad("tensor '{}' has {} dimensions; at most {} are read", name, shape.size(), t.dims.size());
    std::copy(shape.rbegin(), shape.rend(), t.dims.begin());
    t.n_dims = std::max<uint32_t>(1, static_cast<uint32_t>(shape.size()));
    uint64_t size_bytes = type_info(t.type).block_bytes;
    for (const uint64_t n : t.dims)
      if (n == 0 || !checked_mul(size_bytes, n, size_bytes))
        return bad("tensor '{}' has a dimension of 0, or is larger than any file", name);
    const uint64_t begin = offsets[0], end = offsets[1];
    if (end < begin || end > data_.size())
      return bad("tensor '{}' lies at [{}, {}) of {} bytes of data; the file is truncated or damaged", name, begin, end,
                 data_.size());
    if (end - begin != size_bytes)
      return bad("tensor '{}' lies at [{}, {}), {} bytes; its shape and dtype take {}", name, begin, end, end - begin,
                 size_bytes);
    t.bytes = data_.subspan(begin, size_bytes);
    t.name = file_.names_.emplace_back(key);
    file_.tensors_.push_back(t);
    return {};
  }

  static bool read_type(std::string_view name, TensorType &type) {
    if (name == "F32") return type = TensorType::kF32, true;
    if (name == "F16") return type = TensorType::kF16, true;
    if (name == "BF16") return type = TensorType::kBF16, true;
    return false;
  }

  /// No byte in two tensors, none in no tensor: two readers of one file must not see two different things.
  Result<> check_cover() {
    auto &all = file_.tensors_;
    std::sort(all.begin(), all.end(), [](const Tensor &a, const Tensor &b) { return a.bytes.data() < b.bytes.data(); });
    const std::byte *next = data_.data();
    for (const Tensor &t : all) {
      if (t.bytes.data() != next)
        return bad("{} before tensor '{}': the tensors must cover the data end to end",
                   t.bytes.data() < next ? "an overlap" : "a gap", printable(t.name));
      next += t.bytes.size();
    }
    if (next != data_.data() + data_.size())
      return bad("{} bytes behind the last tensor", data_.data() + data_.size() - next);
    for (size_t i = 0; i < all.size(); ++i) file_.index_.emplace(all[i].name, i);
    return {};
  }

  Safetensors &file_;
  const std::span<const std::byte> bytes_;
  std::span<const std::byte> data_;
};

const Tensor *Safetensors::find_tensor(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

Result<Safetensors> Safetensors::parse(std::span<const std::byte> bytes, std::string name) {
  Safetensors file;
  file.name_ = std::move(name);
  if (auto r = SafetensorsParser(file, bytes).run(); !r) return r.error();
  return file;
}

Result<Safetensors> Safetensors::open(const std::filesystem::path &path) {
  auto mapped = MappedFile::open(path);
  if (!mapped) return mapped.error();
  auto file = parse(mapped->bytes(), path.string());
  if (file) file->file_ = std::move(*mapped);
  return file;
}

}  // namespace sluice::model_file

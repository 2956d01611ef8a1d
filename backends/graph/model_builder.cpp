#include "backends/graph/model_builder.hpp"

#include <sluice/sdk/error.hpp>

#include <cmath>

namespace sluice::graph {
namespace {

[[noreturn]] void refuse(int32_t code, const std::string &message) { throw sdk::Error(code, message); }

template <class T>
T value_or_throw(Result<T> result) {
  if (!result) refuse(static_cast<int32_t>(result.error().code), result.error().message);
  return std::move(*result);
}

std::string shape_text(const model_file::Tensor &t) {
  std::string text;
  for (uint32_t i = 0; i < t.n_dims; ++i) text += (i ? "," : "[") + std::to_string(t.dims[i]);
  return text + "]";
}

}  // namespace

ModelBuilder::ModelBuilder(const model_file::Gguf &file, Device &device, Progress progress)
    : file_(file), device_(device), progress_(std::move(progress)) {
  arch_ = value_or_throw(file_.string("general.architecture"));
  for (const model_file::Tensor &t : file_.tensors()) total_bytes_ += t.bytes.size();
}

uint32_t ModelBuilder::count(const std::string &key, uint32_t min, uint32_t max) const {
  const uint32_t v = value_or_throw(file_.u32(arch_ + "." + key));
  if (v < min || v > max)
    refuse(SLUICE_E_INVALID_ARGUMENT, arch_ + "." + key + " is " + std::to_string(v) + "; it must be " +
                                          std::to_string(min) + ".." + std::to_string(max));
  return v;
}

std::optional<uint32_t> ModelBuilder::optional_count(const std::string &key, uint32_t min, uint32_t max) const {
  if (!file_.has(arch_ + "." + key)) return std::nullopt;
  return count(key, min, max);
}

float ModelBuilder::number(const std::string &key) const {
  const float v = value_or_throw(file_.f32(arch_ + "." + key));
  if (!std::isfinite(v)) refuse(SLUICE_E_INVALID_ARGUMENT, arch_ + "." + key + " is not a finite number");
  return v;
}

std::optional<float> ModelBuilder::optional_number(const std::string &key) const {
  if (!file_.has(arch_ + "." + key)) return std::nullopt;
  return number(key);
}

std::optional<std::string> ModelBuilder::optional_text(const std::string &key) const {
  if (!file_.has(arch_ + "." + key)) return std::nullopt;
  return std::string(value_or_throw(file_.string(arch_ + "." + key)));
}

bool ModelBuilder::has_tensor(const std::string &name) const { return file_.find_tensor(name) != nullptr; }

const model_file::Tensor &ModelBuilder::tensor(const std::string &name) const {
  const model_file::Tensor *t = file_.find_tensor(name);
  if (t == nullptr)
    refuse(SLUICE_E_INVALID_ARGUMENT,
           file_.name() + " has no tensor '" + name + "', which a " + arch_ + " model needs");
  return *t;
}

uint64_t ModelBuilder::rows_of(const std::string &name, uint64_t cols) const {
  const model_file::Tensor &t = tensor(name);
  if (t.n_dims != 2 || t.dims[0] != cols || t.dims[1] > INT32_MAX)
    refuse(SLUICE_E_INVALID_ARGUMENT,
           "tensor '" + name + "' is " + shape_text(t) + "; expected [" + std::to_string(cols) + ",n]");
  return t.dims[1];
}

WeightId ModelBuilder::matrix(WeightUse use, const std::vector<Rows> &parts, uint64_t cols) {
  const OpKind op = use == WeightUse::kEmbed    ? OpKind::kEmbed
                    : use == WeightUse::kLinear ? OpKind::kLinear
                                                : OpKind::kLinearGlu;
  WeightSource source{use, cols, {}};
  uint64_t bytes = 0;
  for (const Rows &part : parts) {
    const model_file::Tensor &t = tensor(part.name);
    if (rows_of(part.name, cols) != part.rows)
      refuse(SLUICE_E_INVALID_ARGUMENT, "tensor '" + part.name + "' is " + shape_text(t) + "; expected [" +
                                            std::to_string(cols) + "," + std::to_string(part.rows) + "]");
    if (!device_.supports(op, t.type))
      refuse(SLUICE_E_UNSUPPORTED, std::string("op ") + op_name(op) + " has no " +
                                       std::string(model_file::type_name(t.type)) + " kernel on device '" +
                                       device_.name() + "' (tensor '" + part.name +
                                       "'); convert the file to a format it has");
    source.segments.push_back({part.name, t.type, t.bytes.data(), part.rows});
    bytes += t.bytes.size();
  }
  const WeightId id = device_.add_weight(source);
  advance(bytes);
  return id;
}

std::vector<float> ModelBuilder::values(const std::string &name, uint64_t n) const {
  const model_file::Tensor &t = tensor(name);
  if (t.n_dims != 1 || t.dims[0] != n)
    refuse(SLUICE_E_INVALID_ARGUMENT,
           "tensor '" + name + "' is " + shape_text(t) + "; expected [" + std::to_string(n) + "]");
  std::vector<float> out(n);
  model_file::dequantize_row(t.type, t.bytes.data(), out.data(), n);
  return out;
}

Buffer ModelBuilder::vector(const std::vector<Rows> &parts) {
  std::vector<float> all;
  for (const Rows &part : parts) {
    const std::vector<float> one = values(part.name, part.rows);
    all.insert(all.end(), one.begin(), one.end());
    advance(tensor(part.name).bytes.size());
  }
  return constant(all);
}

Buffer ModelBuilder::constant(const std::vector<float> &values) {
  const Buffer buffer = device_.allocate(values.size() * sizeof(float), BufferUse::kDevice);
  device_.upload(buffer, values.data(), values.size() * sizeof(float));
  return buffer;
}

void ModelBuilder::advance(uint64_t bytes) {
  done_bytes_ += bytes;
  if (progress_ && !progress_(std::min(done_bytes_, total_bytes_), total_bytes_))
    refuse(SLUICE_E_CANCELLED, "loading was stopped");
}

}  // namespace sluice::graph

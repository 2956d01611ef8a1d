#pragma once
#include <cstring>
#include <string>
#include <vector>

namespace sluice::model_file::testing {

/// A safetensors file from a header and data.
inline std::string safetensors_of(const std::string &header, const std::string &data) {
  const uint64_t length = header.size();
  std::string out(sizeof length, '\0');
  std::memcpy(out.data(), &length, sizeof length);
  return out + header + data;
}

/// A tensor to be written as F32.
struct SampleTensor {
  std::string name;
  std::vector<uint64_t> shape;
  std::vector<float> values;
};

/// A file of F32 tensors, in this order.
inline std::string safetensors_of(const std::vector<SampleTensor> &tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})", data;
  for (const SampleTensor &t : tensors) {
    header += ",\"" + t.name + R"(":{"dtype":"F32","shape":[)";
    for (size_t i = 0; i < t.shape.size(); ++i) header += (i ? "," : "") + std::to_string(t.shape[i]);
    header += R"(],"data_offsets":[)" + std::to_string(data.size()) + ",";
    data.append(reinterpret_cast<const char *>(t.values.data()), t.values.size() * sizeof(float));
    header += std::to_string(data.size()) + "]}";
  }
  return safetensors_of(header + "}", data);
}

}  // namespace sluice::model_file::testing

#pragma once
#include <string>

namespace sluice::conformance {

/// A two-layer model with random weights in a folder of its own, removed with the object. path() is empty when it could
/// not be written.
class TinyModel {
 public:
  TinyModel();
  ~TinyModel();
  TinyModel(const TinyModel &) = delete;
  TinyModel &operator=(const TinyModel &) = delete;
  const std::string &path() const { return path_; }

 private:
  std::string folder_, path_;
};

}  // namespace sluice::conformance

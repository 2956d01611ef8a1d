#include "core/conformance/tiny_model.hpp"

#include <stdlib.h>

#include <filesystem>

#include "core/model_file/synth.hpp"

namespace sluice::conformance {

namespace fs = std::filesystem;

TinyModel::TinyModel() {
  std::string pattern = (fs::temp_directory_path() / "sluice_check_XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) return;
  folder_ = pattern;
  model_file::SynthOptions options;
  options.preset = "tiny", options.seed = 7;
  if (model_file::synthesize(options, fs::path(folder_) / "tiny.gguf")) path_ = folder_ + "/tiny.gguf";
}

TinyModel::~TinyModel() {
  std::error_code ignored;
  if (!folder_.empty()) fs::remove_all(folder_, ignored);
}

}  // namespace sluice::conformance

#include "core/app/paths.hpp"

#include <filesystem>

namespace sluice::app {

std::string prefix() {
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  return program.parent_path().parent_path().string();
}

std::string default_model_path() { return prefix() + "/share/sluice/models/sluice-tiny-q8_0.gguf"; }

std::string absolute_path(const std::string &path) { return std::filesystem::absolute(path).lexically_normal().string(); }

}  // namespace sluice::app

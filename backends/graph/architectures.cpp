#include "backends/graph/architectures.hpp"

namespace sluice::graph {
namespace {

constexpr Architecture kArchitectures[] = {
    {"llama", build_llama},
    {"qwen2", build_qwen2},
    {"qwen3", build_qwen3},
};

}  // namespace

const Architecture *find_architecture(std::string_view name) {
  for (const Architecture &a : kArchitectures)
    if (name == a.name) return &a;
  return nullptr;
}

std::string architecture_names() {
  std::string names;
  for (const Architecture &a : kArchitectures) names += (names.empty() ? "" : ", ") + std::string(a.name);
  return names;
}

}  // namespace sluice::graph

#pragma once
#include "backends/graph/model_builder.hpp"

#include <string_view>

namespace sluice::graph {

/// A model family: how its metadata and tensors become a step program. A new one is one file and one line of the table.
struct Architecture {
  const char *name;  ///< `general.architecture` of the file
  BuiltModel (*build)(ModelBuilder &);
};

/// NULL when there is none.
const Architecture *find_architecture(std::string_view name);
/// "llama, qwen2, ..." for messages.
std::string architecture_names();

// architectures/llama.cpp
BuiltModel build_llama(ModelBuilder &);
BuiltModel build_qwen2(ModelBuilder &);
BuiltModel build_qwen3(ModelBuilder &);

}  // namespace sluice::graph

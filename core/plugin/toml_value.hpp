#pragma once
#include <toml++/toml.h>

#include <optional>

#include "core/plugin/schema.hpp"

namespace sluice::plugin {

/// A TOML node as a value of type SLUICE_CFG_*; nothing when it is of another. Integers serve as numbers.
std::optional<Value> toml_value(int32_t type, const toml::node &node);

}  // namespace sluice::plugin

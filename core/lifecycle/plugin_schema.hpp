#pragma once
#include <memory>
#include <string>

#include "core/lifecycle/served_model.hpp"

namespace sluice::lifecycle {

/// The PER_REQUEST options of a configured plugin, for ServedModel.
/// plugin  its name alone, "chain"
/// base    its options as the configuration file set them; a request changes single ones
RequestSchema request_schema(std::string plugin, std::shared_ptr<const plugin::Options> base);

}  // namespace sluice::lifecycle

#pragma once
#include "core/plugin/abi_call.hpp"

// Calls into plugins, by the names that the engine uses.

namespace sluice::engine {

using plugin::call;
using plugin::call_void;
using plugin::PluginFailure;
using plugin::PluginResult;

}  // namespace sluice::engine

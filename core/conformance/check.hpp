#pragma once
#include <chrono>
#include <string>

#include "core/conformance/report.hpp"

namespace sluice::conformance {

struct CheckOptions {
  std::string path;   ///< of the plugin, absolute
  std::string model;  ///< for backends and engines; empty = a small random model, made for the occasion
  std::chrono::seconds case_timeout{60};
};

/// Every check that fits the plugin's kinds, stage after stage; after a failure to load only what does not need it.
/// thread  the only one of the process, since it forks
Report check_plugin(const CheckOptions &options);

}  // namespace sluice::conformance

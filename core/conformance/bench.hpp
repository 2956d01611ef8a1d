#pragma once
#include "core/conformance/check.hpp"

namespace sluice::conformance {

/// What the calls of a plugin cost, for each of its kinds, as notes of one case per kind. Run in a child, as checks are.
/// thread  the only one of the process
Report bench_plugin(const CheckOptions &options);

}  // namespace sluice::conformance

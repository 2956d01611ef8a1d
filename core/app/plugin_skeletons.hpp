#pragma once
#include <string>
#include <vector>

#include "core/base/error.hpp"

namespace sluice::app {

struct SkeletonFile {
  std::string name, content;
};

/// A project that builds and passes `sluice plugins check` as it stands.
/// kind  backend, engine, scheduler, sampler or decoder
/// lang  "cpp", or "c" for a sampler
/// errors  InvalidArgument, naming what is possible
Result<std::vector<SkeletonFile>> plugin_skeleton(const std::string &kind, const std::string &name,
                                                  const std::string &lang);

}  // namespace sluice::app

#pragma once
#include <sluice/abi/kinds/backend.h>
#include <sluice/abi/kinds/decoder.h>
#include <sluice/abi/kinds/engine.h>
#include <sluice/abi/kinds/sampler.h>
#include <sluice/abi/kinds/scheduler.h>
#include <sluice/abi/plugin.h>

#include <memory>
#include <string>

#include "core/base/error.hpp"
#include "core/plugin/metadata.hpp"
#include "core/plugin/schema.hpp"

namespace sluice::plugin {

/// A loaded plugin. Stays loaded until the process ends; nothing is ever unloaded.
/// Always: desc->name and the numbers equal the metadata, and each kind it claims has its required functions.
struct Library {
  std::string path;  ///< absolute, without links
  Metadata metadata;
  const sluice_plugin_desc *desc = nullptr;
  std::shared_ptr<const Schema> schema;

  /// "sampler greedy", for messages.
  std::string title() const { return kind_names(metadata.kinds) + " " + metadata.name; }
};

/// Loads a file and checks everything it says. [init], on the main thread, while it is the only one: constructors of
/// the library and its entry function run here, and may set up drivers that mind threads.
/// errors  NotFound, Abi, Unsupported (CPU, hardware, driver), InvalidArgument (what the plugin did wrong), Internal
Result<Library> load_library(const std::string &path, const Metadata &metadata, const sluice_host_api &host);

}  // namespace sluice::plugin

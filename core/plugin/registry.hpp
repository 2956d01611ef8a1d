#pragma once
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.hpp"
#include "core/plugin/library.hpp"
#include "core/plugin/metadata.hpp"

namespace sluice::plugin {

/// A plugin file that was found, not loaded.
struct Found {
  Metadata metadata;
  std::string path;  ///< absolute, without links
};

/// A file that looks like a plugin by its name and cannot be used.
struct Rejected {
  std::string path;
  Error error;
};

/// Where plugins are looked for, in order: the configured folders, those of $SLUICE_PLUGIN_PATH (separated by colons),
/// and the installed one beside the executable's folder (../lib/sluice/plugins). Never the working folder.
/// errors  InvalidArgument: a relative path, which would mean the working folder
Result<std::vector<std::string>> search_folders(const std::vector<std::string> &configured);

/// The plugin files of some folders, by kind and name, and those that were loaded.
/// thread  [init]
class Registry {
 public:
  /// Reads the metadata of every libsluice_*.so. No code of theirs runs. A folder that does not exist is passed over.
  /// accept_insecure  also takes files that others than root and this user may write
  explicit Registry(const std::vector<std::string> &folders, bool accept_insecure = false);

  const std::vector<Found> &found() const { return found_; }  ///< by name, then path
  const std::vector<Rejected> &rejected() const { return rejected_; }

  /// errors  NotFound (with the nearest name, all names, or why the file was rejected), InvalidArgument (two files
  ///         claim the name; both are named)
  Result<const Found *> find(uint64_t kind, const std::string &name) const;

  /// Finds and loads; a second call gives the same library. The result lives as long as the registry.
  /// host  handed to the entry function; valid until the process ends
  Result<const Library *> load(uint64_t kind, const std::string &name, const sluice_host_api &host);

  /// Calls the shutdown function of every loaded library, the last loaded first. After all instances are gone.
  void shutdown();

 private:
  void scan(const std::string &folder, bool accept_insecure);

  std::vector<Found> found_;
  std::vector<Rejected> rejected_;
  std::vector<std::unique_ptr<Library>> loaded_;
};

}  // namespace sluice::plugin

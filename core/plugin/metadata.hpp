#pragma once
#include <sluice/abi/base.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/error.hpp"

namespace sluice::plugin {

/// What a plugin file says of itself in its ELF section .sluice_plugin.
/// Always: the name is [a-z0-9_-]+, the texts are printable ASCII, at least one known kind is set.
struct Metadata {
  uint16_t abi_major = 0, abi_minor_built = 0, abi_minor_min = 0;
  uint64_t kinds = 0;  ///< SLUICE_KIND_*
  std::string name, version, needs;
};

/// Reads it without loading the file, so none of its code runs. The file may be hostile: every offset is checked.
/// errors  NotFound (cannot be read), InvalidArgument (no plugin, or a damaged one), Unsupported (another machine's)
Result<Metadata> read_metadata(const std::string &path);

/// Whether a host of this major version may load it, by its version numbers. errors: Abi, with both versions
Result<> check_abi(const Metadata &metadata, int host_minor = SLUICE_ABI_MINOR, int host_floor = SLUICE_ABI_FLOOR);

/// The "cpu:" part of `needs` against this machine. errors: Unsupported, naming the features that are missing.
/// What is not about the CPU is left to the plugin's entry function.
Result<> check_cpu(const Metadata &metadata);

/// "backend", "engine", "scheduler", "sampler", "decoder"; "" for anything but one kind.
const char *kind_name(uint64_t kind);
/// 0 for an unknown name.
uint64_t kind_of(const std::string &name);
/// "sampler, decoder"
std::string kind_names(uint64_t kinds);

/// [a-z0-9_-]+ of at most 63 characters.
bool is_plugin_name(const std::string &text);

}  // namespace sluice::plugin

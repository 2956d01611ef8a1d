#pragma once
#include <memory>
#include <string>

#include "core/isolation/remote.hpp"
#include "core/plugin/library.hpp"

namespace sluice::isolation {

struct IsolationOptions {
  std::string program;  ///< the plugin host; empty = the one beside this program
  CallTimes times;
};

/// A plugin whose code never runs in this process: its tables here are our own, and each instance that they open is a
/// child process with the plugin in it. To callers it is a plugin like any other, except that logits stay on its side of
/// the boundary unless they are asked for as host rows (no CAP_LOGITS_DEV, no tensor_read).
///
/// Asks a child, which then ends, what the plugin's options are. Of its kinds only backend and engine remain.
/// thread  [init]
/// errors  those of load_library(); NotFound (no plugin host), Unsupported (neither backend nor engine), DeviceLost (the
///         child died of loading it), ResourceExhausted
Result<plugin::Library> load_isolated(const std::string &path, const plugin::Metadata &metadata,
                                      const IsolationOptions &options);

// ---- for the parts of it ----

/// What one isolated plugin is, for as long as the process lives.
struct IsolatedPlugin {
  std::string path, who;  ///< "backend cpu"
  IsolationOptions options;
  sluice_plugin_desc desc{};
  sluice_backend_vtbl backend{};
  sluice_engine_vtbl engine{};
  bool has_warmup = false;
  std::vector<std::string> texts;
  std::vector<sluice_config_field> fields;

  /// A new child that has loaded the plugin.
  Result<std::unique_ptr<Remote>> start(const sluice_host_api *api) const;
};

/// Fills the tables with functions that know the plugin by their number, since open() carries nothing else.
Result<> fill_tables(const std::shared_ptr<IsolatedPlugin> &plugin);
void fill_backend(sluice_backend_vtbl &vtbl, bool has_warmup);  ///< all but enumerate and open
void fill_engine(sluice_engine_vtbl &vtbl);                     ///< all but open

int32_t enumerate_isolated(const IsolatedPlugin &plugin, const sluice_host_api *api, const sluice_config *config,
                           sluice_device_info *out, uint32_t stride, uint32_t *n, sluice_status *status);
int32_t open_isolated_backend(const IsolatedPlugin &plugin, const sluice_host_api *api, const sluice_backend_open *open,
                              sluice_backend **out, sluice_status *status);
int32_t open_isolated_engine(const IsolatedPlugin &plugin, const sluice_host_api *api, const sluice_config *config,
                             const char *model, sluice_engine **out, sluice_status *status);
/// The same over a link that is there already. For tests, which play the other side.
int32_t open_backend_over(std::unique_ptr<Remote> remote, const sluice_host_api *api, const IsolatedPlugin &plugin,
                          const sluice_backend_open *open, sluice_backend **out, sluice_status *status);

}  // namespace sluice::isolation

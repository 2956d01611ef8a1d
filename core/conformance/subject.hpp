#pragma once
#include <functional>
#include <memory>
#include <string>

#include "core/base/clock.hpp"
#include "core/conformance/child.hpp"
#include "core/engine/sched_table.hpp"
#include "core/plugin/host.hpp"
#include "core/plugin/instances.hpp"

namespace sluice::conformance {

/// The plugin under test, loaded in a child, with a host that counts what comes back.
class Subject {
 public:
  /// Reports why it cannot be loaded and returns null.
  static std::unique_ptr<Subject> load(const std::string &path, Findings &findings);

  const plugin::Library &library() const { return library_; }
  const sluice_plugin_desc &desc() const { return *library_.desc; }
  const sluice_host_api *api() const { return &api_; }
  /// The options' defaults; null when one is required, which `needs_options` tells.
  const plugin::Options *options() const { return options_.get(); }
  const std::string &needs_options() const { return needs_options_; }
  bool is(uint64_t kind) const { return (library_.metadata.kinds & kind) != 0; }

  /// Calls of log and engine_event so far.
  static uint64_t n_callbacks();

  /// Something created by the plugin, destroyed with the pointer.
  using Made = std::shared_ptr<void>;
  /// model  the path that an engine is opened with
  Result<Made> create(uint64_t kind, const std::string &model) const;
  const sluice_sched_setup &sched_setup() const { return setup_; }

 private:
  explicit Subject(plugin::Library library);
  std::unique_ptr<plugin::Host> host_;
  sluice_host_api api_{};
  plugin::Library library_;
  std::shared_ptr<const plugin::Options> options_;
  std::string needs_options_;
  engine::SchedTable table_{64};
  sluice_sched_host sched_host_{};
  sluice_sched_setup setup_{};
};

/// The model that samplers and decoders are told of.
sluice_model_info plain_model(uint32_t vocab_size);

}  // namespace sluice::conformance

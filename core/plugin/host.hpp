#pragma once
#include <sluice/abi/host.h>
#include <sluice/abi/kinds/engine.h>

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "core/base/clock.hpp"
#include "core/base/error.hpp"
#include "core/metrics/registry.hpp"
#include "core/plugin/thread_pool.hpp"

namespace sluice::plugin {

/// Receives what an engine plugin produces. [any], from threads of the plugin.
class EngineEventSink {
 public:
  virtual ~EngineEventSink() = default;
  /// The event is valid for the call. returns  0, SLUICE_E_CANCELLED or SLUICE_E_NOT_FOUND
  virtual int32_t on_engine_event(const sluice_engine_event &event) = 0;
};

/// The services of host.h. Lives until the process ends, since plugins may call at any time; what is handed in outlives
/// it.
class Host {
 public:
  struct Parts {
    const Clock *clock = nullptr;
    metrics::Registry *metrics = nullptr;  ///< null = what plugins measure is dropped
    uint32_t n_workers = 0;                ///< of the CPU pool; 0 = available_cpus()
    std::string version = "0.0.0";         ///< of the server, semver
  };
  explicit Host(Parts parts);
  ~Host();
  Host(const Host &) = delete;
  Host &operator=(const Host &) = delete;

  /// For entry functions and whatever belongs to no model. [any]
  const sluice_host_api *api() const;

  /// For one instance of a plugin: its metrics carry the labels, its events go to the sink. Valid as long as the host.
  /// plugin  "scheduler mlfq"
  /// sink    for the kind engine; valid until the instance is closed
  const sluice_host_api *api_for(const std::string &model, const std::string &plugin, EngineEventSink *sink = nullptr);

  ThreadPool &pool() { return pool_; }

 private:
  friend struct HostCalls;  // the C functions
  struct Instance;          // what sluice_host points to
  struct Metric;

  Result<uint64_t> add_metric(const Instance &instance, int32_t kind, const std::string &name, const std::string &help);
  void update_metric(uint64_t id, double value);

  const Parts parts_;
  ThreadPool pool_;
  std::mutex mutex_;
  std::deque<Instance> instances_;                // grows only
  std::map<std::string, int32_t> metric_kinds_;   // by full name
  std::unique_ptr<Metric[]> metrics_;             // fixed room, so that updates take no lock
  std::atomic<uint64_t> n_metrics_{0};
};

}  // namespace sluice::plugin

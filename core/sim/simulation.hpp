#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/base/error.hpp"
#include "core/engine/engine_core.hpp"
#include "core/sim/device.hpp"
#include "core/sim/setup.hpp"
#include "core/sim/step_model.hpp"
#include "core/sim/workload.hpp"

namespace sluice::sim {

/// The plugins that a simulation runs, all of them borrowed. `scheduler_options` is valid during the run.
struct Plugins {
  const sluice_host_api *host = nullptr;  ///< whose clock is the simulation's
  std::string scheduler_name;
  const sluice_scheduler_vtbl *scheduler = nullptr;
  const sluice_config *scheduler_options = nullptr;
  const sluice_decoder_vtbl *decoder = nullptr;
  sluice_decoder *decoder_instance = nullptr;
};

/// How full the server was at one moment.
struct Moment {
  double at_s = 0;
  uint32_t running = 0, waiting = 0;
  double kv_used = 0;  ///< fraction of the device's blocks
};

struct Outcome {
  std::vector<Served> served;  ///< by request
  std::vector<Moment> moments;
  request::GeneratorStats stats;
  uint64_t end_ns = 0, busy_ns = 0, computed_tokens = 0, swapped_out_blocks = 0, swapped_in_blocks = 0;
  uint64_t hash = 0;           ///< of all finish times in order: equal iff every request finished at the same time
  uint32_t most_held_back = 0;  ///< requests that waited outside at once because the engine was full
};

/// Called now and then with how many requests have finished.
using Progress = std::function<void(uint32_t finished)>;

/// Runs one workload under one policy: the engine core, its block manager and the policy's library are the server's
/// own; the device, the clients and the time are not.
/// errors  InvalidArgument (options or limits), Internal: the ledger is wrong, a request did not get its tokens, or
///         nothing moves although somebody waits
Result<Outcome> simulate(const Setup &setup, const Plugins &plugins, const StepModel &steps,
                         const std::vector<Arrival> &arrivals, VirtualClock &clock, const Progress &progress);

}  // namespace sluice::sim

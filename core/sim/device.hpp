#pragma once
#include <cstdint>
#include <sluice/sdk/backend.hpp>
#include <vector>

#include "core/base/clock.hpp"
#include "core/sim/setup.hpp"
#include "core/sim/step_model.hpp"
#include "core/sim/workload.hpp"

namespace sluice::sim {

/// Time that moves only forward, by whoever drives the simulation. Starts at 1, since 0 is no time.
class VirtualClock final : public Clock {
 public:
  uint64_t now_ns() const override { return now_ns_; }
  void move_to(uint64_t ns) { now_ns_ = ns > now_ns_ ? ns : now_ns_; }
  void restart() { now_ns_ = 1; }

 private:
  uint64_t now_ns_ = 1;
};

/// When one request got what; index = its place in the workload.
struct Served {
  uint64_t first_ns = 0, last_ns = 0, finish_ns = 0;  ///< 0 = not yet
  uint64_t longest_gap_ns = 0;                        ///< between two of its tokens
  uint32_t tokens = 0;
};

/// A device that computes nothing and takes the time that the setup says, seen by the engine through the same calls as
/// any backend. Waiting for a step moves the clock to its end. It ends each answer at the length of its request, which
/// the engine and the policy do not know; sequence ids are places in the workload, counted from 1.
class SimulatedModel final : public sdk::Model {
 public:
  SimulatedModel(const Setup &setup, const StepModel &steps, VirtualClock &clock);

  /// Forgets everything; `arrivals` and `served` are borrowed until the next start.
  void start(const std::vector<Arrival> &arrivals, std::vector<Served> &served);

  /// When the next transfer that is under way ends; 0 = none.
  uint64_t next_transfer_end_ns() const;
  /// Requests that got their last token, or so many that somebody should read them; the reader empties it.
  std::vector<uint32_t> &to_read() { return to_read_; }
  uint64_t busy_ns() const { return busy_ns_; }  ///< steps, and waiting for transfers
  uint64_t computed_tokens() const { return computed_tokens_; }
  uint64_t swapped_out_blocks() const { return swapped_out_; }
  uint64_t swapped_in_blocks() const { return swapped_in_; }

  static constexpr int32_t kEndToken = 2, kToken = 7;
  static constexpr uint32_t kVocab = 1u << 30;

  void info(sluice_model_info &) const override;
  void plan_memory(const sluice_model_setup &, sluice_memory_plan &) const override;
  std::vector<sluice_kv_group> kv_groups(const sluice_model_setup &) const override;
  void configure(const sluice_model_setup &, const uint32_t *, const uint32_t *) override {}
  void sample_caps(sluice_sample_caps &) const override;
  sluice_ticket submit(const sluice_step &) override;
  sluice_ticket kv_ops(const sluice_kv_batch &) override;
  bool wait(sluice_ticket, uint64_t timeout_ns, sluice_step_result *) override;
  void release(sluice_ticket) override {}

 private:
  struct Step {
    sluice_ticket ticket = 0;
    uint64_t begin_ns = 0, end_ns = 0;
    std::vector<int32_t> token;
    std::vector<uint32_t> request;  ///< of each row
  };
  struct Transfer {
    sluice_ticket ticket;
    uint64_t end_ns;
  };
  uint64_t earliest_start(const sluice_step &) const;
  uint64_t transfer(uint64_t n_blocks, uint64_t not_before_ns, uint64_t &idle_at_ns);
  void note_tokens(const Step &);

  const Device &device_;
  const StepModel &steps_;
  VirtualClock &clock_;
  const uint32_t max_context_, device_blocks_;
  const double block_ns_;  ///< transfer of one block
  const std::vector<Arrival> *arrivals_ = nullptr;
  std::vector<Served> *served_ = nullptr;
  std::vector<uint32_t> to_read_;
  sluice_ticket last_ticket_ = 0;
  Step steps_in_flight_[2];
  std::vector<Transfer> transfers_;       ///< that may not have ended, by ticket
  std::vector<uint64_t> leaves_at_ns_;    ///< [device blocks] when its bytes have been copied to the host
  uint64_t device_idle_ns_ = 0, out_idle_ns_ = 0, in_idle_ns_ = 0;
  uint64_t busy_ns_ = 0, computed_tokens_ = 0, swapped_out_ = 0, swapped_in_ = 0;
};

/// The table of calls of a simulated model.
const sluice_backend_vtbl *simulated_backend();
inline sluice_model *handle(SimulatedModel &model) {
  return reinterpret_cast<sluice_model *>(static_cast<sdk::Model *>(&model));
}

}  // namespace sluice::sim

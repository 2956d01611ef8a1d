#pragma once
#include <sluice/abi/sched.h>

#include <cstdint>
#include <vector>

#include "core/engine/sequence.hpp"

namespace sluice::engine {

/// The columns that a scheduler reads, kept in place, and the events since its last plan.
///
/// thread  [engine]. Allocates in the constructor only, as long as no step has more events than `capacity`.
class SchedTable {
 public:
  explicit SchedTable(uint32_t capacity);
  SchedTable(const SchedTable &) = delete;
  SchedTable &operator=(const SchedTable &) = delete;

  const sluice_sched_table *abi() const { return &abi_; }
  uint32_t capacity() const { return abi_.capacity; }

  /// Fills the columns that stay, and announces the sequence.
  void arrive(sluice_seq_ref ref, const Sequence &sequence);
  /// Copies what changes from the sequence.  pending  tokens it could feed now; 0 = nothing to do.
  void refresh(sluice_seq_ref ref, const Sequence &sequence, uint32_t pending);
  /// After refresh(), of a request with branches: what they hold together, each block once.
  void widen(sluice_seq_ref ref, uint32_t width, uint32_t computed, uint32_t blocks, uint32_t host_blocks) {
    width_[ref] = width;
    computed_[ref] = computed;
    device_blocks_[ref] = blocks;
    host_blocks_[ref] = host_blocks;
  }
  uint32_t width(sluice_seq_ref ref) const { return width_[ref]; }
  /// What the prefix cache has of a sequence, in tokens, as of a step, and the first block that it lacks.
  void found(sluice_seq_ref ref, uint32_t cached_tokens, uint64_t first_miss_hash, uint64_t step_no) {
    cached_device_[ref] = cached_tokens;
    first_miss_hash_[ref] = first_miss_hash;
    probed_step_[ref] = step_no;
  }
  bool is_probed(sluice_seq_ref ref, uint64_t step_no) const { return probed_step_[ref] == step_no; }

  /// The ref is nobody from now on.
  void forget(sluice_seq_ref ref) { state_[ref] = 0; }

  void event(uint8_t kind, sluice_seq_ref ref, uint32_t computed, uint32_t tokens, uint64_t device_ns);
  bool has_events() const { return !event_kind_.empty(); }
  sluice_sched_events events() const;
  void clear_events();

  // Counters that only the core moves.
  std::vector<uint64_t> state_since_ns, last_run_ns, first_token_ns, service_ns;
  std::vector<uint32_t> n_preempt, n_skipped, flags, pending, exclusive_blocks, draft_wish;
  std::vector<uint8_t> draft_accept;

 private:
  sluice_sched_table abi_{};
  std::vector<sluice_seq_id> seq_;
  std::vector<uint64_t> request_id_, arrival_ns_, ttft_deadline_ns_, deadline_ns_, tpot_ns_, first_miss_hash_,
      probed_step_;
  std::vector<int32_t> priority_;
  std::vector<float> client_weight_;
  std::vector<uint32_t> client_, prompt_len_, max_new_, predicted_len_, computed_, generated_, in_flight_, width_,
      device_blocks_, host_blocks_, cached_device_, cached_host_;
  std::vector<uint8_t> predicted_conf_, state_;

  std::vector<uint8_t> event_kind_;
  std::vector<sluice_seq_ref> event_ref_;
  std::vector<uint32_t> event_computed_, event_tokens_;
  std::vector<uint64_t> event_device_ns_;
};

}  // namespace sluice::engine

#include "core/engine/sched_table.hpp"

namespace sluice::engine {

SchedTable::SchedTable(uint32_t capacity) {
  abi_.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_table, probed_step);
  abi_.capacity = capacity;
  const auto column = [&](auto &values, auto &field, auto value) {
    values.assign(capacity, value);
    field = values.data();
  };
  column(seq_, abi_.seq, sluice_seq_id{0});
  column(request_id_, abi_.request_id, uint64_t{0});
  column(arrival_ns_, abi_.arrival_ns, uint64_t{0});
  column(ttft_deadline_ns_, abi_.ttft_deadline_ns, uint64_t{0});
  column(deadline_ns_, abi_.deadline_ns, uint64_t{0});
  column(tpot_ns_, abi_.tpot_ns, uint64_t{0});
  column(priority_, abi_.priority, int32_t{0});
  column(client_, abi_.client, uint32_t{0});
  column(client_weight_, abi_.client_weight, 1.0F);
  column(prompt_len_, abi_.prompt_len, uint32_t{0});
  column(max_new_, abi_.max_new, uint32_t{0});
  column(predicted_len_, abi_.predicted_len, uint32_t{0});
  column(predicted_conf_, abi_.predicted_conf, uint8_t{0});
  column(flags, abi_.flags, uint32_t{0});
  column(state_, abi_.state, uint8_t{0});
  column(computed_, abi_.computed, uint32_t{0});
  column(generated_, abi_.generated, uint32_t{0});
  column(in_flight_, abi_.in_flight, uint32_t{0});
  column(pending, abi_.pending, uint32_t{0});
  column(width_, abi_.width, uint32_t{1});
  column(state_since_ns, abi_.state_since_ns, uint64_t{0});
  column(last_run_ns, abi_.last_run_ns, uint64_t{0});
  column(first_token_ns, abi_.first_token_ns, uint64_t{0});
  column(service_ns, abi_.service_ns, uint64_t{0});
  column(n_preempt, abi_.n_preempt, uint32_t{0});
  column(n_skipped, abi_.n_skipped, uint32_t{0});
  column(device_blocks_, abi_.device_blocks, uint32_t{0});
  column(host_blocks_, abi_.host_blocks, uint32_t{0});
  column(exclusive_blocks, abi_.exclusive_blocks, uint32_t{0});
  column(draft_wish, abi_.draft_wish, uint32_t{0});
  column(draft_accept, abi_.draft_accept, uint8_t{0});
  column(cached_device_, abi_.cached_device, uint32_t{0});
  column(cached_host_, abi_.cached_host, uint32_t{0});
  column(first_miss_hash_, abi_.first_miss_hash, uint64_t{0});
  column(probed_step_, abi_.probed_step, uint64_t{0});
  event_kind_.reserve(capacity);
  event_ref_.reserve(capacity);
  event_computed_.reserve(capacity);
  event_tokens_.reserve(capacity);
  event_device_ns_.reserve(capacity);
}

void SchedTable::arrive(sluice_seq_ref ref, const Sequence &sequence) {
  const auto &request = *sequence.request;
  seq_[ref] = sequence.id;
  request_id_[ref] = request.id;
  arrival_ns_[ref] = request.arrival_ns;
  deadline_ns_[ref] = request.deadline_ns;
  priority_[ref] = request.priority;
  client_[ref] = request.client;
  prompt_len_[ref] = sequence.prompt_len();
  max_new_[ref] = request.max_new;
  state_since_ns[ref] = request.arrival_ns;
  last_run_ns[ref] = first_token_ns[ref] = service_ns[ref] = 0;
  n_preempt[ref] = n_skipped[ref] = flags[ref] = exclusive_blocks[ref] = draft_wish[ref] = 0;
  draft_accept[ref] = 0;
  width_[ref] = 1;
  found(ref, 0, 0, ~uint64_t{0});
  refresh(ref, sequence, sequence.length());
  event(SLUICE_EV_ARRIVE, ref, 0, sequence.prompt_len(), 0);
}

void SchedTable::refresh(sluice_seq_ref ref, const Sequence &sequence, uint32_t pending_tokens) {
  state_[ref] = sequence.state;
  computed_[ref] = sequence.computed;
  generated_[ref] = sequence.generated();
  in_flight_[ref] = sequence.in_flight ? sequence.in_flight_tokens : 0;
  pending[ref] = pending_tokens;
  device_blocks_[ref] = static_cast<uint32_t>(sequence.blocks.size());
  host_blocks_[ref] = static_cast<uint32_t>(sequence.host_blocks.size());
}

void SchedTable::event(uint8_t kind, sluice_seq_ref ref, uint32_t computed, uint32_t tokens, uint64_t device_ns) {
  event_kind_.push_back(kind);
  event_ref_.push_back(ref);
  event_computed_.push_back(computed);
  event_tokens_.push_back(tokens);
  event_device_ns_.push_back(device_ns);
}

sluice_sched_events SchedTable::events() const {
  sluice_sched_events out{};
  out.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_events, device_ns);
  out.n = static_cast<uint32_t>(event_kind_.size());
  out.kind = event_kind_.data();
  out.ref = event_ref_.data();
  out.computed = event_computed_.data();
  out.tokens = event_tokens_.data();
  out.device_ns = event_device_ns_.data();
  return out;
}

void SchedTable::clear_events() {
  event_kind_.clear();
  event_ref_.clear();
  event_computed_.clear();
  event_tokens_.clear();
  event_device_ns_.clear();
}

}  // namespace sluice::engine

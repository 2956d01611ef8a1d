#include "core/sim/device.hpp"

#include <algorithm>
#include <string>

namespace sluice::sim {
namespace {

constexpr uint32_t kReadEvery = 16;  // tokens of an answer, so that channels stay small and in the cache

/// Only so that the SDK can make the table of calls: the simulation makes its models itself.
struct NoBackend final : sdk::Backend {
  NoBackend(const sluice_host_api &, const sdk::Config &, const sluice_backend_open &) {}
  static std::vector<sluice_device_info> devices(const sluice_host_api &, const sdk::Config &) { return {}; }
  std::unique_ptr<sdk::Model> load(const sluice_model_source &, const sdk::Config &) override {
    throw sdk::Error(SLUICE_E_UNSUPPORTED, "the simulated device loads no files");
  }
};

}  // namespace

const sluice_backend_vtbl *simulated_backend() {
  static const auto table = sdk::BackendAdapter<NoBackend>::vtbl();
  return &table;
}

SimulatedModel::SimulatedModel(const Setup &setup, const StepModel &steps, VirtualClock &clock)
    : device_(setup.device),
      steps_(steps),
      clock_(clock),
      max_context_(kv_blocks(setup) * setup.device.block_size),
      device_blocks_(kv_blocks(setup)),
      block_ns_(setup.device.transfer_bytes_per_s == 0
                    ? 0
                    : 1e9 * static_cast<double>(setup.device.bytes_per_token) * setup.device.block_size /
                          static_cast<double>(setup.device.transfer_bytes_per_s)) {}

void SimulatedModel::start(const std::vector<Arrival> &arrivals, std::vector<Served> &served) {
  arrivals_ = &arrivals;
  served_ = &served;
  last_ticket_ = 0;
  for (auto &step : steps_in_flight_) step.ticket = 0;
  transfers_.clear();
  to_read_.clear();
  leaves_at_ns_.assign(device_blocks_, 0);
  device_idle_ns_ = out_idle_ns_ = in_idle_ns_ = busy_ns_ = computed_tokens_ = swapped_out_ = swapped_in_ = 0;
}

void SimulatedModel::info(sluice_model_info &info) const {
  info.vocab_size = kVocab;
  info.n_layers = 1;
  info.max_context = max_context_;
  info.kv_mode = SLUICE_KV_MODE_PAGED;
  info.n_kv_groups = 1;
  info.caps = SLUICE_CAP_MIXED_BATCH | (device_.host_pool > 0 ? SLUICE_CAP_KV_HOST_SPACE : 0);
}

void SimulatedModel::plan_memory(const sluice_model_setup &, sluice_memory_plan &plan) const {
  plan.block_size = device_.block_size;
}

std::vector<sluice_kv_group> SimulatedModel::kv_groups(const sluice_model_setup &) const {
  sluice_kv_group group{};
  group.struct_size = SLUICE_SIZE_THROUGH(sluice_kv_group, reserved);
  group.block_size = device_.block_size;
  group.bytes_per_block = device_.bytes_per_token * device_.block_size;
  return {group};
}

void SimulatedModel::sample_caps(sluice_sample_caps &caps) const {
  caps.flags = SLUICE_SCF_CANONICAL_DRAW;
  caps.forms = SLUICE_ROW_TOKEN | SLUICE_ROW_LOGITS_HOST;
}

uint64_t SimulatedModel::earliest_start(const sluice_step &step) const {
  const uint64_t now = std::max(clock_.now_ns(), device_idle_ns_);
  if (device_.overlap == Overlap::kFull) return now;
  if (device_.overlap == Overlap::kNone) return std::max({now, out_idle_ns_, in_idle_ns_});
  uint64_t at = now;
  for (uint32_t t = 0; t < step.n_tokens; ++t)
    at = std::max(at, leaves_at_ns_[step.slots[t] / device_.block_size]);
  return at;
}

sluice_ticket SimulatedModel::submit(const sluice_step &step) {
  auto &flight = steps_in_flight_[0].ticket == 0 ? steps_in_flight_[0] : steps_in_flight_[1];
  if (flight.ticket != 0) throw sdk::Error(SLUICE_E_RESOURCE_EXHAUSTED, "two steps are in flight already");
  uint64_t context_tokens = 0;
  for (uint32_t s = 0; s < step.n_seqs; ++s) context_tokens += step.kv_len[s];
  flight.begin_ns = earliest_start(step);
  flight.end_ns = flight.begin_ns + steps_.ns(step.n_tokens, context_tokens);
  busy_ns_ += flight.end_ns - std::max(clock_.now_ns(), device_idle_ns_);
  device_idle_ns_ = flight.end_ns;
  computed_tokens_ += step.n_tokens;
  flight.token.resize(step.n_rows);
  flight.request.resize(step.n_rows);
  uint32_t s = 0;
  for (uint32_t r = 0; r < step.n_rows; ++r) {
    while (step.row_token[r] >= step.q_indptr[s + 1]) ++s;
    const auto request = static_cast<uint32_t>(step.seq_ids[s] - 1);
    const auto &arrival = (*arrivals_)[request];
    flight.request[r] = request;
    flight.token[r] = step.row_position[r] - arrival.input + 1 == arrival.output ? kEndToken : kToken;
  }
  return flight.ticket = ++last_ticket_;
}

uint64_t SimulatedModel::transfer(uint64_t n_blocks, uint64_t not_before_ns, uint64_t &idle_at_ns) {
  auto begin = std::max(not_before_ns, idle_at_ns);
  if (!device_.full_duplex) begin = std::max({begin, out_idle_ns_, in_idle_ns_});
  return idle_at_ns = begin + static_cast<uint64_t>(static_cast<double>(n_blocks) * block_ns_);
}

sluice_ticket SimulatedModel::kv_ops(const sluice_kv_batch &batch) {
  uint64_t n_out = 0, n_in = 0;
  for (uint32_t i = 0; i < batch.n; ++i) {
    n_out += batch.op[i] == SLUICE_KV_SWAP_OUT ? 1 : 0;
    n_in += batch.op[i] == SLUICE_KV_SWAP_IN ? 1 : 0;
  }
  const uint64_t now = clock_.now_ns();
  // What leaves must have been computed; without overlap nothing moves beside a step.
  const uint64_t computed = std::max(now, device_idle_ns_);
  uint64_t end = now;
  if (n_out > 0) {
    end = transfer(n_out, computed, out_idle_ns_);
    for (uint32_t i = 0; i < batch.n; ++i)
      if (batch.op[i] == SLUICE_KV_SWAP_OUT) leaves_at_ns_[batch.src[i]] = end;
  }
  if (n_in > 0) {
    uint64_t from = device_.overlap == Overlap::kNone ? computed : now;
    if (device_.overlap == Overlap::kByBlock)
      for (uint32_t i = 0; i < batch.n; ++i)
        if (batch.op[i] == SLUICE_KV_SWAP_IN) from = std::max(from, leaves_at_ns_[batch.dst[i]]);
    end = std::max(end, transfer(n_in, from, in_idle_ns_));
  }
  swapped_out_ += n_out;
  swapped_in_ += n_in;
  std::erase_if(transfers_, [now](const Transfer &t) { return t.end_ns <= now; });
  transfers_.push_back({++last_ticket_, end});
  return last_ticket_;
}

uint64_t SimulatedModel::next_transfer_end_ns() const {
  uint64_t next = 0;
  for (const auto &t : transfers_)
    if (t.end_ns > clock_.now_ns() && (next == 0 || t.end_ns < next)) next = t.end_ns;
  return next;
}

bool SimulatedModel::wait(sluice_ticket ticket, uint64_t timeout_ns, sluice_step_result *out) {
  for (auto &step : steps_in_flight_) {
    if (step.ticket != ticket || out == nullptr) continue;
    clock_.move_to(step.end_ns);
    note_tokens(step);
    out->n_rows = static_cast<uint32_t>(step.token.size());
    out->token = step.token.data();
    out->device_ns = step.end_ns - step.begin_ns;
    step.ticket = 0;
    return true;
  }
  for (const auto &t : transfers_) {
    if (t.ticket != ticket || t.end_ns <= clock_.now_ns()) continue;
    const bool ends_in_time = t.end_ns - clock_.now_ns() <= timeout_ns;
    clock_.move_to(ends_in_time ? t.end_ns : clock_.now_ns() + timeout_ns);
    return ends_in_time;
  }
  return true;
}

void SimulatedModel::note_tokens(const Step &step) {
  const uint64_t now = clock_.now_ns();
  for (size_t r = 0; r < step.token.size(); ++r) {
    auto &served = (*served_)[step.request[r]];
    ++served.tokens;
    if (served.first_ns == 0)
      served.first_ns = now;
    else
      served.longest_gap_ns = std::max(served.longest_gap_ns, now - served.last_ns);
    served.last_ns = now;
    const bool ends = step.token[r] == kEndToken;
    if (ends) served.finish_ns = now;
    if (ends || served.tokens % kReadEvery == 0) to_read_.push_back(step.request[r]);
  }
}

}  // namespace sluice::sim

#pragma once
#include <gtest/gtest.h>

#include <ostream>
#include <vector>

#include "schedulers/mlfq/policy.hpp"
#include "tests/support/loaded_plugin.hpp"

namespace sluice::mlfq {

struct Act {
  uint8_t op;
  sluice_seq_ref ref;
  uint32_t tokens, drafts;
  bool operator==(const Act &) const = default;
};
inline std::ostream &operator<<(std::ostream &os, const Act &a) {
  return os << "{op " << int(a.op) << " ref " << a.ref << " tokens " << a.tokens << " drafts " << a.drafts << "}";
}
using Acts = std::vector<Act>;
inline Act run(sluice_seq_ref r, uint32_t tokens) { return {SLUICE_ACT_RUN, r, tokens, 0}; }
inline Act swap_out(sluice_seq_ref r) { return {SLUICE_ACT_SWAP_OUT, r, 0, 0}; }
inline Act swap_in(sluice_seq_ref r) { return {SLUICE_ACT_SWAP_IN, r, 0, 0}; }

constexpr uint64_t kMs = 1'000'000;
constexpr uint32_t kBlockSize = 16;

/// A table, a view and policies over them, all by hand. A step takes 10 ms plus 0.1 ms a token.
class World {
 public:
  explicit World(uint32_t capacity = 64, uint32_t max_seqs = 4) : capacity_(capacity) {
    for (auto *column : {&computed, &generated, &in_flight, &pending, &width, &device_blocks, &host_blocks,
                         &exclusive_blocks, &wish, &flags, &prompt_len, &max_new})
      column->assign(capacity, 0);
    for (auto *column : {&arrival_ns, &last_run_ns, &service_ns}) column->assign(capacity, 0);
    state.assign(capacity, 0);
    width.assign(capacity, 1);
    table.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_table, probed_step);
    table.capacity = capacity;
    table.state = state.data(), table.computed = computed.data(), table.generated = generated.data();
    table.in_flight = in_flight.data(), table.pending = pending.data(), table.width = width.data();
    table.device_blocks = device_blocks.data(), table.host_blocks = host_blocks.data();
    table.exclusive_blocks = exclusive_blocks.data(), table.draft_wish = wish.data(), table.flags = flags.data();
    table.prompt_len = prompt_len.data(), table.max_new = max_new.data(), table.arrival_ns = arrival_ns.data();
    table.last_run_ns = last_run_ns.data(), table.service_ns = service_ns.data();
    sched_host.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_host, probe_prefix);
    sched_host.step_time_ns = [](void *, uint32_t prefill, uint32_t decode, uint64_t) {
      return 10 * kMs + (prefill + decode) * kMs / 10;
    };
    sched_host.swap_time_ns = [](void *, uint32_t blocks, int32_t) { return blocks * kMs / 100; };
    sched_host.recompute_time_ns = [](void *, sluice_seq_ref) { return 50 * kMs; };
    view.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_view, swap_out_bytes_per_s);
    view.now_ns = 1000 * kMs;
    view.token_budget = 512, view.max_seqs = view.max_prefills = max_seqs, view.block_size = kBlockSize;
    view.device_total = view.device_free = 100, view.host_total = view.host_free = 400;
    view.bytes_per_block = 1000, view.swap_in_bytes_per_s = view.swap_out_bytes_per_s = 1e9;
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_setup, host);
    setup.can_swap = 1, setup.max_seqs = max_seqs, setup.token_budget = 512, setup.waiting_window = capacity;
    setup.table = &table, setup.host = &sched_host;
  }

  std::unique_ptr<Policy> policy(const test::PluginConfig::Values &options = {{"quantum_ms", "20"}}) {
    config_ = std::make_unique<test::PluginConfig>(desc_, options);
    return std::make_unique<Policy>(sdk::Config(&host_.api, config_->handle()), setup);
  }
  std::unique_ptr<fcfs::Fcfs> fcfs() {
    config_ = std::make_unique<test::PluginConfig>(desc_, test::PluginConfig::Values{});
    return std::make_unique<fcfs::Fcfs>(sdk::Config(&host_.api, config_->handle()), setup);
  }

  sluice_seq_ref waiting(sdk::Scheduler &policy, uint32_t prompt) {
    const sluice_seq_ref r = next_++;
    state[r] = SLUICE_SEQ_WAITING, pending[r] = prompt_len[r] = prompt, max_new[r] = 1000;
    arrival_ns[r] = view.now_ns;
    tell(policy, SLUICE_EV_ARRIVE, r, prompt);
    return r;
  }
  /// A resident that decodes, in the level that follows from having run once for `ran_ms`.
  sluice_seq_ref resident(sdk::Scheduler &policy, uint32_t cached, uint32_t ran_ms = 0) {
    const sluice_seq_ref r = waiting(policy, 16);  // short, so that no level is skipped
    state[r] = SLUICE_SEQ_RESIDENT, computed[r] = cached, pending[r] = generated[r] = 1;
    device_blocks[r] = exclusive_blocks[r] = (cached + kBlockSize - 1) / kBlockSize;
    view.device_free -= device_blocks[r];
    if (ran_ms > 0) commit(policy, r, ran_ms);
    return r;
  }
  void swapped(sluice_seq_ref r) {
    state[r] = SLUICE_SEQ_SWAPPED;
    host_blocks[r] = device_blocks[r];
    view.device_free += device_blocks[r], view.host_free -= host_blocks[r];
    device_blocks[r] = exclusive_blocks[r] = 0;
  }
  void commit(sdk::Scheduler &policy, sluice_seq_ref r, uint32_t ms) {
    last_run_ns[r] = view.now_ns;
    service_ns[r] += ms * kMs;
    policy.on_event({SLUICE_EV_COMMIT, r, 1, 1, ms * kMs});
  }
  void finish(sdk::Scheduler &policy, sluice_seq_ref r, uint32_t output_tokens) {
    policy.on_event({SLUICE_EV_FINISH, r, 0, output_tokens, 0});
    state[r] = 0;
  }
  void tell(sdk::Scheduler &policy, uint8_t kind, sluice_seq_ref r, uint32_t tokens = 0) {
    policy.on_event({kind, r, 0, tokens, 0});
  }

  Acts plan(sdk::Scheduler &policy) {
    std::vector<sluice_seq_ref> lists[4];
    view.waiting_tokens = 0;
    for (sluice_seq_ref r = 0; r < next_; ++r) {
      if (state[r] == SLUICE_SEQ_RESIDENT) lists[0].push_back(r);
      if (state[r] == SLUICE_SEQ_SWAPPED) lists[1].push_back(r);
      if (state[r] == SLUICE_SEQ_MOVING_IN || state[r] == SLUICE_SEQ_MOVING_OUT) lists[2].push_back(r);
      if (state[r] == SLUICE_SEQ_WAITING) lists[3].push_back(r), view.waiting_tokens += pending[r];
    }
    const auto n = [&](int i) { return static_cast<uint32_t>(lists[i].size()); };
    view.resident = lists[0].data(), view.swapped = lists[1].data(), view.moving = lists[2].data();
    view.waiting = lists[3].data();
    view.n_resident = n(0), view.n_swapped = n(1), view.n_moving = n(2);
    view.n_waiting_total = n(3), view.n_waiting = std::min(n(3), 256U);
    const uint32_t room = capacity_ + view.max_seqs;
    std::vector<uint8_t> op(room);
    std::vector<sluice_seq_ref> ref(room), victim(room);
    std::vector<uint32_t> tokens(room), drafts(room);
    sluice_sched_plan p{};
    p.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_plan, wake_at_ns);
    p.capacity = p.victim_capacity = room;
    p.op = op.data(), p.ref = ref.data(), p.tokens = tokens.data(), p.drafts = drafts.data(), p.victims = victim.data();
    sdk::Plan out(p);
    policy.plan({view, table}, out);
    victims.assign(victim.begin(), victim.begin() + p.n_victims);
    wake_at_ns = p.wake_at_ns;
    Acts acts;
    for (uint32_t i = 0; i < p.n_acts; ++i) acts.push_back({op[i], ref[i], tokens[i], drafts[i]});
    return acts;
  }

  sluice_sched_table table{};
  sluice_sched_view view{};
  sluice_sched_host sched_host{};
  sluice_sched_setup setup{};
  std::vector<uint8_t> state;
  std::vector<uint32_t> computed, generated, in_flight, pending, width, device_blocks, host_blocks, exclusive_blocks, wish,
      flags, prompt_len, max_new;
  std::vector<uint64_t> arrival_ns, last_run_ns, service_ns;
  std::vector<sluice_seq_ref> victims;
  uint64_t wake_at_ns = 0;

 private:
  test::PluginHost host_;
  const sluice_plugin_desc &desc_ = test::load_plugin(SLUICE_PLUGIN_DIR, "scheduler", "mlfq", host_);
  std::unique_ptr<test::PluginConfig> config_;
  const uint32_t capacity_;
  sluice_seq_ref next_ = 0;
};

}  // namespace sluice::mlfq

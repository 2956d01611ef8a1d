#include "core/engine/plan.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace sluice::engine {

PlanBuffers::PlanBuffers(uint32_t capacity, uint32_t max_seqs)
    : op_(capacity + max_seqs),
      ref_(capacity + max_seqs),
      victims_(capacity),
      tokens_(capacity + max_seqs),
      drafts_(capacity + max_seqs),
      seen(capacity, 0) {
  resident.reserve(capacity);
  waiting.reserve(capacity);
  swapped.reserve(capacity);
  moving.reserve(capacity);
  view.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_view, swap_out_bytes_per_s);
  point_at_own();
}

void PlanBuffers::point_at_own() {
  plan.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_plan, wake_at_ns);
  plan.capacity = static_cast<uint32_t>(op_.size());
  plan.victim_capacity = static_cast<uint32_t>(victims_.size());
  plan.op = op_.data();
  plan.ref = ref_.data();
  plan.tokens = tokens_.data();
  plan.drafts = drafts_.data();
  plan.victims = victims_.data();
}

void PlanBuffers::reset() {
  point_at_own();
  plan.n_acts = plan.n_victims = 0;
  plan.wake_at_ns = 0;
  std::fill(drafts_.begin(), drafts_.end(), 0);
}

namespace {

std::string check_act(const sluice_sched_plan &plan, uint32_t i, const sluice_sched_table &table, bool can_swap) {
  const sluice_seq_ref ref = plan.ref[i];
  const uint8_t state = table.state[ref];
  switch (plan.op[i]) {
    case SLUICE_ACT_RUN:
      if (state != SLUICE_SEQ_WAITING && state != SLUICE_SEQ_RESIDENT)
        return fmt::format("act {}: RUN of ref {} in state {}", i, ref, state);
      if (plan.tokens[i] == 0 || plan.tokens[i] > table.pending[ref])
        return fmt::format("act {}: RUN of ref {} with {} tokens, it has {} pending", i, ref, plan.tokens[i],
                           table.pending[ref]);
      if (table.width[ref] > 1 && table.pending[ref] == table.width[ref] && plan.tokens[i] != table.width[ref])
        return fmt::format("act {}: RUN of ref {} with {} tokens, it decodes with {} branches", i, ref, plan.tokens[i],
                           table.width[ref]);
      if (plan.drafts[i] > table.draft_wish[ref])
        return fmt::format("act {}: {} drafts for ref {}, its decoder asks for {}", i, plan.drafts[i], ref,
                           table.draft_wish[ref]);
      return {};
    case SLUICE_ACT_PREEMPT:
      if (state != SLUICE_SEQ_RESIDENT || (table.flags[ref] & SLUICE_SEQF_NO_PREEMPT) != 0)
        return fmt::format("act {}: PREEMPT of ref {} in state {}", i, ref, state);
      return {};
    case SLUICE_ACT_REJECT:
      if (state != SLUICE_SEQ_WAITING || table.computed[ref] != 0 || table.generated[ref] != 0)
        return fmt::format("act {}: REJECT of ref {}, which has run", i, ref);
      return {};
    case SLUICE_ACT_SWAP_OUT:
      if (!can_swap) return fmt::format("act {}: a swap, but there is no host space", i);
      if (state != SLUICE_SEQ_RESIDENT || (table.flags[ref] & SLUICE_SEQF_NO_PREEMPT) != 0)
        return fmt::format("act {}: SWAP_OUT of ref {} in state {}", i, ref, state);
      return {};
    case SLUICE_ACT_SWAP_IN:
      if (state != SLUICE_SEQ_SWAPPED) return fmt::format("act {}: SWAP_IN of ref {} in state {}", i, ref, state);
      return {};
    default:
      return fmt::format("act {}: unknown operation {}", i, plan.op[i]);
  }
}

bool somebody_is_runnable(const PlanBuffers &buffers, const sluice_sched_table &table) {
  const auto runnable = [&](sluice_seq_ref ref) { return table.pending[ref] > 0; };
  return std::any_of(buffers.resident.begin(), buffers.resident.end(), runnable) ||
         std::any_of(buffers.waiting.begin(), buffers.waiting.end(), runnable) ||
         (buffers.moving.empty() && std::any_of(buffers.swapped.begin(), buffers.swapped.end(), runnable));
}

}  // namespace

std::string check_plan(PlanBuffers &buffers, const sluice_sched_table &table) {
  const auto &plan = buffers.plan;
  if (plan.n_acts > plan.capacity) return fmt::format("{} acts, there is room for {}", plan.n_acts, plan.capacity);
  if (plan.n_victims > plan.victim_capacity)
    return fmt::format("{} victims, there is room for {}", plan.n_victims, plan.victim_capacity);
  std::string wrong;
  uint64_t tokens = 0;
  uint32_t sequences = 0;
  uint32_t checked = 0;
  for (; checked < plan.n_acts && wrong.empty(); ++checked) {
    const sluice_seq_ref ref = plan.ref[checked];
    if (ref >= table.capacity || table.state[ref] == 0) {
      wrong = fmt::format("act {}: ref {} is nobody", checked, ref);
      break;
    }
    if (buffers.seen[ref] != 0) {
      wrong = fmt::format("act {}: ref {} has two acts", checked, ref);
      break;
    }
    buffers.seen[ref] = 1;
    wrong = check_act(plan, checked, table, buffers.view.host_total > 0);
    if (plan.op[checked] == SLUICE_ACT_RUN) {
      tokens += uint64_t{plan.tokens[checked]} + plan.drafts[checked];
      ++sequences;
    }
  }
  for (uint32_t i = 0; i < checked; ++i) buffers.seen[plan.ref[i]] = 0;
  if (!wrong.empty()) return wrong;
  for (uint32_t i = 0; i < plan.n_victims; ++i)
    if (plan.victims[i] >= table.capacity) return fmt::format("victim {}: ref {} is nobody", i, plan.victims[i]);
  if (tokens > buffers.view.token_budget)
    return fmt::format("{} tokens, the step's budget is {}", tokens, buffers.view.token_budget);
  if (sequences > buffers.view.max_seqs)
    return fmt::format("{} sequences, the step takes {}", sequences, buffers.view.max_seqs);
  if (plan.n_acts == 0 && plan.wake_at_ns == 0 && somebody_is_runnable(buffers, table))
    return "nothing to do and no time to wake at, but somebody is runnable";
  return {};
}

void plan_fallback(PlanBuffers &buffers, const sluice_sched_table &table) {
  buffers.reset();
  auto &plan = buffers.plan;
  uint32_t budget = buffers.view.token_budget;
  const auto run = [&](sluice_seq_ref ref) {
    if (table.pending[ref] == 0 || budget == 0 || plan.n_acts >= buffers.view.max_seqs) return;
    const uint32_t tokens = std::min(table.pending[ref], budget);
    if (table.pending[ref] <= table.width[ref] && tokens < table.pending[ref]) return;  // branches go on together
    plan.op[plan.n_acts] = SLUICE_ACT_RUN;
    plan.ref[plan.n_acts] = ref;
    plan.tokens[plan.n_acts++] = tokens;
    budget -= tokens;
  };
  for (const auto ref : buffers.resident)
    if (table.pending[ref] <= table.width[ref]) run(ref);
  for (const auto ref : buffers.resident)
    if (table.pending[ref] > table.width[ref]) run(ref);
  for (const auto ref : buffers.swapped) {
    plan.op[plan.n_acts] = SLUICE_ACT_SWAP_IN;
    plan.ref[plan.n_acts] = ref;
    plan.tokens[plan.n_acts++] = 0;
  }
  if (buffers.swapped.empty())
    for (const auto ref : buffers.waiting) run(ref);
  for (auto it = buffers.resident.rbegin(); it != buffers.resident.rend(); ++it) plan.victims[plan.n_victims++] = *it;
}

}  // namespace sluice::engine

// EngineCore, first half of a step: what the scheduler sees, what it says, and carrying that out.
#include <algorithm>

#include "core/base/log.hpp"
#include "core/engine/core_pieces.hpp"
#include "core/engine/engine_core.hpp"

namespace sluice::engine {

using request::CancelCause;

namespace {

constexpr uint32_t kFirstProbes = 32;

}  // namespace

uint32_t EngineCore::pending_of(sluice_seq_ref ref) {
  const auto &sequence = *sequences_[ref];
  if (groups_[ref]) return pending_of_branches(ref);
  if (sequence.request->events->full()) {
    somebody_paused_ = true;
    return 0;
  }
  if (!sequence.in_flight) return sequence.length() - sequence.computed;
  // While its step runs: what it can take in the next one.
  const uint32_t fed = sequence.computed + sequence.in_flight_tokens;
  if (sequence.cancel_cause) return 0;
  if (fed < sequence.length()) return sequence.length() - fed;
  return sequence.generated() + 1 < sequence.request->max_new ? 1 : 0;
}

void EngineCore::fill_view() {
  auto &view = buffers_.view;
  buffers_.resident.clear();
  buffers_.waiting.clear();
  view.now_ns = parts_.clock->now_ns();
  view.step_no = step_no_;
  rows_left_ = limits_.max_rows - limits_.max_seqs;
  end_abandoned(resident_);
  end_abandoned(swapped_);
  for (const auto ref : resident_) {
    auto &sequence = *sequences_[ref];
    refresh(ref);
    if (!groups_[ref]) table_.exclusive_blocks[ref] = exclusive_blocks_of(sequence);
    if (limits_.prefix_cache && table_.pending[ref] > table_.width(ref))  // others may want to wait for what comes
      table_.found(ref, 0, next_block_hash(sequence, sequence.n_published), step_no_);
    buffers_.resident.push_back(ref);
  }
  fill_wishes();
  for (const auto ref : swapped_) table_.pending[ref] = pending_of(ref);
  buffers_.swapped.assign(swapped_.begin(), swapped_.end());
  buffers_.moving.assign(moving_.begin(), moving_.end());
  // Nothing about a waiting sequence changes but whether its channel has room and what the prefix cache has of it, so
  // only the window is looked at, and the cache is asked for those who could start. A policy may ask for more.
  size_t n_first = std::min<size_t>(kFirstProbes, limits_.max_seqs - std::min<size_t>(limits_.max_seqs, resident_.size()));
  probes_left_ = kProbesPerStep;
  for (const auto ref : waiting_) {
    if (buffers_.waiting.size() == limits_.waiting_window) break;
    table_.pending[ref] = pending_of(ref);
    if (table_.pending[ref] == 0) continue;
    buffers_.waiting.push_back(ref);
    if (n_first == 0 || !limits_.prefix_cache) continue;
    --n_first;
    probe(ref);
  }
  view.resident = buffers_.resident.data();
  view.n_resident = static_cast<uint32_t>(buffers_.resident.size());
  view.waiting = buffers_.waiting.data();
  view.n_waiting = static_cast<uint32_t>(buffers_.waiting.size());
  view.swapped = buffers_.swapped.data();
  view.n_swapped = static_cast<uint32_t>(buffers_.swapped.size());
  view.moving = buffers_.moving.data();
  view.n_moving = static_cast<uint32_t>(buffers_.moving.size());
  view.n_waiting_total = static_cast<uint32_t>(waiting_.size());
  view.waiting_tokens = waiting_tokens_;
  view.token_budget = limits_.token_budget;
  view.max_seqs = limits_.max_seqs;
  view.max_prefills = limits_.max_seqs;
  view.block_size = limits_.block_size;
  view.device_total = pool_.total();
  view.device_free = pool_.free_blocks();
  view.device_evictable = pool_.cached_blocks();
  view.watermark = limits_.watermark_blocks;
  view.host_total = host_pool_.total();
  view.host_free = host_pool_.available_blocks();
  view.bytes_per_block = limits_.bytes_per_block;
  view.swap_out_bytes = moving_bytes_[false];
  view.swap_in_bytes = moving_bytes_[true];
  view.swap_out_bytes_per_s = swap_cost_.bytes_per_s(false);
  view.swap_in_bytes_per_s = swap_cost_.bytes_per_s(true);
}

void EngineCore::probe(sluice_seq_ref ref) {
  auto &sequence = *sequences_[ref];
  const uint32_t n_cached = cached_blocks_of(sequence);
  table_.found(ref, n_cached * limits_.block_size, next_block_hash(sequence, n_cached), step_no_);
  if (table_.pending[ref] > 0)
    table_.pending[ref] = groups_[ref] ? pending_of_branches(ref, n_cached * limits_.block_size)
                                       : sequence.length() - n_cached * limits_.block_size;
}

uint64_t EngineCore::next_block_hash(Sequence &sequence, uint32_t n_blocks) {
  const uint32_t n_full = (sequence.length() - 1) / limits_.block_size;
  if (n_blocks >= n_full) return 0;
  extend_hashes(sequence, n_full);
  return std::max<uint64_t>(1, sequence.hashes[n_blocks].low);
}

void EngineCore::end_abandoned(const std::vector<sluice_seq_ref> &refs) {
  for (size_t i = 0; i < refs.size();) {
    auto &sequence = *sequences_[refs[i]];
    if (!sequence.request->events->closed()) {
      ++i;
      continue;
    }
    sequence.cancel_cause = CancelCause::kDisconnect;
    if (sequence.in_flight) {
      ++i;  // ends with its step
    } else {
      end_cancelled(refs[i]);  // and takes it from the list
    }
  }
}

uint32_t EngineCore::exclusive_blocks_of(Sequence &sequence) {
  if (sequence.counted_epoch != pool_.sharing_epoch() || sequence.n_counted > sequence.blocks.size()) {
    sequence.exclusive_blocks = sequence.n_counted = 0;
    sequence.counted_epoch = pool_.sharing_epoch();
  }
  for (; sequence.n_counted < sequence.blocks.size(); ++sequence.n_counted)
    sequence.exclusive_blocks += pool_.is_shared(sequence.blocks[sequence.n_counted]) ? 0 : 1;
  return sequence.exclusive_blocks;
}

uint32_t EngineCore::cached_blocks_of(Sequence &sequence) {
  const uint32_t block_size = limits_.block_size;
  // At least one token is fed, or there would be no row to go on from.
  const uint32_t n = (sequence.length() - 1) / block_size;
  extend_hashes(sequence, n);
  return pool_.match(std::span(sequence.hashes).first(n), sequence.tokens);
}

void EngineCore::extend_hashes(Sequence &sequence, uint32_t n) {
  const uint32_t block_size = limits_.block_size;
  if (sequence.hashes.size() >= n) return;
  auto hash = sequence.hashes.empty() ? kv::prefix_root(sequence.request->client) : sequence.hashes.back();
  for (size_t i = sequence.hashes.size(); i < n; ++i) {
    hash = kv::prefix_next(hash, std::span(sequence.tokens).subspan(i * block_size, block_size));
    sequence.hashes.push_back(hash);
  }
}

void EngineCore::attach_prefix(Sequence &sequence) {
  const uint32_t n = cached_blocks_of(sequence);
  pool_.share(sequence.hashes, n, sequence.blocks);
  sequence.computed = n * limits_.block_size;
  sequence.n_published = n;
}

void EngineCore::publish_blocks(Sequence &sequence) {
  const uint32_t n_full = sequence.computed / limits_.block_size;
  if (n_full <= sequence.n_published) return;
  extend_hashes(sequence, n_full);
  publish_in(pool_, sequence, sequence.blocks, n_full);
  sequence.n_published = n_full;
}

void EngineCore::publish_in(kv::BlockPool &pool, const Sequence &sequence, const std::vector<uint32_t> &blocks,
                            uint32_t n_full) {
  const uint32_t block_size = limits_.block_size;
  for (uint32_t i = &pool == &pool_ ? sequence.n_published : 0; i < n_full; ++i)
    pool.publish(blocks[i], sequence.hashes[i],
                 std::span(sequence.tokens).subspan(size_t{i} * block_size, block_size));
}

void EngineCore::refresh(sluice_seq_ref ref) {
  if (groups_[ref]) return refresh_branches(ref);
  table_.refresh(ref, *sequences_[ref], pending_of(ref));
}

bool EngineCore::plan() {
  somebody_paused_ = false;
  fill_view();
  wake_at_ns_ = next_deadline_ns_;
  // A reader that has caught up does not ring, so its sequence is looked at again soon.
  if (somebody_paused_) {
    const uint64_t soon = buffers_.view.now_ns + kPollNs;
    wake_at_ns_ = wake_at_ns_ == 0 ? soon : std::min(wake_at_ns_, soon);
  }
  if (table_.has_events()) {
    const auto events = table_.events();
    auto heard = call({scheduler_who_.c_str(), "on_events"}, parts_.scheduler->on_events, scheduler_, &events);
    table_.clear_events();
    free_refs_.insert(free_refs_.end(), retired_refs_.begin(), retired_refs_.end());
    retired_refs_.clear();
    if (!heard) note_plugin_error(heard.error());
  }
  if (n_live_ == 0) return false;

  buffers_.reset();
  auto planned = call({scheduler_who_.c_str(), "plan"}, parts_.scheduler->plan, scheduler_, &buffers_.view, &buffers_.plan);
  buffers_.point_at_own();
  std::string wrong;
  if (!planned) {
    note_plugin_error(planned.error());
    wrong = planned.error().error.message;
  } else if (!ticket_ || buffers_.plan.n_acts > 0) {  // no plan while a step runs is none; it is asked again behind it
    wrong = check_plan(buffers_, *table_.abi());
  }
  if (!wrong.empty()) {
    if (worth_a_line(counters_.plan_fallbacks++))
      log::warn("engine", "step {}: the plan of scheduler {} is invalid, FCFS stands in for this step: {}", step_no_,
                parts_.scheduler_name, wrong);
    plan_fallback(buffers_, *table_.abi());
  }
  if (limits_.explain_after_ns != 0 && !waiting_.empty()) explain_waiting();
  const auto &plan = buffers_.plan;
  if (plan.n_acts == 0) {
    if (plan.wake_at_ns != 0) wake_at_ns_ = wake_at_ns_ == 0 ? plan.wake_at_ns : std::min(wake_at_ns_, plan.wake_at_ns);
    return false;
  }
  return true;
}

void EngineCore::explain_waiting() {
  const uint64_t now = buffers_.view.now_ns;
  const auto ref = waiting_.front();
  const uint64_t since = std::max(table_.state_since_ns[ref], explained_ns_);
  if (now < since + limits_.explain_after_ns || !SLUICE_HAS_FN(parts_.scheduler, sluice_scheduler_vtbl, explain)) return;
  explained_ns_ = now;
  char text[256];
  uint32_t n = 0;
  auto said = call_void({scheduler_who_.c_str(), "explain"},
                        [&] { n = parts_.scheduler->explain(scheduler_, ref, text, sizeof text); });
  if (!said) return note_plugin_error(said.error());
  log::info("engine", "request {} has waited {:.0f} s, with {} in line: {}", sequences_[ref]->request->id,
            static_cast<double>(now - table_.state_since_ns[ref]) * 1e-9, waiting_.size(),
            std::string_view(text, std::min<size_t>(n, sizeof text)));
}

bool EngineCore::carry_out() {
  batch_.clear();
  batch_refs_.clear();
  batch_sequences_.clear();
  batch_tokens_.clear();
  batch_seat_.clear();
  seats_.clear();
  copies_.clear();
  const auto &plan = buffers_.plan;
  bool any = false;
  for (uint32_t i = 0; i < plan.n_acts; ++i) {
    const sluice_seq_ref ref = plan.ref[i];
    if (!sequences_[ref]) continue;  // a mask or a bias failed while an earlier act was carried out
    const bool possible = act(plan.op[i], ref, plan.tokens[i], plan.drafts[i]);
    if (!possible) table_.event(SLUICE_EV_TRIMMED, ref, 0, 0, 0);
    any |= possible;
  }
  make_drafts();
  fill_batch();
  return any;
}

bool EngineCore::act(uint8_t op, sluice_seq_ref ref, uint32_t n_tokens, uint32_t n_drafts) {
  const uint8_t state = sequences_[ref]->state;  // an earlier act may have made it another than the plan knew
  switch (op) {
    case SLUICE_ACT_RUN:
      if (sequences_[ref]->request->events->full()) return true;  // since the plan: it pauses
      return (state == SLUICE_SEQ_WAITING || state == SLUICE_SEQ_RESIDENT) && run(ref, n_tokens, n_drafts);
    case SLUICE_ACT_SWAP_OUT: return state == SLUICE_SEQ_RESIDENT && swap_out(ref);
    case SLUICE_ACT_SWAP_IN: return state == SLUICE_SEQ_SWAPPED && swap_in(ref);
    case SLUICE_ACT_PREEMPT:
      if (state == SLUICE_SEQ_RESIDENT) preempt(ref);
      return true;
    case SLUICE_ACT_REJECT:
      finish(ref, error_event(sequences_[ref]->answer,
                              {Code::kUnavailable, "the scheduler turned the request away under load", {}}),
             SLUICE_EV_CANCEL);
      return true;
    default: return false;
  }
}

bool EngineCore::run(sluice_seq_ref ref, uint32_t n_tokens, uint32_t n_drafts) {
  if (groups_[ref]) return run_branches(ref, n_tokens);
  auto &sequence = *sequences_[ref];
  const bool admitted = sequence.state == SLUICE_SEQ_WAITING;
  if (admitted && limits_.prefix_cache) attach_prefix(sequence);
  // A victim of an earlier act that is admitted again has more to feed.
  n_tokens = std::min(n_tokens, sequence.length() - sequence.computed);
  const auto give_up = [&] {
    if (admitted) release_blocks(sequence);
    return false;
  };
  const bool is_decode = sequence.length() - sequence.computed == 1;
  if (!mixed_batch_ && !batch_refs_.empty() && batch_decodes() != is_decode) return give_up();
  const uint32_t needed = blocks_for(uint64_t{sequence.computed} + n_tokens, limits_.block_size);
  const auto held = static_cast<uint32_t>(sequence.blocks.size());
  if (needed > held && !make_room(ref, needed - held)) return give_up();
  if (needed > held) pool_.allocate(needed - held, sequence.blocks);
  if (admitted) admit(ref);
  const uint32_t drafts = is_decode && n_drafts > 0 ? room_for_drafts(sequence, n_drafts) : 0;
  batch_seat_.push_back(drafts > 0 ? static_cast<int32_t>(seats_.size()) : -1);
  if (drafts > 0) take_seat(sequence, drafts);
  sequence.in_flight = true;
  sequence.in_flight_tokens = n_tokens;
  batch_refs_.push_back(ref);
  batch_sequences_.push_back(&sequence);
  batch_tokens_.push_back(n_tokens);
  return true;
}

void EngineCore::admit(sluice_seq_ref ref) {
  auto &sequence = *sequences_[ref];
  if (sequence.generated() == 0) sequence.cached_prompt = sequence.computed;
  if (sequence.queued_ns == 0) sequence.queued_ns = buffers_.view.now_ns - sequence.request->arrival_ns;
  counters_.looked_up_tokens += sequence.length();
  counters_.cached_tokens += sequence.computed;
  delist(ref);
  enlist(ref, SLUICE_SEQ_RESIDENT);
  table_.state_since_ns[ref] = buffers_.view.now_ns;
  table_.flags[ref] &= ~SLUICE_SEQF_RESUMED;
}

bool EngineCore::make_room(sluice_seq_ref for_ref, uint32_t n_blocks) {
  // Nobody is pushed out for a newcomer unless the plan says so in as many words: an act of its own.
  if (sequences_[for_ref]->state == SLUICE_SEQ_WAITING) return pool_.available_blocks() >= n_blocks;
  const auto &plan = buffers_.plan;
  const auto can_yield = [&](sluice_seq_ref victim) {
    return victim != for_ref && sequences_[victim] && !in_batch(victim) &&
           sequences_[victim]->state == SLUICE_SEQ_RESIDENT && (table_.flags[victim] & SLUICE_SEQF_NO_PREEMPT) == 0;
  };
  for (uint32_t i = 0; i < plan.n_victims && pool_.available_blocks() < n_blocks; ++i)
    if (can_yield(plan.victims[i])) give_way(plan.victims[i]);
  // Beyond the policy's list only when the step would otherwise come to nothing: the cheapest per block that it frees.
  while (batch_refs_.empty() && pool_.available_blocks() < n_blocks) {
    std::optional<sluice_seq_ref> cheapest;
    double least = 0;
    for (size_t i = resident_.size(); i > 0; --i) {
      const auto ref = resident_[i - 1];
      const uint32_t freed =
          groups_[ref] ? measure_branches(ref).exclusive_blocks : exclusive_blocks_of(*sequences_[ref]);
      if (!can_yield(ref) || freed == 0) continue;
      const double price = static_cast<double>(yield_ns(*sequences_[ref])) / freed;
      if (cheapest && price >= least) continue;
      cheapest = ref;
      least = price;
    }
    if (!cheapest) return false;
    give_way(*cheapest);
  }
  return pool_.available_blocks() >= n_blocks;
}

void EngineCore::release_blocks(Sequence &sequence) {
  pool_.free(sequence.blocks);
  host_pool_.free(sequence.host_blocks);
  sequence.computed = 0;
  sequence.n_published = sequence.n_counted = sequence.exclusive_blocks = 0;
}

}  // namespace sluice::engine

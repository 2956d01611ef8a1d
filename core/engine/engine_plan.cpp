// EngineCore, first half of a step: what the scheduler sees, what it says, and carrying that out.
#include <algorithm>

#include "core/base/log.hpp"
#include "core/engine/core_pieces.hpp"
#include "core/engine/engine_core.hpp"

namespace sluice::engine {

using request::CancelCause;

namespace {

constexpr uint64_t kPausedPollNs = 2'000'000;

}  // namespace

uint32_t EngineCore::pending_of(const Sequence &sequence) {
  if (!sequence.request->events->full()) return sequence.length() - sequence.computed;
  somebody_paused_ = true;
  return 0;
}

void EngineCore::fill_view() {
  auto &view = buffers_.view;
  buffers_.resident.clear();
  buffers_.waiting.clear();
  view.now_ns = parts_.clock->now_ns();
  view.step_no = step_no_;
  rows_left_ = limits_.max_rows - limits_.max_seqs;
  for (size_t i = 0; i < resident_.size();) {
    const auto ref = resident_[i];
    auto &sequence = *sequences_[ref];
    if (sequence.request->events->closed()) {  // a consumer that hung up is not worth a step
      sequence.cancel_cause = CancelCause::kDisconnect;
      end_cancelled(ref);
      continue;
    }
    table_.refresh(ref, sequence, pending_of(sequence));
    table_.draft_wish[ref] = sequence.generated() > 0 && table_.pending[ref] == 1
                                 ? room_for_drafts(sequence, drafting_->wish(sequence)) : 0;
    table_.exclusive_blocks[ref] = static_cast<uint32_t>(std::count_if(
        sequence.blocks.begin(), sequence.blocks.end(), [&](uint32_t block) { return !pool_.is_shared(block); }));
    buffers_.resident.push_back(ref);
    ++i;
  }
  // Nothing about a waiting sequence changes but whether its channel has room and what the prefix cache has of it, so
  // only the window is looked at, and the cache is asked for as many as there are seats.
  size_t seats = limits_.max_seqs - std::min<size_t>(limits_.max_seqs, resident_.size());
  for (const auto ref : waiting_) {
    if (buffers_.waiting.size() == limits_.waiting_window) break;
    auto &sequence = *sequences_[ref];
    uint32_t pending = pending_of(sequence);
    if (pending > 0 && limits_.prefix_cache && seats > 0) {
      --seats;
      const uint32_t cached = cached_blocks_of(sequence) * limits_.block_size;
      table_.found(ref, cached, step_no_);
      pending -= cached;
    }
    table_.pending[ref] = pending;
    if (pending > 0) buffers_.waiting.push_back(ref);
  }
  view.resident = buffers_.resident.data();
  view.n_resident = static_cast<uint32_t>(buffers_.resident.size());
  view.waiting = buffers_.waiting.data();
  view.n_waiting = static_cast<uint32_t>(buffers_.waiting.size());
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
}

uint32_t EngineCore::cached_blocks_of(Sequence &sequence) {
  const uint32_t block_size = limits_.block_size;
  // At least one token is fed, or there would be no row to go on from.
  const uint32_t n = (sequence.length() - 1) / block_size;
  if (sequence.hashes.size() < n) {
    auto hash = sequence.hashes.empty() ? kv::prefix_root(sequence.request->client) : sequence.hashes.back();
    for (size_t i = sequence.hashes.size(); i < n; ++i) {
      hash = kv::prefix_next(hash, std::span(sequence.tokens).subspan(i * block_size, block_size));
      sequence.hashes.push_back(hash);
    }
  }
  return pool_.match(std::span(sequence.hashes).first(n), sequence.tokens);
}

void EngineCore::attach_prefix(Sequence &sequence) {
  const uint32_t n = cached_blocks_of(sequence);
  pool_.share(sequence.hashes, n, sequence.blocks);
  sequence.computed = n * limits_.block_size;
  sequence.n_published = n;
}

void EngineCore::publish_blocks(Sequence &sequence) {
  const uint32_t block_size = limits_.block_size;
  for (; (sequence.n_published + 1) * block_size <= sequence.computed; ++sequence.n_published) {
    const size_t i = sequence.n_published;
    const auto tokens = std::span(sequence.tokens).subspan(i * block_size, block_size);
    if (sequence.hashes.size() == i)
      sequence.hashes.push_back(
          kv::prefix_next(i == 0 ? kv::prefix_root(sequence.request->client) : sequence.hashes.back(), tokens));
    pool_.publish(sequence.blocks[i], sequence.hashes[i], tokens);
  }
}

bool EngineCore::plan() {
  somebody_paused_ = false;
  fill_view();
  wake_at_ns_ = next_deadline_ns_;
  // A reader that has caught up does not ring, so its sequence is looked at again soon.
  if (somebody_paused_) {
    const uint64_t soon = buffers_.view.now_ns + kPausedPollNs;
    wake_at_ns_ = wake_at_ns_ == 0 ? soon : std::min(wake_at_ns_, soon);
  }
  if (table_.has_events()) {
    const auto events = table_.events();
    auto heard = call(scheduler_who_.c_str(), parts_.scheduler->on_events, scheduler_, &events);
    table_.clear_events();
    free_refs_.insert(free_refs_.end(), retired_refs_.begin(), retired_refs_.end());
    retired_refs_.clear();
    if (!heard) note_plugin_error(heard.error());
  }
  if (n_live_ == 0) return false;

  buffers_.reset();
  auto planned = call(scheduler_who_.c_str(), parts_.scheduler->plan, scheduler_, &buffers_.view, &buffers_.plan);
  std::string wrong;
  if (!planned) {
    note_plugin_error(planned.error());
    wrong = planned.error().error.message;
  } else {
    wrong = check_plan(buffers_, *table_.abi());
  }
  if (!wrong.empty()) {
    if (worth_a_line(counters_.plan_fallbacks++))
      log::warn("engine", "step {}: the plan of scheduler {} is invalid, FCFS stands in for this step: {}", step_no_,
                parts_.scheduler_name, wrong);
    plan_fallback(buffers_, *table_.abi());
  }
  const auto &plan = buffers_.plan;
  if (plan.n_acts == 0) {
    if (plan.wake_at_ns != 0) wake_at_ns_ = wake_at_ns_ == 0 ? plan.wake_at_ns : std::min(wake_at_ns_, plan.wake_at_ns);
    return false;
  }
  return true;
}

void EngineCore::carry_out() {
  batch_.clear();
  batch_refs_.clear();
  batch_tokens_.clear();
  batch_seat_.clear();
  seats_.clear();
  const auto &plan = buffers_.plan;
  for (uint32_t i = 0; i < plan.n_acts; ++i) {
    const sluice_seq_ref ref = plan.ref[i];
    if (!sequences_[ref]) continue;  // a mask or a bias failed while an earlier act was carried out
    switch (plan.op[i]) {
      case SLUICE_ACT_RUN: run(ref, plan.tokens[i], plan.drafts[i]); break;
      case SLUICE_ACT_PREEMPT:
        if (sequences_[ref]->state == SLUICE_SEQ_RESIDENT) preempt(ref);
        break;
      case SLUICE_ACT_REJECT:
        finish(ref, error_event(sequences_[ref]->answer,
                                {Code::kUnavailable, "the scheduler turned the request away under load", {}}),
               SLUICE_EV_CANCEL);
        break;
      default: break;
    }
  }
  make_drafts();
  fill_batch();
}

void EngineCore::run(sluice_seq_ref ref, uint32_t n_tokens, uint32_t n_drafts) {
  auto &sequence = *sequences_[ref];
  const bool admitted = sequence.state == SLUICE_SEQ_WAITING;
  if (admitted && limits_.prefix_cache) attach_prefix(sequence);
  // An earlier act may have taken its blocks; then what it has to feed has changed too.
  n_tokens = std::min(n_tokens, sequence.length() - sequence.computed);
  const auto trim = [&] {
    if (admitted) release_blocks(sequence);
    table_.event(SLUICE_EV_TRIMMED, ref, 0, 0, 0);
  };
  const bool is_decode = sequence.length() - sequence.computed == 1;
  if (!mixed_batch_ && !batch_refs_.empty()) {
    const auto &first = *sequences_[batch_refs_.front()];
    if ((first.length() - first.computed == 1) != is_decode) return trim();
  }
  const uint32_t needed = blocks_for(uint64_t{sequence.computed} + n_tokens, limits_.block_size);
  const auto held = static_cast<uint32_t>(sequence.blocks.size());
  if (needed > held && !make_room(ref, needed - held)) return trim();
  if (needed > held) pool_.allocate(needed - held, sequence.blocks);
  if (admitted) {
    if (sequence.generated() == 0) sequence.cached_prompt = sequence.computed;
    counters_.cached_tokens += sequence.computed;
    delist(ref);
    enlist(ref, SLUICE_SEQ_RESIDENT);
    table_.state_since_ns[ref] = buffers_.view.now_ns;
    table_.flags[ref] &= ~SLUICE_SEQF_RESUMED;
  }
  const uint32_t drafts = is_decode && n_drafts > 0 ? room_for_drafts(sequence, n_drafts) : 0;
  batch_seat_.push_back(drafts > 0 ? static_cast<int32_t>(seats_.size()) : -1);
  if (drafts > 0) take_seat(sequence, drafts);
  sequence.in_flight = true;
  batch_refs_.push_back(ref);
  batch_tokens_.push_back(n_tokens);
}

bool EngineCore::make_room(sluice_seq_ref for_ref, uint32_t n_blocks) {
  // Nobody is pushed out for a newcomer unless the plan says so in as many words: an act of its own.
  if (sequences_[for_ref]->state == SLUICE_SEQ_WAITING) return pool_.available_blocks() >= n_blocks;
  const auto &plan = buffers_.plan;
  const auto take = [&](sluice_seq_ref victim) {
    if (victim == for_ref || !sequences_[victim] || in_batch(victim) ||
        sequences_[victim]->state != SLUICE_SEQ_RESIDENT || (table_.flags[victim] & SLUICE_SEQF_NO_PREEMPT) != 0)
      return;
    preempt(victim);
  };
  for (uint32_t i = 0; i < plan.n_victims && pool_.available_blocks() < n_blocks; ++i) take(plan.victims[i]);
  // Beyond the policy's list only when the step would otherwise come to nothing.
  if (batch_refs_.empty())
    for (size_t i = resident_.size(); i > 0 && pool_.available_blocks() < n_blocks; --i) take(resident_[i - 1]);
  return pool_.available_blocks() >= n_blocks;
}

void EngineCore::release_blocks(Sequence &sequence) {
  pool_.free(sequence.blocks);
  sequence.computed = 0;
  sequence.n_published = 0;
}

void EngineCore::preempt(sluice_seq_ref ref) {
  auto &sequence = *sequences_[ref];
  const uint32_t lost = sequence.computed;
  release_blocks(sequence);
  delist(ref);
  enlist(ref, SLUICE_SEQ_WAITING);
  table_.state_since_ns[ref] = buffers_.view.now_ns;
  table_.flags[ref] |= SLUICE_SEQF_RESUMED;
  ++table_.n_preempt[ref];
  table_.draft_wish[ref] = 0;
  ++counters_.preemptions;
  table_.event(SLUICE_EV_PREEMPTED, ref, lost, 0, 0);
  table_.refresh(ref, sequence, pending_of(sequence));
}

}  // namespace sluice::engine

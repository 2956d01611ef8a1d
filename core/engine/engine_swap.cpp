// EngineCore: sequences that give up their blocks and get them back, by swap or by dropping them.
#include <algorithm>
#include <cassert>
#include <limits>

#include "core/engine/core_pieces.hpp"
#include "core/engine/engine_core.hpp"

namespace sluice::engine {
namespace {

/// How long a step with nothing to compute waits for blocks on their way before it looks for new requests.
constexpr uint64_t kTransferSliceNs = 1'000'000;

}  // namespace

bool EngineCore::swap_out(sluice_seq_ref ref) {
  auto &sequence = *sequences_[ref];
  assert(sequence.state == SLUICE_SEQ_RESIDENT && !in_batch(ref));
  const uint32_t n = blocks_for(sequence.computed, limits_.block_size);
  if (n == 0 || host_pool_.total() == 0) return false;
  // Blocks that are in swap space already, since the last time or for somebody else, need not go there again.
  const auto known = std::span(sequence.hashes).first(sequence.n_published);
  const uint32_t there = host_pool_.match(known, sequence.tokens);
  host_pool_.share(known, there, sequence.host_blocks);
  if (!host_pool_.allocate(n - there, sequence.host_blocks)) {
    host_pool_.free(sequence.host_blocks);
    return false;
  }
  if (groups_[ref] && !swap_out_branches(ref)) {
    host_pool_.free(sequence.host_blocks);
    return false;
  }
  for (uint32_t i = there; i < n; ++i) ops_out_.add(SLUICE_KV_SWAP_OUT, sequence.blocks[i], sequence.host_blocks[i]);
  going_out_.emplace_back(ref, sequence.id);
  pool_.free(sequence.blocks);
  sequence.n_published = sequence.n_counted = sequence.exclusive_blocks = 0;
  delist(ref);
  enlist(ref, SLUICE_SEQ_MOVING_OUT);
  table_.state_since_ns[ref] = buffers_.view.now_ns;
  ++table_.n_preempt[ref];
  table_.draft_wish[ref] = 0;
  ++counters_.swaps_out;
  refresh(ref);
  return true;
}

bool EngineCore::swap_in(sluice_seq_ref ref) {
  auto &sequence = *sequences_[ref];
  assert(sequence.state == SLUICE_SEQ_SWAPPED);
  const auto n = static_cast<uint32_t>(sequence.host_blocks.size());
  if (limits_.prefix_cache) {  // what is still, or again, on the device
    const auto known = std::span(sequence.hashes)
                           .first(std::min<size_t>(sequence.hashes.size(), sequence.computed / limits_.block_size));
    pool_.share(known, pool_.match(known, sequence.tokens), sequence.blocks);
  }
  const auto there = static_cast<uint32_t>(sequence.blocks.size());
  if (!pool_.allocate(n - there, sequence.blocks)) {
    pool_.free(sequence.blocks);
    return false;
  }
  if (groups_[ref] && !swap_in_branches(ref)) {
    pool_.free(sequence.blocks);
    return false;
  }
  sequence.n_published = there;
  for (uint32_t i = there; i < n; ++i) ops_in_.add(SLUICE_KV_SWAP_IN, sequence.host_blocks[i], sequence.blocks[i]);
  coming_in_.emplace_back(ref, sequence.id);
  delist(ref);
  enlist(ref, SLUICE_SEQ_MOVING_IN);
  table_.state_since_ns[ref] = buffers_.view.now_ns;
  ++counters_.swaps_in;
  refresh(ref);
  return true;
}

bool EngineCore::start_transfers() {
  // Out before in: what comes in may take the blocks of what goes out. The other way round nothing is lost either,
  // because blocks in swap space are held until what they held has arrived. Copies for branches go between: they may
  // write where something went out, and what comes in may take the block that one was copied from.
  start_transfer(false, ops_out_, going_out_);
  const bool copied = submit_copies();
  start_transfer(true, ops_in_, coming_in_);
  return copied;
}

void EngineCore::start_transfer(bool in, KvOps &ops, std::vector<std::pair<sluice_seq_ref, sluice_seq_id>> &moved) {
  if (moved.empty()) return;
  Transfer transfer;
  transfer.in = in;
  transfer.bytes = ops.size() * limits_.bytes_per_block;
  transfer.sequences.swap(moved);
  transfer.queued_ns = transfer.last_seen_moving_ns = parts_.clock->now_ns();
  if (ops.size() > 0) {
    const auto batch = ops.abi();
    auto queued = call({backend_who_.c_str(), "kv_ops"}, parts_.backend->kv_ops, parts_.model, &batch, &transfer.ticket);
    if (queued) {
      if (auto followed = drafting_->follow(batch); !followed) note_draft_error(followed.error());
    }
    ops.clear();
    if (!queued) return fail_transfer(transfer, queued.error());
  }
  moving_bytes_[in] += transfer.bytes;
  (in ? counters_.swapped_in_bytes : counters_.swapped_out_bytes) += transfer.bytes;
  transfers_.push_back(std::move(transfer));
}

bool EngineCore::land_transfers(uint64_t timeout_ns) {
  bool landed = false;
  for (size_t i = 0; i < transfers_.size();) {
    auto &transfer = transfers_[i];
    PluginResult waited;
    if (transfer.ticket != 0)
      waited = call({backend_who_.c_str(), "wait"}, parts_.backend->wait, parts_.model, transfer.ticket, timeout_ns, nullptr);
    timeout_ns = 0;
    if (!waited && waited.error().error.code == Code::kTimeout) {
      transfer.last_seen_moving_ns = parts_.clock->now_ns();
      ++i;
      continue;
    }
    const Transfer done = std::move(transfer);
    transfers_.erase(transfers_.begin() + static_cast<ptrdiff_t>(i));
    moving_bytes_[done.in] -= done.bytes;
    landed = true;
    if (waited) {
      finish_transfer(done);
    } else {
      fail_transfer(done, waited.error());
    }
  }
  return landed;
}

void EngineCore::finish_transfer(const Transfer &done) {
  const uint64_t now = parts_.clock->now_ns();
  swap_cost_.observe(done.in, done.bytes, done.last_seen_moving_ns - done.queued_ns, now - done.queued_ns);
  // When it ended is not known, only when it was seen to have ended.
  const uint64_t device_ns = std::min(now - done.queued_ns, swap_cost_.predict_ns(done.in, done.bytes));
  for (const auto &[ref, id] : done.sequences) {
    if (!sequences_[ref] || sequences_[ref]->id != id) continue;
    auto &sequence = *sequences_[ref];
    delist(ref);
    if (done.in) {
      host_pool_.free(sequence.host_blocks);
      if (groups_[ref])
        for (auto &branch : groups_[ref]->others) host_pool_.free(branch->host_blocks);
      else if (limits_.prefix_cache)
        publish_blocks(sequence);
    } else if (limits_.prefix_cache && !groups_[ref]) {
      publish_in(host_pool_, sequence, sequence.host_blocks, sequence.computed / limits_.block_size);
    }
    enlist(ref, done.in ? SLUICE_SEQ_RESIDENT : SLUICE_SEQ_SWAPPED);
    table_.state_since_ns[ref] = now;
    refresh(ref);
    table_.event(done.in ? SLUICE_EV_SWAPPED_IN : SLUICE_EV_SWAPPED_OUT, ref, 0, 0, device_ns);
  }
}

void EngineCore::fail_transfer(const Transfer &failed, const PluginFailure &failure) {
  note_plugin_error(failure);
  // What arrived is unknown. Nobody's tokens are lost: they are computed again.
  for (const auto &[ref, id] : failed.sequences)
    if (sequences_[ref] && sequences_[ref]->id == id) preempt(ref);
}

StepOutcome EngineCore::wait_for_transfers(uint64_t timeout_ns) {
  return land_transfers(std::min(timeout_ns, kTransferSliceNs)) ? StepOutcome::kCommitted : StepOutcome::kInFlight;
}

uint64_t EngineCore::swap_ns(const Sequence &sequence) const {
  const uint32_t n_blocks = blocks_for(sequence.computed, limits_.block_size);
  if (n_blocks > host_pool_.available_blocks()) return std::numeric_limits<uint64_t>::max();
  const uint64_t bytes = n_blocks * limits_.bytes_per_block;
  return swap_cost_.predict_ns(false, bytes) + swap_cost_.predict_ns(true, bytes);
}

uint64_t EngineCore::recompute_ns(const Sequence &sequence) const {
  // Blocks that others hold stay where they are, and a prefix is all that can be found again.
  uint32_t kept = 0;
  while (kept < sequence.n_published && pool_.is_shared(sequence.blocks[kept])) ++kept;
  return cost_.prefill_ns(kept * limits_.block_size, sequence.computed, limits_.token_budget);
}

uint64_t EngineCore::yield_ns(const Sequence &sequence) const {
  return std::min(swap_ns(sequence), recompute_ns(sequence));
}

void EngineCore::give_way(sluice_seq_ref ref) {
  const auto &sequence = *sequences_[ref];
  if (swap_ns(sequence) >= recompute_ns(sequence) || !swap_out(ref)) preempt(ref);
}

void EngineCore::preempt(sluice_seq_ref ref) {
  auto &sequence = *sequences_[ref];
  const uint32_t lost = sequence.computed;
  release_blocks(sequence);
  if (groups_[ref]) release_branches(ref);
  delist(ref);
  enlist(ref, SLUICE_SEQ_WAITING);
  table_.state_since_ns[ref] = parts_.clock->now_ns();
  table_.flags[ref] |= SLUICE_SEQF_RESUMED;
  ++table_.n_preempt[ref];
  table_.draft_wish[ref] = 0;
  ++counters_.preemptions;
  table_.event(SLUICE_EV_PREEMPTED, ref, lost, 0, 0);
  refresh(ref);
}

}  // namespace sluice::engine

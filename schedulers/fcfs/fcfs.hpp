// First come, first served: the order of arrival decides who is admitted, who gets prompt tokens first and, read
// backwards, who gives up memory. Every step runs all decodes, then started prompts, then new ones while tokens,
// seats and blocks last. Who was swapped out comes back before anybody new. (Continuous batching: Yu et al., OSDI'22. Chunked prefill: Agrawal et al., OSDI'24.)
// A header, so that a policy which falls back to this order has it to the bit.
#pragma once
#include <sluice/sdk/scheduler.hpp>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace sluice::fcfs {
using namespace sluice::sdk;

constexpr uint64_t kWakeNs = 10'000'000;
constexpr uint32_t kMaxOvertaken = 32;   // steps
constexpr uint32_t kMostOvertaken = 16;  // at a time

/// What kept the head of the queue out of the last plan.
enum class Closed : uint8_t { kNothing, kSeats, kTokens, kPrefills, kBlocks, kPreempted };

/// Always: a plan reads the resident list and those it admits, and allocates nothing.
class Fcfs final : public Scheduler {
 public:
  static constexpr uint32_t kFlags = SLUICE_SCHEDF_PREEMPTIVE;

  Fcfs(const Config &config, const sluice_sched_setup &setup)
      : table_(*setup.table), host_(setup.can_swap != 0 ? setup.host : nullptr), last_(setup.table->capacity) {
    computing_.reserve(setup.max_seqs);
    reconfigure(config);
  }

  void reconfigure(const Config &config) override {
    max_chunk_tokens_ = static_cast<uint32_t>(config.i64("max_chunk", 0));
    no_evict_ = config.flag("no_evict", false);
    max_overtaken_ = static_cast<uint32_t>(config.i64("max_overtaken", kMaxOvertaken));
  }

  void plan(const View &step, Plan &out) override {
    ++plan_no_;
    closed_ = Closed::kNothing, short_of_blocks_ = false;
    computing_.clear(), host_blocks_promised_ = 0;
    Room room{step.usable_blocks(), step.v.n_resident};
    Batch batch{step.v.token_budget, step.v.max_seqs, step.v.max_prefills};
    run_decodes(step, room, batch, out);
    run_started_prompts(step, room, batch, out);
    if (bring_back(step, room, out)) admit(step, room, batch, out);
    name_victims(step, out);
    if (out.size() == 0) out.wake_at(step.v.now_ns + kWakeNs);
  }

  uint32_t explain(sluice_seq_ref ref, char *buf, uint32_t cap) const override {
    if (cap == 0) return 0;
    const int n = describe(ref, buf, cap);
    return std::min(static_cast<uint32_t>(std::max(n, 0)), cap - 1);
  }

 private:
  /// Blocks while a plan is written. Residents from `unasked` on have been asked to yield: they did, or cannot.
  struct Room {
    uint32_t free_blocks, unasked;
  };
  struct Batch {
    uint32_t tokens_left, seats_left, prefills_left;
    uint64_t owed_tokens = 0;  // to decodes that are still to come
  };
  /// The plan that last ran this sequence, with the blocks that it handed out, and the one that last preempted it.
  struct Last {
    uint64_t ran = 0, preempted = 0;
    uint32_t blocks = 0;
    uint32_t overtaken = 0;  ///< plans since then that admitted somebody behind it while it was short of blocks
  };

  bool ran(sluice_seq_ref r) const { return last_[r].ran == plan_no_; }
  bool preempted(sluice_seq_ref r) const { return last_[r].preempted == plan_no_; }
  bool can_yield(sluice_seq_ref r) const {
    return (table_.flags[r] & SLUICE_SEQF_NO_PREEMPT) == 0 && table_.exclusive_blocks[r] > 0;
  }

  /// Preempts the latest arrivals behind resident `i` until `need` blocks are free. Who runs in this plan is left
  /// alone.
  bool make_room(const View &step, uint32_t i, uint32_t need, Room &room, Plan &out) {
    while (room.free_blocks < need && room.unasked > i + 1) {
      const sluice_seq_ref victim = step.v.resident[--room.unasked];
      if (ran(victim) || !can_yield(victim)) continue;
      if (swap_is_cheaper(step, victim)) {
        out.swap_out(victim);
        host_blocks_promised_ += table_.device_blocks[victim];
      } else {
        out.preempt(victim);
      }
      last_[victim].preempted = plan_no_;
      room.free_blocks += table_.exclusive_blocks[victim];
      closed_ = Closed::kPreempted;
    }
    return room.free_blocks >= need;
  }

  bool swap_is_cheaper(const View &step, sluice_seq_ref r) const {
    const uint32_t blocks = table_.device_blocks[r];
    if (host_ == nullptr || uint64_t{blocks} + host_blocks_promised_ > step.v.host_free) return false;
    return host_->swap_time_ns(host_->ctx, blocks, 0) + host_->swap_time_ns(host_->ctx, blocks, 1) <
           host_->recompute_time_ns(host_->ctx, r);
  }

  void run(const View &step, sluice_seq_ref r, uint32_t tokens, uint32_t drafts, Room &room, Batch &batch, Plan &out) {
    out.run(r, tokens, drafts);
    const uint32_t blocks = std::min(room.free_blocks, step.blocks_for(r, tokens + drafts));
    last_[r].ran = plan_no_, last_[r].blocks = blocks, last_[r].overtaken = 0;
    if (const uint64_t hash = next_block_hash(step, r); hash != 0 && !step.decodes(r)) computing_.push_back(hash);
    room.free_blocks -= blocks, batch.tokens_left -= tokens + drafts, --batch.seats_left;
  }

  void run_decodes(const View &step, Room &room, Batch &batch, Plan &out) {
    for (const sluice_seq_ref r : step.resident())
      if (step.decodes(r)) batch.owed_tokens += table_.pending[r];
    for (uint32_t i = 0; i < step.v.n_resident; ++i) {
      const sluice_seq_ref r = step.v.resident[i];
      const uint32_t tokens = table_.pending[r];
      if (tokens == 0 || !step.decodes(r)) continue;
      batch.owed_tokens -= tokens;
      if (preempted(r) || batch.seats_left == 0 || tokens > batch.tokens_left) continue;
      uint32_t drafts = drafts_for(r, tokens, batch);
      if (step.blocks_for(r, tokens + drafts) > room.free_blocks) drafts = 0;  // nobody yields for a guess
      if (make_room(step, i, step.blocks_for(r, tokens + drafts), room, out))
        run(step, r, tokens, drafts, room, batch, out);
      else
        short_of_blocks_ = true;  // it pauses and keeps what it has
    }
  }
  uint32_t drafts_for(sluice_seq_ref r, uint32_t tokens, const Batch &batch) const {
    const uint64_t spoken_for = tokens + batch.owed_tokens;
    if (spoken_for >= batch.tokens_left) return 0;
    return static_cast<uint32_t>(std::min<uint64_t>(table_.draft_wish[r], batch.tokens_left - spoken_for));
  }

  void run_started_prompts(const View &step, Room &room, Batch &batch, Plan &out) {
    for (uint32_t i = 0; i < step.v.n_resident; ++i) {
      const sluice_seq_ref r = step.v.resident[i];
      if (table_.pending[r] == 0 || step.decodes(r) || preempted(r)) continue;
      if (batch.seats_left == 0 || batch.tokens_left == 0 || batch.prefills_left == 0) return;
      if (tokens_that_fit(step, r, room) == 0) make_room(step, i, 1, room, out);
      const uint32_t wanted = chunk(r, batch);
      const uint32_t tokens = std::min(wanted, tokens_that_fit(step, r, room));  // cheaper than one more preemption
      if (tokens < wanted) short_of_blocks_ = true;
      if (tokens == 0) continue;
      run(step, r, tokens, 0, room, batch, out);
      --batch.prefills_left;
    }
  }
  uint32_t chunk(sluice_seq_ref r, const Batch &batch) const {
    const uint32_t tokens = std::min(table_.pending[r], batch.tokens_left);
    return max_chunk_tokens_ == 0 ? tokens : std::min(tokens, max_chunk_tokens_);
  }
  uint32_t tokens_that_fit(const View &step, sluice_seq_ref r, const Room &room) const {
    const uint64_t room_tokens = (uint64_t{table_.device_blocks[r]} + room.free_blocks) * step.v.block_size;
    const uint64_t used = uint64_t{table_.computed[r]} + table_.in_flight[r];
    return room_tokens > used ? static_cast<uint32_t>(std::min<uint64_t>(room_tokens - used, UINT32_MAX)) : 0;
  }

  /// The first block that nobody has computed yet, where the host has looked; 0 = unknown, or none.
  uint64_t next_block_hash(const View &step, sluice_seq_ref r) const {
    if (table_.first_miss_hash == nullptr || table_.probed_step[r] != step.v.step_no) return 0;
    return table_.first_miss_hash[r];
  }

  /// In order of arrival, one after the other. False: somebody is still out, so nobody new is let in.
  bool bring_back(const View &step, Room &room, Plan &out) {
    if (step.v.n_swapped == 0) return true;
    if (closed_ == Closed::kPreempted || short_of_blocks_) return false;
    uint64_t reserved = 0;
    for (const sluice_seq_ref r : step.resident()) reserved += blocks_to_come(step, r);
    bool alone = step.v.n_resident + step.v.n_moving == 0;
    for (const sluice_seq_ref r : step.swapped()) {
      // One block more, or it would be out again at its next token.
      const uint64_t need = uint64_t{table_.host_blocks[r]} + (alone ? 0 : 1 + step.v.watermark);
      if (need + reserved > room.free_blocks) return close_for_blocks(room, reserved, need), false;
      out.swap_in(r);
      room.free_blocks -= table_.host_blocks[r];
      alone = false;
    }
    return true;
  }

  /// In order of arrival, so who lost its blocks (RESUMED) has its old place without further ado. A prompt starts only
  /// if all of it fits beside what started prompts are still to fill: none is dropped half done for another's sake. One
  /// that does not fit is overtaken by those that do, but only so often; one whose next block is being computed for
  /// somebody else waits for that.
  void admit(const View &step, Room &room, Batch &batch, Plan &out) {
    if (closed_ == Closed::kPreempted || step.v.n_waiting == 0) return;
    uint64_t reserved = 0;
    for (const sluice_seq_ref r : step.resident()) reserved += blocks_to_come(step, r);
    if (short_of_blocks_) return close_for_blocks(room, reserved, 0);
    uint32_t seated = step.v.n_resident + step.v.n_swapped + step.v.n_moving;
    sluice_seq_ref too_long[kMostOvertaken];
    uint32_t n_too_long = 0, n_counted = 0;
    for (const sluice_seq_ref r : step.waiting()) {
      if (table_.pending[r] == 0) continue;
      if (const Closed gate_is = gate(step, seated, batch); gate_is != Closed::kNothing) {
        if (closed_ == Closed::kNothing) closed_ = gate_is;
        return;
      }
      if (is_being_computed(next_block_hash(step, r))) continue;
      const uint64_t margin = seated == 0 ? 0 : step.v.watermark;  // alone, a sequence may have every block
      const uint64_t need = full_blocks(step, r) + margin;
      if (need + reserved > room.free_blocks) {
        if (closed_ == Closed::kNothing) close_for_blocks(room, reserved, need);
        const bool resumed = (table_.flags[r] & SLUICE_SEQF_RESUMED) != 0;
        if (resumed || last_[r].overtaken >= max_overtaken_ || n_too_long == kMostOvertaken) return;
        too_long[n_too_long++] = r;
        continue;
      }
      run(step, r, chunk(r, batch), 0, room, batch, out);
      reserved += blocks_to_come(step, r);
      --batch.prefills_left, ++seated;
      for (; n_counted < n_too_long; ++n_counted) ++last_[too_long[n_counted]].overtaken;
    }
  }
  bool is_being_computed(uint64_t hash) const {
    return hash != 0 && std::find(computing_.begin(), computing_.end(), hash) != computing_.end();
  }
  static Closed gate(const View &step, uint32_t seated, const Batch &batch) {
    if (seated >= step.v.max_seqs || batch.seats_left == 0) return Closed::kSeats;
    if (batch.tokens_left == 0) return Closed::kTokens;
    return batch.prefills_left == 0 ? Closed::kPrefills : Closed::kNothing;
  }
  void close_for_blocks(const Room &room, uint64_t reserved, uint64_t need) {
    closed_ = Closed::kBlocks, needed_blocks_ = need;
    offered_blocks_ = room.free_blocks - std::min<uint64_t>(reserved, room.free_blocks);
  }
  /// What it will still take from the free blocks after this plan.
  uint64_t blocks_to_come(const View &step, sluice_seq_ref r) const {
    const uint64_t due = full_blocks(step, r), has = uint64_t{table_.device_blocks[r]} + (ran(r) ? last_[r].blocks : 0);
    return due > has ? due - has : 0;
  }
  /// Blocks of all that it will hold: the prompt (or what is to be recomputed), with no_evict the longest answer too.
  uint64_t full_blocks(const View &step, sluice_seq_ref r) const {
    uint64_t tokens = uint64_t{table_.computed[r]} + table_.in_flight[r] + table_.pending[r];
    if (no_evict_) tokens = std::max(tokens, uint64_t{table_.prompt_len[r]} + table_.max_new[r]);
    const uint64_t blocks = (tokens + step.v.block_size - 1) / step.v.block_size;
    return no_evict_ ? blocks * std::max<uint32_t>(1, table_.width[r]) : blocks;
  }

  /// Should the host run short all the same, the latest arrival yields first.
  void name_victims(const View &step, Plan &out) const {
    for (uint32_t i = step.v.n_resident; i-- > 0;)
      if (const sluice_seq_ref r = step.v.resident[i]; !preempted(r) && can_yield(r)) out.victim(r);
  }

  int describe(sluice_seq_ref r, char *buf, size_t cap) const {
    if (table_.state[r] == SLUICE_SEQ_RESIDENT)
      return std::snprintf(buf, cap, "%s, %u tokens in cache, %u to feed",
                           table_.pending[r] == 0 ? "has a step under way"
                           : ran(r)               ? "runs"
                                                  : "paused: tokens, seats or blocks ran out",
                           table_.computed[r], table_.pending[r]);
    if (table_.state[r] != SLUICE_SEQ_WAITING)
      return std::snprintf(buf, cap, "%s", table_.state[r] == SLUICE_SEQ_SWAPPED
                                               ? "is swapped out: waits for blocks"
                                               : "is being moved or waits for something that is not a seat");
    switch (closed_) {
      case Closed::kSeats:
        return std::snprintf(buf, cap, "waits in line: every seat (max_seqs) is taken");
      case Closed::kTokens:
        return std::snprintf(buf, cap, "waits in line: the step's token budget is used up");
      case Closed::kPrefills:
        return std::snprintf(buf, cap, "waits in line: the step has its max_prefills prompts");
      case Closed::kPreempted:
        return std::snprintf(buf, cap, "waits: blocks ran out and the latest arrivals gave way");
      case Closed::kBlocks:
        if (needed_blocks_ == 0) return std::snprintf(buf, cap, "waits: those who run are short of blocks");
        return std::snprintf(buf, cap, "waits in line: the first needs %llu blocks, %llu are to be had",
                             static_cast<unsigned long long>(needed_blocks_),
                             static_cast<unsigned long long>(offered_blocks_));
      case Closed::kNothing:
        break;
    }
    return std::snprintf(buf, cap, "is next in line");
  }

  const sluice_sched_table &table_;
  const sluice_sched_host *host_;  // null: there is no swap space
  std::vector<Last> last_;         // by ref
  std::vector<uint64_t> computing_;  // next_block_hash of the prompts in this plan
  uint32_t host_blocks_promised_ = 0;
  uint32_t max_overtaken_ = kMaxOvertaken;
  uint32_t max_chunk_tokens_ = 0;
  bool no_evict_ = false;
  uint64_t plan_no_ = 0;
  // of the last plan, for explain()
  Closed closed_ = Closed::kNothing;
  bool short_of_blocks_ = false;
  uint64_t needed_blocks_ = 0, offered_blocks_ = 0;
};

inline constexpr sluice_config_field kFields[] = {
    i64_field("max_chunk", "most prompt tokens that one sequence feeds in a step; 0 = what the token budget leaves",
              "0", 0, 1 << 20, SLUICE_CFGF_HOT),
    bool_field("no_evict", "admit only what fits with its longest possible answer, so that nobody is preempted",
               "false", SLUICE_CFGF_HOT),
    i64_field("max_overtaken", "steps in which later requests may start before one that does not fit yet", "32", 0,
              1 << 20, SLUICE_CFGF_HOT)};

}  // namespace sluice::fcfs

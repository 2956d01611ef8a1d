#include "policy.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <type_traits>

namespace sluice::mlfq {
namespace {

constexpr uint64_t kWakeNs = 10'000'000;

Variant variant_of(const Config &config) {
  const std::string name = config.str("variant", "guarded");
  return name == "unguarded" ? Variant::kUnguarded : name == "naive" ? Variant::kNaive : Variant::kGuarded;
}

}  // namespace

Policy::Policy(const Config &config, const sluice_sched_setup &setup)
    : table_(*setup.table),
      host_(*setup.host),
      can_swap_(setup.can_swap != 0),
      fcfs_(config, setup),
      variant_(variant_of(config)),
      levels_(setup.table->capacity, static_cast<uint32_t>(config.i64("levels", 12))),
      lengths_(static_cast<uint32_t>(config.i64("length_window", 2000))),
      marks_(setup.table->capacity) {
  claims_.reserve(setup.max_seqs), spares_.reserve(setup.max_seqs), ahead_.reserve(setup.max_seqs);
  givers_.reserve(setup.table->capacity);
  reconfigure(config);
}

void Policy::reconfigure(const Config &config) {
  fcfs_.reconfigure(config);
  quantum_ns_ = config.f64("quantum_ms", 23.1) * 1e6;
  alpha_ns_ = static_cast<uint64_t>(config.f64("alpha_s", 30) * 1e9);
  promotions_per_step_ = static_cast<uint32_t>(config.i64("promotions_per_step", 2));
  swap_budget_ = config.f64("swap_budget", 0.5);
  host_watermark_ = config.f64("host_watermark", 0.1);
  min_length_cv_ = config.f64("min_length_cv", 0.85);
}

/// Where a sequence begins: the level whose quantum covers its prefill, or, when the policy of a live model has been
/// switched, what it has already had.
uint32_t Policy::first_level(sluice_seq_ref ref, uint32_t prompt_tokens) const {
  if (variant_ == Variant::kNaive && table_.service_ns[ref] == 0) return 0;
  const auto prefill_ns = static_cast<double>(host_.step_time_ns(host_.ctx, prompt_tokens, 0, 0));
  const double need_ns = std::max(prefill_ns, static_cast<double>(table_.service_ns[ref]));
  uint32_t level = 0;
  while (level + 1 < levels_.n_levels() && quantum_ns(level) < need_ns) ++level;
  return level;
}

void Policy::on_event(const Event &event) {
  const sluice_seq_ref r = event.ref;
  switch (event.kind) {
    case SLUICE_EV_ARRIVE: {
      const bool begun = table_.state[r] != SLUICE_SEQ_WAITING || table_.generated[r] > 0;
      if (levels_.has(r)) levels_.remove(r);
      levels_.add(r, first_level(r, event.tokens), begun);
      break;
    }
    case SLUICE_EV_COMMIT:
      if (levels_.has(r)) charge(r, event.device_ns);
      break;
    case SLUICE_EV_FINISH:
      lengths_.add(event.tokens);
      feedback_on_ = !guarded() || !lengths_.known() || lengths_.cv() >= min_length_cv_;
      [[fallthrough]];
    case SLUICE_EV_CANCEL:
      if (levels_.has(r)) levels_.remove(r);
      break;
    case SLUICE_EV_UNBLOCKED:
      levels_.unpark(r);
      break;
    default:
      break;  // the table's state column says the rest
  }
}

void Policy::charge(sluice_seq_ref r, uint64_t device_ns) {
  levels_.note_run(r);
  Node &n = levels_.at(r);
  n.used_ns += device_ns;
  if (static_cast<double>(n.used_ns) < quantum_ns(n.home)) return;
  const bool was_promoted = n.level != n.home;
  if (!was_promoted && n.home + 1U < levels_.n_levels()) ++n.home;
  levels_.move(r, n.home);
}

void Policy::plan(const View &step, Plan &out) {
  looked_at_ = 0;
  now_ns_ = step.v.now_ns;
  if (guarded() && (!feedback_on_ || !is_contended(step))) return fcfs_.plan(step, out);
  ++stamp_;
  promote(step);
  choose(step);
  decide(step);
  write(step, out);
  if (out.size() == 0) out.wake_at(step.v.now_ns + kWakeNs);
}

/// Whether seats or blocks are short: else everybody runs, and first come, first served is as good as any order.
bool Policy::is_contended(const View &step) const {
  const auto &v = step.v;
  if (v.n_swapped + v.n_moving > 0) return true;
  if (uint64_t{v.n_resident} + v.n_waiting_total > v.max_seqs) return true;
  uint64_t blocks = v.watermark + v.waiting_tokens / v.block_size + v.n_waiting_total;
  for (const sluice_seq_ref r : step.resident()) blocks += step.blocks_for(r, table_.pending[r]);
  return blocks > step.usable_blocks();
}

void Policy::promote(const View &step) {
  uint32_t left = guarded() ? promotions_per_step_ : UINT32_MAX;
  for (; left > 0; --left) {
    const sluice_seq_ref r = levels_.longest_idle();
    if (r == kNobody) return;
    ++looked_at_;
    if (step.v.now_ns < std::max(table_.last_run_ns[r], table_.arrival_ns[r]) + alpha_ns_) return;
    const uint8_t home = levels_.at(r).home;
    levels_.move(r, 0);
    levels_.at(r).home = guarded() ? home : 0;  // guard 2
  }
}

/// Walks the queues: the first max_seqs who could run claim the seats, wherever their KV is. Behind them are residents
/// that may fill seats which stay empty, and the swapped ones that come next.
void Policy::choose(const View &step) {
  claims_.clear(), spares_.clear(), ahead_.clear();
  host_is_low_ = guarded() && can_swap_ &&
                 static_cast<double>(step.v.host_free) < host_watermark_ * static_cast<double>(step.v.host_total);
  uint32_t residents = 0;  // that could run, so far
  uint32_t seen = 0;       // of all residents
  const uint32_t seats = step.v.max_seqs;
  const auto has_enough = [&] {
    return claims_.size() >= seats && (residents >= seats || seen == step.v.n_resident);
  };
  for (uint32_t level = 0; level < levels_.n_levels() && !has_enough(); ++level) {
    sluice_seq_ref fresh = levels_.first_fresh(level), begun = levels_.first_begun(level);
    while (!has_enough()) {
      if (host_is_low_ || claims_.size() >= seats) fresh = kNobody;  // guard 5; and nobody new has a claim behind those
      if (fresh == kNobody && begun == kNobody) break;
      const bool take_fresh =
          begun == kNobody || (fresh != kNobody && levels_.at(fresh).place < levels_.at(begun).place);
      const sluice_seq_ref r = take_fresh ? fresh : begun;
      (take_fresh ? fresh : begun) = levels_.next(r);
      ++looked_at_;
      const bool is_seated = claims_.size() < seats;
      switch (table_.state[r]) {
        case SLUICE_SEQ_RESIDENT:
          ++seen;
          if (table_.pending[r] == 0) break;
          ++residents;
          if (is_seated) claim(r);
          else spares_.push_back(r);
          break;
        case SLUICE_SEQ_WAITING:
          if (table_.pending[r] > 0 && is_seated) claim(r);
          break;
        case SLUICE_SEQ_SWAPPED:
          if (is_seated) claim(r);
          else if (ahead_.size() < seats) ahead_.push_back(r);
          break;
        case SLUICE_SEQ_MOVING_IN:
          if (is_seated) claim(r);
          break;
        case SLUICE_SEQ_BLOCKED:
          levels_.park(r);
          break;
        default:
          break;
      }
    }
  }
}

bool Policy::is_before(sluice_seq_ref a, sluice_seq_ref b) const {
  const Node &x = levels_.at(a), &y = levels_.at(b);
  return x.level != y.level ? x.level < y.level : x.place < y.place;
}

/// Residents by who yields first: the lowest level, there the last in line, since those will not run for longest.
void Policy::rank_givers(const View &step) {
  givers_.assign(step.resident().begin(), step.resident().end());
  looked_at_ += givers_.size();
  std::sort(givers_.begin(), givers_.end(), [&](sluice_seq_ref a, sluice_seq_ref b) { return is_before(b, a); });
  givers_ranked_ = true;
  next_giver_ = 0;
}

bool Policy::make_room(const View &step, sluice_seq_ref for_ref, uint64_t blocks, Yield who, Room &room) {
  while (room.device_blocks < blocks) {
    if (!givers_ranked_) rank_givers(step);
    if (next_giver_ == givers_.size()) return false;
    const sluice_seq_ref r = givers_[next_giver_];
    if (!is_before(for_ref, r)) return false;
    // Who has a claim of its own yields to a higher level only, else two of one level would chase each other.
    const bool yields = who == Yield::kWhoeverIsBehind || levels_.at(r).level > levels_.at(for_ref).level || !has_claim(r);
    const bool can = (table_.flags[r] & SLUICE_SEQF_NO_PREEMPT) == 0 && table_.exclusive_blocks[r] > 0;
    const bool fits_host = can_swap_ && room.host_blocks >= table_.device_blocks[r];
    if (!yields || (can && !fits_host && guarded())) return false;  // guard 5
    ++next_giver_;
    if (!can) continue;
    if (fate(r) == Fate::kRuns) --room.runners;
    set_fate(r, Fate::kLeaves);
    room.device_blocks += table_.exclusive_blocks[r];
    if (fits_host) room.host_blocks -= table_.device_blocks[r];
  }
  return true;
}

bool Policy::seat_resident(const View &step, sluice_seq_ref r, Room &room) {
  // A prompt that has begun keeps room for all of it, so that it is never stuck half done.
  const uint64_t need = step.blocks_for(r, table_.pending[r]);
  if (!make_room(step, r, need, Yield::kWhoeverIsBehind, room)) return false;
  room.device_blocks -= need;
  return true;
}

bool Policy::seat_waiting(const View &step, sluice_seq_ref r, Room &room) {
  const bool is_alone = step.v.n_resident + step.v.n_swapped + step.v.n_moving == 0 && room.runners == 0;
  const uint64_t need = step.blocks_for(r, table_.pending[r]);
  if (!make_room(step, r, need + (is_alone ? 0 : step.v.watermark), Yield::kUnlessClaimed, room)) return false;
  room.device_blocks -= std::min(need, room.device_blocks);
  return true;
}

bool Policy::bring_in(const View &step, sluice_seq_ref r, Room &room, bool evict) {
  const uint64_t blocks = table_.host_blocks[r];
  const double bytes = static_cast<double>(blocks) * static_cast<double>(step.v.bytes_per_block);
  if (guarded() && bytes > room.swap_in_bytes && !room.may_exceed_bytes) return false;  // guard 4
  const uint64_t need = blocks + step.v.watermark;
  if (evict ? !make_room(step, r, need, Yield::kUnlessClaimed, room) : room.device_blocks < need) return false;
  room.device_blocks -= std::min(blocks, room.device_blocks);
  room.swap_in_bytes -= bytes;
  room.may_exceed_bytes = false;
  return true;
}

/// Gives blocks and seats, in order of claim; who does not get them leaves its seat to a spare.
void Policy::decide(const View &step) {
  givers_ranked_ = false;
  Room room{step.usable_blocks(), step.v.host_free,
            swap_budget_ * step.v.swap_in_bytes_per_s * static_cast<double>(step_ns_) * 1e-9 -
                static_cast<double>(step.v.swap_in_bytes),
            step.v.swap_in_bytes == 0};
  for (const sluice_seq_ref r : claims_) {
    if (fate(r) == Fate::kLeaves) continue;
    const uint8_t state = table_.state[r];
    if (state == SLUICE_SEQ_SWAPPED) {
      if (bring_in(step, r, room, true)) set_fate(r, Fate::kComesIn);
    } else if (state == SLUICE_SEQ_RESIDENT ? seat_resident(step, r, room)
                                            : state == SLUICE_SEQ_WAITING && seat_waiting(step, r, room)) {
      set_fate(r, Fate::kRuns);
      ++room.runners;
    }
  }
  for (const sluice_seq_ref r : spares_) {
    if (room.runners == step.v.max_seqs) break;
    const uint64_t need = step.blocks_for(r, table_.pending[r]);
    if (fate(r) == Fate::kLeaves || need > room.device_blocks) continue;
    room.device_blocks -= need;
    set_fate(r, Fate::kRuns);
    ++room.runners;
  }
  for (const sluice_seq_ref r : ahead_) {
    if (!bring_in(step, r, room, false)) break;
    set_fate(r, Fate::kComesIn);
  }
}

void Policy::write(const View &step, Plan &out) {
  if (givers_ranked_)
    for (size_t i = 0; i < next_giver_; ++i) {
      const sluice_seq_ref r = givers_[i];
      if (fate(r) != Fate::kLeaves) continue;
      if (can_swap_ && (guarded() || step.v.host_free >= table_.device_blocks[r])) out.swap_out(r);
      else out.preempt(r);
    }
  Batch batch{step.v.token_budget, step.v.max_prefills};
  const auto each_runner = [&](auto &&f) {
    for (const auto *list : {&claims_, &spares_})
      for (const sluice_seq_ref r : *list)
        if (fate(r) == Fate::kRuns) f(r);
  };
  const auto decodes = [&](sluice_seq_ref r) { return table_.state[r] == SLUICE_SEQ_RESIDENT && step.decodes(r); };
  if (guarded()) {  // guard 1
    each_runner([&](sluice_seq_ref r) { batch.owed_tokens += decodes(r) ? table_.pending[r] : 0; });
    each_runner([&](sluice_seq_ref r) { if (decodes(r)) run_decode(step, r, batch, out); });
    each_runner([&](sluice_seq_ref r) { if (!decodes(r)) run_prompt(step, r, batch, out); });
  } else {
    each_runner([&](sluice_seq_ref r) { decodes(r) ? run_decode(step, r, batch, out) : run_prompt(step, r, batch, out); });
  }
  if (batch.prefill_tokens + batch.decode_tokens == 0) run_by_force(step, batch, out);
  step_ns_ = host_.step_time_ns(host_.ctx, batch.prefill_tokens, batch.decode_tokens, batch.context_tokens);
  for (const auto *list : {&claims_, &ahead_})
    for (const sluice_seq_ref r : *list)
      if (fate(r) == Fate::kComesIn) out.swap_in(r);
}

/// Blocks are out and nobody may leave: the first resident in line runs all the same, and the host takes the blocks of
/// the last ones.
void Policy::run_by_force(const View &step, Batch &batch, Plan &out) {
  for (const auto *list : {&claims_, &spares_})
    for (const sluice_seq_ref r : *list) {
      if (table_.state[r] != SLUICE_SEQ_RESIDENT || fate(r) == Fate::kLeaves) continue;
      step.decodes(r) ? run_decode(step, r, batch, out) : run_prompt(step, r, batch, out);
      if (!givers_ranked_) rank_givers(step);
      for (const sluice_seq_ref giver : givers_)
        if (giver != r && fate(giver) != Fate::kLeaves) out.victim(giver);
      return;
    }
}

void Policy::run_decode(const View &step, sluice_seq_ref r, Batch &batch, Plan &out) {
  const uint32_t tokens = table_.pending[r];
  batch.owed_tokens -= std::min<uint64_t>(tokens, batch.owed_tokens);
  if (tokens > batch.tokens_left) return;
  // Nobody else's token or block is given up for a guess.
  const uint64_t spoken_for = tokens + batch.owed_tokens;
  uint32_t drafts = spoken_for >= batch.tokens_left
                        ? 0
                        : static_cast<uint32_t>(std::min<uint64_t>(table_.draft_wish[r], batch.tokens_left - spoken_for));
  if (step.blocks_for(r, tokens + drafts) > step.blocks_for(r, tokens)) drafts = 0;
  out.run(r, tokens, drafts);
  batch.tokens_left -= tokens + drafts;
  batch.decode_tokens += tokens + drafts;
  batch.context_tokens += table_.computed[r];
}

void Policy::run_prompt(const View &, sluice_seq_ref r, Batch &batch, Plan &out) {
  const uint32_t tokens = std::min(table_.pending[r], batch.tokens_left);
  if (tokens == 0 || batch.prefills_left == 0) return;
  out.run(r, tokens);
  batch.tokens_left -= tokens;
  batch.prefill_tokens += tokens;
  batch.context_tokens += table_.computed[r];
  --batch.prefills_left;
}

uint32_t Policy::explain(sluice_seq_ref r, char *buf, uint32_t cap) const {
  if (cap == 0) return 0;
  if (!levels_.has(r)) return 0;
  const Node &n = levels_.at(r);
  static const char *const kStates[] = {"",          "waits",         "on the device", "on the host",
                                        "moves out", "moves in",      "blocked"};
  const uint8_t state = table_.state[r];
  const uint64_t since = std::max(table_.last_run_ns[r], table_.arrival_ns[r]);
  const int written = std::snprintf(
      buf, cap, "level %u of %u%s, %.1f of %.1f ms used, %s, idle for %.1f s%s", n.level + 1U, levels_.n_levels(),
      n.level != n.home ? " (promoted)" : "", static_cast<double>(n.used_ns) * 1e-6, quantum_ns(n.home) * 1e-6,
      state < 7 ? kStates[state] : "", now_ns_ > since ? static_cast<double>(now_ns_ - since) * 1e-9 : 0.0,
      !feedback_on_ ? "; first come, first served: output lengths are alike" : host_is_low_ ? "; host space is low" : "");
  return std::min(static_cast<uint32_t>(std::max(written, 0)), cap - 1);
}

namespace {

/// Calls copy(bytes, n) for every part of the state: vectors by their elements, whose number is fixed.
template <class LevelsT, class LengthsT, class... Scalars, class Copy>
void each_part(LevelsT &levels, LengthsT &lengths, Copy &&copy, Scalars &...scalars) {
  const auto part = [&](auto &value) {
    using T = std::remove_reference_t<decltype(value)>;
    if constexpr (std::is_trivially_copyable_v<T>) copy(&value, sizeof value);
    else copy(value.data(), value.size() * sizeof value[0]);
  };
  levels.visit(part);
  lengths.visit(part);
  (part(scalars), ...);
}

}  // namespace

uint64_t Policy::state_bytes() const {
  uint64_t n = 0;
  auto &self = const_cast<Policy &>(*this);  // visit() has one form, and this use only reads
  each_part(self.levels_, self.lengths_, [&](const void *, size_t bytes) { n += bytes; }, self.step_ns_,
            self.feedback_on_);
  return n;
}

void Policy::save(unsigned char *to) const {
  auto &self = const_cast<Policy &>(*this);
  each_part(self.levels_, self.lengths_, [&](const void *from, size_t bytes) { std::memcpy(to, from, bytes), to += bytes; },
            self.step_ns_, self.feedback_on_);
}

void Policy::load(const unsigned char *from) {
  each_part(levels_, lengths_, [&](void *to, size_t bytes) { std::memcpy(to, from, bytes), from += bytes; }, step_ns_,
            feedback_on_);
}

}  // namespace sluice::mlfq

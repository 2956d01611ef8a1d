// Shortest prompt first: of those who wait, the one with the fewest prompt tokens is admitted next, so a short question
// does not stand behind a long document. Who has waited for `patience_ms` goes before all that have not, in order of
// arrival; without that a stream of short prompts would keep a long one out for good.
#include <sluice/sdk/scheduler.hpp>

#include <algorithm>
#include <vector>

namespace {
using namespace sluice::sdk;

class ShortestFirst final : public Scheduler {
 public:
  static constexpr uint32_t kFlags = SLUICE_SCHEDF_PREEMPTIVE;

  ShortestFirst(const Config &config, const sluice_sched_setup &setup) : table_(*setup.table) {
    reconfigure(config);
    order_.reserve(setup.waiting_window);
    dealt_with_.resize(setup.table->capacity);
  }

  void reconfigure(const Config &config) override {
    patience_ns_ = static_cast<uint64_t>(config.i64("patience_ms", 2000)) * 1'000'000;
  }

  /// Decodes first, since somebody reads along; then prompts that have begun; then new ones.
  void plan(const View &step, Plan &out) override {
    ++plan_no_;
    Room room{step.v.token_budget, step.v.max_seqs, step.v.max_prefills, step.usable_blocks(), step.v.n_resident};
    for (const sluice_seq_ref r : step.resident())
      if (table_.pending[r] > 0 && step.decodes(r)) run(step, r, table_.pending[r], room, out);
    for (const sluice_seq_ref r : step.resident())
      if (table_.pending[r] > 0 && !step.decodes(r)) run(step, r, table_.pending[r], room, out);
    if (!room.preempted) admit(step, room, out);
    if (out.size() == 0) out.wake_at(step.v.now_ns + kWakeNs);
  }

 private:
  static constexpr uint64_t kWakeNs = 10'000'000;
  struct Room {
    uint32_t tokens, seats, prefills, blocks;
    uint32_t residents_left;  // of these at the end of the list some may still have to yield
    bool preempted = false;
  };
  bool is_dealt_with(sluice_seq_ref r) const { return dealt_with_[r] == plan_no_; }

  /// One sequence into the plan, with as many tokens as there is room for.
  bool run(const View &step, sluice_seq_ref r, uint32_t wanted, Room &room, Plan &out) {
    const bool decodes = step.decodes(r);
    if (is_dealt_with(r) || room.seats == 0 || (!decodes && room.prefills == 0)) return false;
    const uint32_t tokens = std::min(wanted, room.tokens);
    if (tokens == 0 || (decodes && tokens < wanted)) return false;
    const uint32_t blocks = step.blocks_for(r, tokens);
    if (blocks > room.blocks && !make_room(step, r, blocks, room, out)) return false;
    out.run(r, tokens);
    dealt_with_[r] = plan_no_;  // has its act; nobody may preempt it any more
    room.tokens -= tokens, room.blocks -= blocks, --room.seats;
    if (!decodes) --room.prefills;
    return true;
  }

  /// The latest arrivals yield until `blocks` are free. They get their place back through the waiting list.
  bool make_room(const View &step, sluice_seq_ref for_ref, uint32_t blocks, Room &room, Plan &out) {
    while (room.blocks < blocks && room.residents_left > 0) {
      const sluice_seq_ref victim = step.v.resident[room.residents_left - 1];
      if (victim == for_ref) return false;  // only those who came later yield to it
      --room.residents_left;
      if (is_dealt_with(victim) || (table_.flags[victim] & SLUICE_SEQF_NO_PREEMPT) != 0) continue;
      out.preempt(victim);
      dealt_with_[victim] = plan_no_;
      room.blocks += table_.exclusive_blocks[victim];
      room.preempted = true;
    }
    return room.blocks >= blocks;
  }

  /// A prompt starts only when all of it fits, beside what the residents' prompts still need: none stops half way.
  void admit(const View &step, Room &room, Plan &out) {
    order_.assign(step.waiting().begin(), step.waiting().end());
    std::stable_sort(order_.begin(), order_.end(), [&](sluice_seq_ref a, sluice_seq_ref b) {
      const bool a_late = is_late(step, a), b_late = is_late(step, b);
      if (a_late != b_late) return a_late;
      return !a_late && table_.prompt_len[a] < table_.prompt_len[b];
    });
    uint64_t spoken_for = 0;
    for (const sluice_seq_ref r : step.resident())
      if (!step.decodes(r)) spoken_for += step.blocks_for(r, table_.pending[r]);
    uint32_t seated = step.v.n_resident + step.v.n_swapped + step.v.n_moving;
    for (const sluice_seq_ref r : order_) {
      if (table_.pending[r] == 0) continue;
      const uint64_t need = step.blocks_for(r, table_.pending[r]);
      const uint64_t margin = seated == 0 ? 0 : step.v.watermark;
      if (seated >= step.v.max_seqs || need + spoken_for + margin > room.blocks) return;
      const uint32_t before = room.blocks;
      if (!run(step, r, table_.pending[r], room, out)) return;
      spoken_for += need - (before - room.blocks);
      ++seated;
    }
  }
  bool is_late(const View &step, sluice_seq_ref r) const {
    return (table_.flags[r] & SLUICE_SEQF_RESUMED) != 0 || step.v.now_ns - table_.arrival_ns[r] >= patience_ns_;
  }

  const sluice_sched_table &table_;
  uint64_t patience_ns_ = 0, plan_no_ = 0;
  std::vector<sluice_seq_ref> order_;  // scratch of admit()
  std::vector<uint64_t> dealt_with_;     // by ref: the plan that has dealt with it
};

constexpr sluice_config_field kFields[] = {
    i64_field("patience_ms", "after this wait a prompt goes before all shorter ones", "2000", 0, 3600000,
              SLUICE_CFGF_HOT)};
}  // namespace

SLUICE_SCHEDULER_PLUGIN(ShortestFirst, "shortest", "1.0.0", kFields);

// Skip-join multi-level feedback queue with proactive swapping (FastServe: Wu et al., NSDI'26), and the guards without
// which it collapses. New work joins the first level whose quantum covers its prefill; work that has used up its
// quantum sinks one level. Short answers finish before long ones without anybody knowing which they are.
#pragma once
#include <sluice/sdk/scheduler.hpp>

#include <vector>

#include "../fcfs/fcfs.hpp"
#include "lengths.hpp"
#include "levels.hpp"

namespace sluice::mlfq {
using namespace sluice::sdk;

/// The guards:
///   1 seats first, tokens second: everybody who decodes has its token before a prompt gets a chunk
///   2 a promoted sequence runs for the quantum of the level that it came from, and returns there
///   3 `alpha_s` is the longest pause that a reader is asked to bear; few are promoted per step
///   4 what is swapped in per step takes at most a part of the time that the step takes
///   5 when host space runs low nobody new begins; nobody is made to recompute because it is full
///   6 first come, first served, to the bit, as long as neither seats nor blocks are short, and while output lengths
///     are so much alike that feedback can only do harm
enum class Variant : uint8_t {
  kGuarded,
  kNaive,      ///< guarded, but all begin in the first level
  kUnguarded,  ///< skip-join as published, to study what the guards are for
};

class Policy final : public Scheduler {
 public:
  static constexpr uint32_t kFlags = SLUICE_SCHEDF_PREEMPTIVE | SLUICE_SCHEDF_USES_SWAP;

  Policy(const Config &config, const sluice_sched_setup &setup);
  void reconfigure(const Config &config) override;
  void on_event(const Event &event) override;
  void plan(const View &step, Plan &out) override;
  uint32_t explain(sluice_seq_ref ref, char *buf, uint32_t cap) const override;
  uint64_t state_bytes() const override;
  void save(unsigned char *to) const override;
  void load(const unsigned char *from) override;

  /// Sequences that the last plan looked at, by whatever way: a bound that tests check.
  uint64_t looked_at() const { return looked_at_; }
  bool is_feedback_on() const { return feedback_on_; }

 private:
  enum class Fate : uint8_t { kNothing, kRuns, kLeaves, kComesIn };
  struct Mark {  // valid for the plan `stamp`
    uint32_t stamp = 0;
    Fate fate = Fate::kNothing;
    bool has_claim = false;
  };
  /// Blocks and bytes while a plan is made.
  struct Room {
    uint64_t device_blocks, host_blocks;
    double swap_in_bytes;       ///< left of the step's budget
    bool may_exceed_bytes;      ///< nothing moves in yet, so one may
    uint32_t runners = 0;
  };
  struct Batch {
    uint32_t tokens_left, prefills_left;
    uint64_t owed_tokens = 0;  // to decodes that are still to come
    uint32_t prefill_tokens = 0, decode_tokens = 0;
    uint64_t context_tokens = 0;
  };

  bool guarded() const { return variant_ != Variant::kUnguarded; }
  double quantum_ns(uint32_t level) const { return quantum_ns_ * static_cast<double>(uint64_t{1} << level); }
  uint32_t first_level(sluice_seq_ref ref, uint32_t prompt_tokens) const;
  void charge(sluice_seq_ref ref, uint64_t device_ns);

  bool is_contended(const View &step) const;
  void promote(const View &step);
  void choose(const View &step);
  void decide(const View &step);
  void write(const View &step, Plan &out);

  bool seat_resident(const View &step, sluice_seq_ref ref, Room &room);
  bool seat_waiting(const View &step, sluice_seq_ref ref, Room &room);
  bool bring_in(const View &step, sluice_seq_ref ref, Room &room, bool evict);
  enum class Yield : uint8_t { kUnlessClaimed, kWhoeverIsBehind };
  bool make_room(const View &step, sluice_seq_ref for_ref, uint64_t blocks, Yield who, Room &room);
  void rank_givers(const View &step);
  bool is_before(sluice_seq_ref a, sluice_seq_ref b) const;
  void run_by_force(const View &step, Batch &batch, Plan &out);
  void run_decode(const View &step, sluice_seq_ref ref, Batch &batch, Plan &out);
  void run_prompt(const View &step, sluice_seq_ref ref, Batch &batch, Plan &out);

  Fate fate(sluice_seq_ref ref) const { return marks_[ref].stamp == stamp_ ? marks_[ref].fate : Fate::kNothing; }
  void set_fate(sluice_seq_ref ref, Fate fate) { marks_[ref] = {stamp_, fate, has_claim(ref)}; }
  bool has_claim(sluice_seq_ref ref) const { return marks_[ref].stamp == stamp_ && marks_[ref].has_claim; }
  void claim(sluice_seq_ref ref) {
    claims_.push_back(ref);
    marks_[ref] = {stamp_, Fate::kNothing, true};
  }

  const sluice_sched_table &table_;
  const sluice_sched_host &host_;
  const bool can_swap_;
  fcfs::Fcfs fcfs_;

  Variant variant_ = Variant::kGuarded;
  double quantum_ns_ = 0, swap_budget_ = 0, host_watermark_ = 0, min_length_cv_ = 0;
  uint64_t alpha_ns_ = 0;
  uint32_t promotions_per_step_ = 0;

  Levels levels_;
  Lengths lengths_;
  uint64_t step_ns_ = 0;  // predicted, of the last plan
  uint32_t stamp_ = 0;
  bool feedback_on_ = true;

  // Scratch of a plan.
  std::vector<Mark> marks_;              // by ref
  std::vector<sluice_seq_ref> claims_;   // who should hold the seats, in order
  std::vector<sluice_seq_ref> spares_;   // residents behind them, in order
  std::vector<sluice_seq_ref> ahead_;    // swapped, behind them, in order
  std::vector<sluice_seq_ref> givers_;   // residents, who yields first first; ranked when somebody has to
  bool givers_ranked_ = false, host_is_low_ = false;
  size_t next_giver_ = 0;
  uint64_t looked_at_ = 0, now_ns_ = 0;
};

}  // namespace sluice::mlfq

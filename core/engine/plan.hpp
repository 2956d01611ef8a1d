#pragma once
#include <sluice/abi/sched.h>

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::engine {

/// Host memory for a plan, and the lists of the view it answers.
struct PlanBuffers {
  PlanBuffers(uint32_t capacity, uint32_t max_seqs);

  /// Empties the plan; the lists of the view are the caller's to fill.
  void reset();
  /// Sets the plan's room and pointers anew: a plugin that overwrites them must not steer us.
  void point_at_own();

  sluice_sched_view view{};
  sluice_sched_plan plan{};
  std::vector<sluice_seq_ref> resident, waiting, swapped, moving;

 private:
  std::vector<uint8_t> op_;
  std::vector<sluice_seq_ref> ref_, victims_;
  std::vector<uint32_t> tokens_, drafts_;

 public:
  std::vector<uint8_t> seen;  ///< [capacity] scratch of check_plan, all zero between calls
};

/// Checks a plan against the view and the table before anything of it is carried out: known acts, live refs at most
/// once each and in a fitting state, tokens within pending, totals within the step's limits, and progress.
/// Returns what is wrong, empty when nothing is. [engine]
std::string check_plan(PlanBuffers &buffers, const sluice_sched_table &table);

/// First come first served without a plugin: decodes, then prefill chunks, in order of arrival; who was swapped out comes
/// back before anybody new. Stands in for a step whose plan failed. [engine]
void plan_fallback(PlanBuffers &buffers, const sluice_sched_table &table);

}  // namespace sluice::engine

#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/request/event_channel.hpp"

namespace sluice::engine {

/// Decides how much to draft, from what drafts brought and what their steps cost.
///
/// A step of D sequences with k drafts each gives D * (1 + E(k)) tokens and takes t(D * (1 + k)) plus the drafting. E is
/// the sum over the k best nodes of how often a node of that rank was right; t is measured, by the number of tokens of
/// a step, apart for steps that also feed prompts. The k with the most tokens per second is taken. Where that is 0,
/// drafting is off for batches of that size, and is tried again now and then; it takes several steps in a row, and a
/// margin, to switch.
/// thread  [engine]
class DraftControl {
 public:
  /// pinned  always draft all that the decoder wants
  DraftControl(uint32_t max_nodes, bool pinned);

  /// Drafts for each sequence of a step.
  ///   wishes   drafts wanted, of those that have a decode step to come
  ///   prefill  prompt tokens that the step is likely to feed beside them
  /// The answer caps every wish; 0 = none.
  uint32_t decide(std::span<const uint32_t> wishes, uint32_t prefill = 0);

  /// Whether what a sequence's drafts bring is worth what they add to the steps of the last decision.
  ///   accepted, nodes  right drafts and drafts of one round, on average
  bool pays(double accepted, double nodes) const;

  /// A step is over.
  ///   decode    tokens of sequences that decode, without drafts
  ///   drafts    nodes of all its sequences
  ///   draft_ns  what drafting took beside it
  void observe_step(uint32_t decode, uint32_t drafts, uint64_t step_ns, uint64_t draft_ns, uint32_t prefill = 0);
  /// What became of the drafts of one sequence: whether the node of each rank was right.
  void observe_ranks(std::span<const uint8_t> accepted);

  /// Time of a step that feeds n tokens to sequences that decode; 0 = nothing is known.
  double step_ns(uint32_t tokens) const { return price(false, tokens); }

  bool off() const { return reason_ == request::DraftsOff::kAcceptance || reason_ == request::DraftsOff::kCost; }
  request::DraftsOff reason() const { return reason_; }  ///< of the last decision that had wishes
  bool switched() const { return switched_; }  ///< the last decision switched batches of its size on or off
  uint64_t switched_off_for_acceptance() const { return off_for_acceptance_; }
  uint64_t switched_off_for_cost() const { return off_for_cost_; }
  /// In words, for log and health: "on for batches of 2..3: ...", "off for ...", "not measured yet: ...".
  std::string why() const;

 private:
  static constexpr uint32_t kSizes = 12;    ///< batch sizes by powers of two
  static constexpr uint32_t kBuckets = 96;  ///< of tokens in a step
  struct Size {
    request::DraftsOff off = request::DraftsOff::kNone;
    int32_t doubts = 0;   ///< decisions in a row that spoke for the other state
    uint32_t steps = 0;   ///< since the last trial of the other state
    uint32_t plain = 0;   ///< decisions for no drafts, before anything was measured
  };
  struct Average {
    double value = 0;
    uint32_t seen = 0;
    void add(double x, double share);
    void add_time(double ns, double share);
  };
  struct Choice {
    uint32_t drafts = 0;
    double gain = 1;  ///< tokens per second, by plain decoding's
    double tokens = 1, cost = 1;
  };
  static uint32_t bucket_of(uint32_t tokens);
  static uint32_t size_of(size_t sequences);
  double price(bool mixed, uint32_t tokens) const;
  double expected(uint32_t drafts) const;
  bool measured(const Size &size, uint32_t sequences, uint32_t prefill) const;
  Choice best_of(std::span<const uint32_t> wishes, uint32_t prefill, uint32_t at_least) const;

  const uint32_t max_nodes_;
  const bool pinned_;
  request::DraftsOff reason_ = request::DraftsOff::kNone;
  bool switched_ = false;
  uint32_t sequences_ = 0, prefill_ = 0;  ///< of the last decision
  std::array<std::array<Size, kSizes>, 2> sizes_{};         ///< [0] of steps that only decode, [1] that feed prompts too
  std::array<std::array<Average, kBuckets>, 2> cost_ns_{};  ///< likewise
  std::vector<Average> right_;     ///< [max_nodes] of rank
  Average draft_ns_per_node_;
  Choice last_;
  uint64_t off_for_acceptance_ = 0, off_for_cost_ = 0;
};

}  // namespace sluice::engine

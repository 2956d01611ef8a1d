#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sluice::engine {

/// Decides how much to draft, from what drafts brought and what their steps cost.
///
/// A step of D sequences with k drafts each gives D * (1 + E(k)) tokens and takes t(D * (1 + k)) plus the drafting. E is
/// the sum over the k best nodes of how often a node of that rank was right; t is measured, by the number of tokens of
/// steps that only decode. The k with the most tokens per second is taken. Where that is 0, drafting is off for batches
/// of that size, and is tried again now and then; it takes several steps in a row, and a margin, to switch.
/// thread  [engine]
class DraftControl {
 public:
  /// pinned  always draft all that the decoder wants
  DraftControl(uint32_t max_nodes, bool pinned);

  /// Drafts for each sequence of a step.
  ///   wishes  drafts wanted, of those that have a decode step to come
  /// The answer caps every wish; 0 = none.
  uint32_t decide(std::span<const uint32_t> wishes);

  /// A step that only decoded is over.
  ///   drafts    nodes of all its sequences
  ///   draft_ns  what drafting took beside it
  void observe_step(uint32_t sequences, uint32_t drafts, uint64_t step_ns, uint64_t draft_ns);
  /// What became of the drafts of one sequence: whether the node of each rank was right.
  void observe_ranks(std::span<const uint8_t> accepted);

  /// Time of a step that feeds n tokens to sequences that decode; 0 = nothing is known.
  double step_ns(uint32_t tokens) const;

  bool off() const { return off_; }  ///< at the last decision that had wishes
  uint64_t switched_off_for_acceptance() const { return off_for_acceptance_; }
  uint64_t switched_off_for_cost() const { return off_for_cost_; }
  /// In words, for log and health: "4 drafts: ..." or "off: ...".
  std::string why() const;

 private:
  static constexpr uint32_t kSizes = 12;    ///< batch sizes by powers of two
  static constexpr uint32_t kBuckets = 96;  ///< of tokens in a step
  struct Size {
    bool off = false;
    int32_t doubts = 0;   ///< decisions in a row that spoke for the other state
    uint32_t steps = 0;   ///< since the last trial of the other state
  };
  struct Average {
    double value = 0;
    uint32_t seen = 0;
    void add(double x, double share);
  };
  struct Choice {
    uint32_t drafts = 0;
    double gain = 1;  ///< tokens per second, by plain decoding's
    double tokens = 1, cost = 1;
  };
  static uint32_t bucket_of(uint32_t tokens);
  static uint32_t size_of(size_t sequences);
  double expected(uint32_t drafts) const;
  Choice best_of(std::span<const uint32_t> wishes, uint32_t at_least) const;

  const uint32_t max_nodes_;
  const bool pinned_;
  bool off_ = false;
  std::array<Size, kSizes> sizes_{};
  std::array<Average, kBuckets> cost_ns_{};
  std::vector<Average> right_;     ///< [max_nodes] of rank
  Average draft_ns_per_node_;
  Choice last_;
  uint64_t off_for_acceptance_ = 0, off_for_cost_ = 0;
};

}  // namespace sluice::engine

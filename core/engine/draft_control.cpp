#include "core/engine/draft_control.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

namespace sluice::engine {
namespace {

constexpr uint32_t kBucketsPerOctave = 6;
constexpr double kOptimism = 0.7;     // a rank that was never tried is right this often, by the rank before it
constexpr double kOnMargin = 1.05;    // gain that drafting must promise before it is switched on again
constexpr int32_t kDoubtsToSwitch = 8;
constexpr uint32_t kTrialEvery = 64;  // steps between looks at the other state
constexpr uint32_t kFirstTrials = 8;  // drafts before anything is judged
constexpr uint32_t kPlainFirst = 4;   // steps without drafts, to compare with
constexpr double kAsGood = 0.998;     // of the best gain: then more drafts are taken, which keeps their ranks measured
constexpr double kPoorAcceptance = 0.2;
constexpr double kOutlier = 3;        // a time beyond this many times the average counts as this many times it
constexpr uint32_t kFirstTimes = 3;   // of which the shortest counts: an average may begin with a warm-up
constexpr double kHopelessShare = 0.5;  // of its cost that a sequence's drafts bring; below, they are left out

}  // namespace

void DraftControl::Average::add(double x, double share) {
  ++seen;
  value += (x - value) * std::max(share, 1.0 / seen);
}

void DraftControl::Average::add_time(double ns, double share) {
  if (seen < kFirstTimes) {
    value = seen++ == 0 ? ns : std::min(value, ns);
    return;
  }
  add(std::min(ns, kOutlier * value), share);
}

DraftControl::DraftControl(uint32_t max_nodes, bool pinned) : max_nodes_(max_nodes), pinned_(pinned), right_(max_nodes) {}

uint32_t DraftControl::bucket_of(uint32_t tokens) {
  if (tokens <= 8) return tokens;
  return std::min<uint32_t>(kBuckets - 1, 8 + static_cast<uint32_t>(std::lround(kBucketsPerOctave *
                                                                                std::log2(tokens / 8.0))));
}

uint32_t DraftControl::size_of(size_t sequences) {
  return std::min<uint32_t>(kSizes - 1, static_cast<uint32_t>(std::bit_width(sequences)));
}

void DraftControl::observe_step(uint32_t decode, uint32_t drafts, uint64_t step_ns, uint64_t draft_ns, uint32_t prefill) {
  cost_ns_[prefill > 0][bucket_of(prefill + decode + drafts)].add_time(static_cast<double>(step_ns), 1.0 / 8);
  if (drafts > 0) draft_ns_per_node_.add_time(static_cast<double>(draft_ns) / drafts, 1.0 / 16);
}

void DraftControl::observe_ranks(std::span<const uint8_t> accepted) {
  for (size_t rank = 0; rank < accepted.size() && rank < right_.size(); ++rank)
    right_[rank].add(accepted[rank] != 0 ? 1 : 0, 1.0 / 32);
}

double DraftControl::price(bool mixed, uint32_t tokens) const {
  const auto &cost = cost_ns_[mixed];
  const uint32_t at = bucket_of(tokens);
  if (cost[at].seen > 0) return cost[at].value;
  uint32_t below = at;
  uint32_t above = at;
  while (below > 0 && cost[below].seen == 0) --below;
  while (above + 1 < kBuckets && cost[above].seen == 0) ++above;
  const bool has_below = cost[below].seen > 0;
  const bool has_above = cost[above].seen > 0;
  if (has_below && has_above) {
    const double part = static_cast<double>(at - below) / (above - below);
    return cost[below].value + part * (cost[above].value - cost[below].value);
  }
  // Nothing larger was measured: hope for the best, a trial tells.
  return has_below ? cost[below].value : cost[above].value;
}

double DraftControl::expected(uint32_t drafts) const {
  double sum = 0;
  double before = 1;
  for (uint32_t rank = 0; rank < std::min(drafts, max_nodes_); ++rank) {
    const double right = right_[rank].seen > 0 ? right_[rank].value : before * kOptimism;
    sum += right;
    before = right;
  }
  return sum;
}

DraftControl::Choice DraftControl::best_of(std::span<const uint32_t> wishes, uint32_t prefill, uint32_t at_least) const {
  Choice best;
  const auto n = static_cast<double>(wishes.size());
  const uint32_t fed = prefill + static_cast<uint32_t>(wishes.size());
  const double plain = price(prefill > 0, fed);
  double most = 0;
  for (uint32_t k = at_least; k <= max_nodes_; k += k < 8 ? 1 : k / 4) {
    double tokens = n;
    uint32_t drafts = 0;
    for (const uint32_t wish : wishes) {
      tokens += expected(std::min(k, wish));
      drafts += std::min(k, wish);
    }
    const double took = price(prefill > 0, fed + drafts) + draft_ns_per_node_.value * drafts;
    const double cost = plain > 0 ? took / plain : 1;
    const double gain = tokens / n / std::max(cost, 1e-6);
    if (gain >= kAsGood * most) best = {k, gain, tokens / n, cost};
    most = std::max(most, gain);
  }
  return best;
}

bool DraftControl::measured(const Size &size, uint32_t sequences, uint32_t prefill) const {
  if (prefill == 0) return cost_ns_[0][bucket_of(sequences)].seen >= kPlainFirst;
  return size.plain >= kPlainFirst && price(true, sequences + prefill) > 0;  // their numbers of tokens vary
}

uint32_t DraftControl::decide(std::span<const uint32_t> wishes, uint32_t prefill) {
  switched_ = false;
  if (pinned_) return max_nodes_;
  if (std::all_of(wishes.begin(), wishes.end(), [](uint32_t wish) { return wish == 0; })) return 0;
  sequences_ = static_cast<uint32_t>(wishes.size());
  prefill_ = prefill;
  auto &size = sizes_[prefill > 0][size_of(wishes.size())];
  if (!measured(size, sequences_, prefill)) {
    ++size.plain;
    reason_ = request::DraftsOff::kNotMeasured;
    return 0;
  }
  const auto best = best_of(wishes, prefill, 1);
  last_ = best;
  ++size.steps;
  const bool was_off = size.off != request::DraftsOff::kNone;
  const bool against = was_off ? best.gain > kOnMargin : best.gain < 1;
  size.doubts = against ? size.doubts + 1 : 0;
  if (size.doubts >= kDoubtsToSwitch && right_[0].seen >= kFirstTrials) {
    const bool poor = expected(1) < kPoorAcceptance;
    size.off = was_off ? request::DraftsOff::kNone
               : poor  ? request::DraftsOff::kAcceptance
                       : request::DraftsOff::kCost;
    size.doubts = 0;
    size.steps = 0;
    switched_ = true;
    if (!was_off) ++(poor ? off_for_acceptance_ : off_for_cost_);
  }
  reason_ = size.off;
  // One step in a while goes the other way, or all the way, so that what is compared stays measured.
  const uint32_t in_turn = size.steps % kTrialEvery;
  if (in_turn == kTrialEvery / 2) return max_nodes_;
  if (off()) return 0;
  return in_turn == 0 ? 0 : best.drafts;
}

bool DraftControl::pays(double accepted, double nodes) const {
  const double fed = static_cast<double>(prefill_ + sequences_);
  const double plain = price(prefill_ > 0, prefill_ + sequences_);
  if (pinned_ || sequences_ == 0 || plain <= 0) return true;
  const double extra = price(prefill_ > 0, static_cast<uint32_t>(std::lround(fed + nodes))) - plain +
                       draft_ns_per_node_.value * nodes;
  // In the time of a plain step every sequence gets a token.
  return accepted * plain >= kHopelessShare * extra * sequences_;
}

std::string DraftControl::why() const {
  if (pinned_) return fmt::format("{} drafts, not adapted", max_nodes_);
  const uint32_t class_of = size_of(sequences_);
  const std::string where = fmt::format(" for batches of {} to {}{}", 1U << (std::max(class_of, 1U) - 1),
                                        (1U << class_of) - 1, prefill_ > 0 ? " beside prompts" : "");
  if (reason_ == request::DraftsOff::kNotMeasured)
    return "not measured yet" + where + ": steps without drafts come first";
  return fmt::format("{}{}: at {} drafts a step gives {:.2f} tokens for each sequence and takes {:.2f} of a plain one",
                     off() ? "off" : "on", where, last_.drafts, last_.tokens, last_.cost);
}

}  // namespace sluice::engine

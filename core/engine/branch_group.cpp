#include "core/engine/branch_group.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace sluice::engine {

void BranchGroup::keep(FinishedAnswer answer, uint32_t n_answers) {
  // Among equals the earlier stays in front.
  const auto at = std::upper_bound(finished.begin(), finished.end(), answer.score,
                                   [](float score, const FinishedAnswer &other) { return score > other.score; });
  finished.insert(at, std::move(answer));
  if (finished.size() > n_answers) finished.pop_back();
}

void BranchCall::clear() {
  const auto empty = [](auto &...vectors) { (vectors.clear(), ...); };
  empty(group_indptr_, generated_, seq_, top_ids_, top_logprobs_, entries_, entry_indptr_);
  group_indptr_.push_back(0);
}

void BranchCall::add(sluice_decoder_seq *seq, std::span<const request::TokenLogprob> top, uint32_t generated) {
  seq_.push_back(seq);
  generated_.push_back(generated);
  for (uint32_t i = 0; i < n_top_; ++i) {
    top_ids_.push_back(i < top.size() ? top[i].token : -1);
    top_logprobs_.push_back(i < top.size() ? top[i].logprob : -std::numeric_limits<float>::infinity());
  }
}

sluice_branch_in BranchCall::in() const {
  sluice_branch_in in{};
  in.struct_size = SLUICE_SIZE_THROUGH(sluice_branch_in, generated);
  in.n_groups = n_groups();
  in.n_branches = n_branches();
  in.n_top = n_top_;
  in.group_indptr = group_indptr_.data();
  in.seq = seq_.data();
  in.top_ids = top_ids_.data();
  in.top_logprobs = top_logprobs_.data();
  in.generated = generated_.data();
  return in;
}

sluice_branch_out BranchCall::out() {
  // Each candidate may grow or finish; besides, each branch may finish as it is.
  const size_t capacity = seq_.size() * (size_t{n_top_} + 1);
  from_.assign(capacity, 0);
  token_.assign(capacity, -1);
  score_.assign(capacity, 0);
  what_.assign(capacity, 0);
  done_.assign(n_groups(), 0);
  sluice_branch_out out{};
  out.struct_size = SLUICE_SIZE_THROUGH(sluice_branch_out, group_done);
  out.capacity = static_cast<uint32_t>(capacity);
  out.from = from_.data();
  out.token = token_.data();
  out.score = score_.data();
  out.what = what_.data();
  out.group_done = done_.data();
  return out;
}

std::string BranchCall::check_entry(uint32_t i, uint32_t vocab_size) const {
  if (from_[i] >= n_branches()) return fmt::format("from[{}] is {}, there are {} branches", i, from_[i], n_branches());
  if (what_[i] != SLUICE_BRANCH_GROW && what_[i] != SLUICE_BRANCH_FINISH)
    return fmt::format("what[{}] is {}, neither GROW nor FINISH", i, what_[i]);
  const bool none = what_[i] == SLUICE_BRANCH_FINISH && token_[i] == -1;
  if (!none && (token_[i] < 0 || static_cast<uint32_t>(token_[i]) >= vocab_size))
    return fmt::format("token[{}] is {}, the vocabulary has {}", i, token_[i], vocab_size);
  if (!std::isfinite(score_[i])) return fmt::format("score[{}] is {}", i, score_[i]);
  return {};
}

std::string BranchCall::take(uint32_t n, std::span<const Rules> rules, uint32_t vocab_size) {
  entries_.clear();
  entry_indptr_.assign(1, 0);
  if (n > from_.size()) return fmt::format("n is {}, there was room for {}", n, from_.size());
  for (uint32_t i = 0, group = 0; i < n; ++i) {
    if (auto wrong = check_entry(i, vocab_size); !wrong.empty()) return wrong;
    while (from_[i] >= group_indptr_[group + 1]) ++group;
    if (from_[i] < group_indptr_[group]) return fmt::format("from[{}] is {}, of a group that came before", i, from_[i]);
  }
  uint32_t i = 0;
  for (uint32_t group = 0; group < n_groups(); ++group) {
    uint32_t n_grow = 0;
    uint32_t n_finish = 0;
    for (; i < n && from_[i] < group_indptr_[group + 1]; ++i) {
      const bool grows = what_[i] == SLUICE_BRANCH_GROW;
      ++(grows ? n_grow : n_finish);
      entries_.push_back({from_[i] - group_indptr_[group], token_[i], score_[i], grows});
    }
    entry_indptr_.push_back(static_cast<uint32_t>(entries_.size()));
    if (done_[group] > 1) return fmt::format("group_done[{}] is {}", group, done_[group]);
    if (done_[group] == 1) {
      if (n_finish == 0 && !rules[group].has_finished) return fmt::format("group {} is done without an answer", group);
      continue;
    }
    if (n_grow == 0) return fmt::format("group {} is not done and has no branch left", group);
    if (n_grow > rules[group].max_live)
      return fmt::format("group {} grows {} branches, its request has {}", group, n_grow, rules[group].max_live);
    if (rules[group].is_last) return fmt::format("group {} grows, but its answer is as long as it may be", group);
  }
  return {};
}

}  // namespace sluice::engine

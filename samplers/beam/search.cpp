#include "search.hpp"

#include <algorithm>
#include <cmath>

namespace sluice::beam {

void Search::finish(double score) {
  finished_.insert(std::upper_bound(finished_.begin(), finished_.end(), score, std::greater<>()), score);
  if (finished_.size() > settings_.beams) finished_.pop_back();
}

bool Search::can_improve(double best_sum, uint32_t generated) const {
  if (finished_.size() < settings_.beams) return true;
  if (settings_.early_stopping == EarlyStopping::kTrue || settings_.beams == 1) return false;
  // A sum of logprobs only falls, but with a positive penalty a longer answer divides it by more.
  const bool to_the_end = settings_.early_stopping == EarlyStopping::kNever && settings_.length_penalty > 0;
  const uint32_t length = to_the_end ? settings_.max_new : generated;
  return best_sum / std::pow(length, settings_.length_penalty) > finished_.back();
}

void Search::step(std::vector<Candidate> &candidates, uint32_t generated, std::vector<Move> &moves) {
  const auto better = [](const Candidate &a, const Candidate &b) { return a.sum > b.sum; };
  std::stable_sort(candidates.begin(), candidates.end(), better);
  const uint32_t length = generated + 1;
  const auto &stops = settings_.stop_tokens;
  moves.clear();
  const Candidate *best_running = nullptr;
  uint32_t n_running = 0;
  for (size_t rank = 0; rank < candidates.size() && n_running < settings_.beams; ++rank) {
    const auto &candidate = candidates[rank];
    const bool ends = length >= settings_.max_new || std::find(stops.begin(), stops.end(), candidate.token) != stops.end();
    // Only the best `beams` of all continuations may finish; an end further down is simply not taken.
    if (ends && rank >= settings_.beams) {
      if (length >= settings_.max_new) break;
      continue;
    }
    const double score = ends ? candidate.sum / std::pow(length, settings_.length_penalty) : candidate.sum;
    moves.push_back({candidate.beam, candidate.token, score, ends});
    if (ends) {
      finish(score);
    } else if (n_running++ == 0) {
      best_running = &candidate;
    }
  }
  done_ = best_running == nullptr || !can_improve(best_running->sum, length);
}

}  // namespace sluice::beam

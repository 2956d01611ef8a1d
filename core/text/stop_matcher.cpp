#include "core/text/stop_matcher.hpp"

#include <algorithm>
#include <cassert>

namespace sluice::text {

StopMatcher::StopMatcher(std::span<const std::string> stops) {
  for (const std::string &stop : stops) {
    assert(!stop.empty());
    Automaton automaton;
    automaton.stop = stop;
    automaton.fallback.assign(stop.size(), 0);
    uint32_t border = 0;
    for (size_t i = 1; i < stop.size(); ++i) {
      while (border > 0 && stop[i] != stop[border]) border = automaton.fallback[border - 1];
      if (stop[i] == stop[border]) ++border;
      automaton.fallback[i] = border;
    }
    automata_.push_back(std::move(automaton));
    first_bytes_ += stop[0];
  }
}

bool StopMatcher::Automaton::step(char c) {
  while (matched > 0 && stop[matched] != c) matched = fallback[matched - 1];
  if (stop[matched] == c) ++matched;
  return matched == stop.size();
}

/// Nothing is held back, and no stop begins in text.
bool StopMatcher::quiet(std::string_view text) const {
  return held_.empty() && text.find_first_of(first_bytes_) == std::string_view::npos;
}

bool StopMatcher::push(std::string_view text, std::string &emit) {
  if (stopped()) return true;
  if (quiet(text)) {
    emit += text;
    return false;
  }
  const size_t before = held_.size();
  held_ += text;
  for (size_t i = before; i < held_.size(); ++i) {
    size_t longest = 0;
    for (size_t k = 0; k < automata_.size(); ++k) {
      if (!automata_[k].step(held_[i]) || automata_[k].stop.size() <= longest) continue;
      longest = automata_[k].stop.size();
      matched_ = k;
    }
    if (longest > 0) {
      emit.append(held_, 0, i + 1 - longest);
      held_.clear();
      return true;
    }
  }
  uint32_t keep = 0;
  for (const Automaton &automaton : automata_) keep = std::max(keep, automaton.matched);
  emit.append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return false;
}

void StopMatcher::flush(std::string &emit) {
  emit += held_;
  held_.clear();
}

}  // namespace sluice::text

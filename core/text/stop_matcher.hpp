#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::text {

/// Ends a text before the first of several stop strings, wherever the pieces it comes in are cut. What could still
/// become a stop string is held back, and nothing else.
///
/// "First" is the stop that is complete first; of two complete at the same byte the longer one. Linear in the text for
/// a given set of stops (one Knuth-Morris-Pratt automaton each). [any], one thread at a time
class StopMatcher {
 public:
  /// stops  none empty: an empty one would end every text, and is refused where requests are read
  explicit StopMatcher(std::span<const std::string> stops);

  /// Appends to emit what of the text so far is now sure to be in front of any stop.
  /// returns  true: a stop is complete; emit ends right before it, and what followed is dropped
  bool push(std::string_view text, std::string &emit);

  /// The text is over: appends what was held back.
  void flush(std::string &emit);

  bool stopped() const { return matched_ != kNone; }
  /// Which stop ended the text, by its place in the constructor's list. Only when stopped().
  size_t matched() const { return matched_; }

 private:
  static constexpr size_t kNone = SIZE_MAX;

  /// One stop string and how much of it the text's end matches.
  struct Automaton {
    std::string stop;
    std::vector<uint32_t> fallback;  // [stop.size()] length of the longest proper border of each prefix
    uint32_t matched = 0;            // < stop.size() between bytes

    /// true: the stop is complete.
    bool step(char c);
  };

  bool quiet(std::string_view text) const;

  std::vector<Automaton> automata_;
  std::string first_bytes_;
  std::string held_;
  size_t matched_ = kNone;
};

}  // namespace sluice::text

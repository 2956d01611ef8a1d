#pragma once
#include "core/text/vocabulary.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

namespace sluice::text {

/// A pair of neighbours that may become one token. Smaller keys go first; equal keys from left to right.
struct Merge {
  static constexpr uint32_t kNever = std::numeric_limits<uint32_t>::max();
  uint32_t key = kNever;
  int32_t token = kNoToken;
};

/// A stretch of the text that is one token so far, linked with its neighbours.
struct Symbol {
  uint32_t begin = 0;  ///< bytes into the text
  uint32_t size = 0;   ///< bytes; 0: joined into its left neighbour
  int32_t token = kNoToken;
  uint32_t next = kEnd;
  uint32_t previous = kEnd;
  Merge with_next;
  static constexpr uint32_t kEnd = std::numeric_limits<uint32_t>::max();
};

/// Joins neighbours, best first, until no pair can be joined: the greedy merge of both BPE and SentencePiece.
///
/// n symbols take O(n log n) and one heap entry of eight bytes per pair ever seen; buffers are kept between texts.
/// The first symbol is always the first of the result; follow `next`.
class MergeQueue {
 public:
  std::vector<Symbol> symbols;

  void append(uint32_t begin, uint32_t size, int32_t token) {
    Symbol symbol;
    symbol.begin = begin;
    symbol.size = size;
    symbol.token = token;
    const auto at = static_cast<uint32_t>(symbols.size());
    if (at > 0) {
      symbol.previous = at - 1;
      symbols.back().next = at;
    }
    symbols.push_back(symbol);
  }

  /// find  (const Symbol &left, const Symbol &right) -> Merge
  template <class Find>
  void run(const Find &find) {
    heap_.clear();
    for (uint32_t i = 0; i + 1 < symbols.size(); ++i) refresh(i, find, heap_);
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const uint64_t entry = heap_.back();
      heap_.pop_back();
      const auto at = static_cast<uint32_t>(entry);
      // An entry is stale when its pair has changed since; the key tells, for a changed pair was entered anew.
      if (symbols[at].size == 0 || symbols[at].with_next.key != static_cast<uint32_t>(entry >> 32)) continue;
      join(at, find);
    }
  }

 private:
  /// Looks the pair that begins at `at` up again and enters it.
  template <class Find, class Push>
  void refresh(uint32_t at, const Find &find, Push &heap) {
    Symbol &left = symbols[at];
    left.with_next = left.next == Symbol::kEnd ? Merge() : find(left, symbols[left.next]);
    if (left.with_next.key != Merge::kNever) heap.push_back((uint64_t{left.with_next.key} << 32) | at);
  }

  template <class Find>
  void refresh_in_heap(uint32_t at, const Find &find) {
    const size_t before = heap_.size();
    refresh(at, find, heap_);
    if (heap_.size() > before) std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  template <class Find>
  void join(uint32_t at, const Find &find) {
    Symbol &left = symbols[at];
    Symbol &right = symbols[left.next];
    left.size += right.size;
    left.token = left.with_next.token;
    left.next = right.next;
    right.size = 0;
    if (left.next != Symbol::kEnd) symbols[left.next].previous = at;
    refresh_in_heap(at, find);
    if (left.previous != Symbol::kEnd) refresh_in_heap(left.previous, find);
  }

  std::vector<uint64_t> heap_;  // key in the upper half, index of the left symbol in the lower
};

}  // namespace sluice::text

// The queues of the policy: who stands in which level, and who has not run for how long.
#pragma once
#include <sluice/abi/base.h>

#include <cstdint>
#include <vector>

namespace sluice::mlfq {

constexpr sluice_seq_ref kNobody = UINT32_MAX;

/// Doubly linked lists over refs. A ref is in at most one list of a Links at a time; nothing is allocated after
/// construction.
class Links {
 public:
  struct List {
    sluice_seq_ref head = kNobody, tail = kNobody;
  };
  struct Link {
    sluice_seq_ref prev = kNobody, next = kNobody;
  };

  explicit Links(uint32_t capacity) : links_(capacity) {}
  void push_back(List &list, sluice_seq_ref r) {
    links_[r] = {list.tail, kNobody};
    (list.tail == kNobody ? list.head : links_[list.tail].next) = r;
    list.tail = r;
  }
  /// Behind `before`, or in front when that is nobody.
  void insert(List &list, sluice_seq_ref before, sluice_seq_ref r) {
    const sluice_seq_ref after = before == kNobody ? list.head : links_[before].next;
    links_[r] = {before, after};
    (before == kNobody ? list.head : links_[before].next) = r;
    (after == kNobody ? list.tail : links_[after].prev) = r;
  }
  void remove(List &list, sluice_seq_ref r) {
    const Link &link = links_[r];
    (link.prev == kNobody ? list.head : links_[link.prev].next) = link.next;
    (link.next == kNobody ? list.tail : links_[link.next].prev) = link.prev;
  }
  sluice_seq_ref next(sluice_seq_ref r) const { return links_[r].next; }
  sluice_seq_ref prev(sluice_seq_ref r) const { return links_[r].prev; }
  std::vector<Link> &raw() { return links_; }
  const std::vector<Link> &raw() const { return links_; }

 private:
  std::vector<Link> links_;
};

/// What the policy knows of a sequence. Plain data, so that a state can be saved.
struct Node {
  uint64_t used_ns = 0;       ///< of the quantum of `home`
  uint64_t place = 0;         ///< grows with every queueing: first in, first out within a level
  uint8_t level = 0;          ///< the queue that it stands in
  uint8_t home = 0;           ///< the level that gives its quantum; differs from `level` while promoted
  uint8_t queue = 0;          ///< which of the lists, see Levels
  uint8_t can_starve = 0;     ///< stands in the list by last run
};

/// Per level two queues in one order of places: those that never ran, and those that have. So a plan that may admit
/// nobody need not look at the first, however many they are.
/// Always: a live sequence is in exactly one queue or parked; it can starve iff its level is not the first.
class Levels {
 public:
  enum Queue : uint8_t { kAbsent, kFresh, kBegun, kParked };

  Levels(uint32_t capacity, uint32_t n_levels)
      : nodes_(capacity), queue_links_(capacity), idle_links_(capacity), fresh_(n_levels), begun_(n_levels) {}

  uint32_t n_levels() const { return static_cast<uint32_t>(fresh_.size()); }
  Node &at(sluice_seq_ref r) { return nodes_[r]; }
  const Node &at(sluice_seq_ref r) const { return nodes_[r]; }
  bool has(sluice_seq_ref r) const { return nodes_[r].queue != kAbsent; }

  void add(sluice_seq_ref r, uint32_t level, bool begun);
  void remove(sluice_seq_ref r);
  /// To the end of a level, with its whole quantum.
  void move(sluice_seq_ref r, uint32_t level);
  /// It has run: it is not fresh any more, and nobody ran later.
  void note_run(sluice_seq_ref r);
  void park(sluice_seq_ref r);    ///< out of the queues, since it cannot run
  void unpark(sluice_seq_ref r);  ///< to the end of its level

  sluice_seq_ref first_fresh(uint32_t level) const { return fresh_[level].head; }
  sluice_seq_ref first_begun(uint32_t level) const { return begun_[level].head; }
  sluice_seq_ref next(sluice_seq_ref r) const { return queue_links_.next(r); }
  /// Of those below the first level, who has not run for longest.
  sluice_seq_ref longest_idle() const { return idle_.head; }

  /// The whole state as bytes, for Policy::save.
  template <class F> void visit(F &&f) {
    f(nodes_), f(queue_links_.raw()), f(idle_links_.raw()), f(fresh_), f(begun_), f(idle_), f(next_place_);
  }

 private:
  void enqueue(sluice_seq_ref r, Queue queue);
  void dequeue(sluice_seq_ref r);

  std::vector<Node> nodes_;
  Links queue_links_, idle_links_;
  std::vector<Links::List> fresh_, begun_;  // by level
  Links::List idle_;
  uint64_t next_place_ = 0;
};

inline void Levels::enqueue(sluice_seq_ref r, Queue queue) {
  Node &n = nodes_[r];
  n.queue = queue;
  n.place = next_place_++;
  if (queue == kFresh) queue_links_.push_back(fresh_[n.level], r);
  if (queue == kBegun) queue_links_.push_back(begun_[n.level], r);
  n.can_starve = n.level > 0;
  if (n.can_starve != 0) idle_links_.push_back(idle_, r);
}

inline void Levels::dequeue(sluice_seq_ref r) {
  Node &n = nodes_[r];
  if (n.queue == kFresh) queue_links_.remove(fresh_[n.level], r);
  if (n.queue == kBegun) queue_links_.remove(begun_[n.level], r);
  if (n.can_starve != 0) idle_links_.remove(idle_, r);
  n.can_starve = 0;
}

inline void Levels::add(sluice_seq_ref r, uint32_t level, bool begun) {
  nodes_[r] = {};
  nodes_[r].level = nodes_[r].home = static_cast<uint8_t>(level);
  enqueue(r, begun ? kBegun : kFresh);
}

inline void Levels::remove(sluice_seq_ref r) {
  dequeue(r);
  nodes_[r].queue = kAbsent;
}

inline void Levels::move(sluice_seq_ref r, uint32_t level) {
  Node &n = nodes_[r];
  const auto queue = static_cast<Queue>(n.queue);
  dequeue(r);
  n.level = static_cast<uint8_t>(level);
  n.used_ns = 0;
  enqueue(r, queue);
}

inline void Levels::note_run(sluice_seq_ref r) {
  Node &n = nodes_[r];
  if (n.queue == kFresh) {  // keeps its place among those of its level who have begun
    queue_links_.remove(fresh_[n.level], r);
    sluice_seq_ref before = begun_[n.level].tail;
    while (before != kNobody && nodes_[before].place > n.place) before = queue_links_.prev(before);
    queue_links_.insert(begun_[n.level], before, r);
    n.queue = kBegun;
  }
  if (n.can_starve == 0) return;
  idle_links_.remove(idle_, r);
  idle_links_.push_back(idle_, r);
}

inline void Levels::park(sluice_seq_ref r) {
  dequeue(r);
  nodes_[r].queue = kParked;
}

inline void Levels::unpark(sluice_seq_ref r) {
  if (nodes_[r].queue == kParked) enqueue(r, kBegun);
}

}  // namespace sluice::mlfq

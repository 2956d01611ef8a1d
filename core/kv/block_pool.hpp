#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sluice::kv {

/// The logical blocks of one KV group: who holds which. Bytes and layout are the backend's.
///
/// Ids are 0..total-1. A block has one owner at a time; the most recently freed one is handed out first, because its
/// bytes are likeliest to be warm.
/// thread   [engine]; does not allocate after construction.
class BlockPool {
 public:
  explicit BlockPool(uint32_t total_blocks);

  uint32_t total() const { return static_cast<uint32_t>(held_.size()); }
  uint32_t free_blocks() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t used_blocks() const { return total() - free_blocks(); }

  /// Appends n blocks to `table`, or none at all. False: fewer than n are free.
  bool allocate(uint32_t n, std::vector<uint32_t> &table);

  /// Gives back every block of `table`, the tail first, and empties it.
  void free(std::vector<uint32_t> &table);

  /// Compares the pool with the tables of everybody who lives: each held block in exactly one of them.
  /// Returns what is wrong, empty when nothing is.
  std::string audit(std::span<const std::vector<uint32_t> *const> tables) const;

 private:
  std::vector<uint32_t> free_;  ///< a stack
  std::vector<uint8_t> held_;   ///< [total]
};

}  // namespace sluice::kv

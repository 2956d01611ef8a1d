#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/kv/prefix_hash.hpp"

namespace sluice::kv {

/// The logical blocks of one KV group: who holds which, and which contents can be used again. Bytes and layout are the
/// backend's.
///
/// Ids are 0..total-1. A block is free (content worthless), held (by one table, or by several that share a prefix or were
/// forked), or cached (held by nobody, but published: it is found by its prefix until its memory is needed). A block
/// that others may read is never written: split() first.
/// Always: free + cached + held == total.
/// thread   [engine]
class BlockPool {
 public:
  BlockPool(uint32_t total_blocks, uint32_t block_size_tokens);

  uint32_t total() const { return static_cast<uint32_t>(holders_.size()); }
  uint32_t free_blocks() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t cached_blocks() const { return n_cached_; }
  uint32_t available_blocks() const { return free_blocks() + n_cached_; }  ///< what allocate() can give
  uint32_t used_blocks() const { return total() - available_blocks(); }

  /// Appends n blocks to `table`, or none at all. The most recently freed go first, because their bytes are likeliest to
  /// be warm; then cached ones, the least recently used first. False: fewer than n are available.
  bool allocate(uint32_t n, std::vector<uint32_t> &table);

  /// Lets go of every block of `table` and empties it. Published blocks that nobody else holds stay cached; of one
  /// table the tail is forgotten first, since a prefix without its head is of no use.
  void free(std::vector<uint32_t> &table);

  /// Says that a held block is full and what it holds. A content that is published already keeps its first block.
  /// tokens  [block_size_tokens]
  void publish(uint32_t block, const PrefixHash &hash, std::span<const int32_t> tokens);

  /// How many leading blocks of a sequence are there. Compares tokens, not hashes alone.
  ///   hashes  one per full block, chained;  tokens  at least hashes.size() blocks of them
  uint32_t match(std::span<const PrefixHash> hashes, std::span<const int32_t> tokens) const;

  /// Holds the first n matching blocks too and appends them to `table`.
  void share(std::span<const PrefixHash> hashes, uint32_t n, std::vector<uint32_t> &table);

  /// Holds blocks of another table too and appends them to `table`: a fork, which copies nothing.
  void fork(std::span<const uint32_t> blocks, std::vector<uint32_t> &table);

  /// Whether its one holder may write into it.
  bool is_writable(uint32_t block) const { return holders_[block] == 1 && is_published_[block] == 0; }
  /// Copy on write: takes a fresh block in place of one that is not writable and lets go of that; the caller has the
  /// backend copy the bytes. False: none is available, and `block` is as it was.
  bool split(uint32_t &block);

  uint32_t holders(uint32_t block) const { return holders_[block]; }
  bool is_published(uint32_t block) const { return is_published_[block] != 0; }
  bool is_shared(uint32_t block) const { return holders_[block] > 1; }
  /// Moves whenever is_shared() of some place in a table may have changed.
  uint64_t sharing_epoch() const { return sharing_epoch_; }

  /// Counts how often the block was handed out: what was known of its content holds as long as this stays.
  uint32_t generation(uint32_t block) const { return generation_[block]; }

  /// Compares the pool with the tables of everybody who lives. Returns what is wrong, empty when nothing is.
  std::string audit(std::span<const std::vector<uint32_t> *const> tables) const;

 private:
  static constexpr uint32_t kNone = 0xFFFFFFFF;

  void link_cached(uint32_t block);    ///< as the most recently used
  void unlink_cached(uint32_t block);
  void forget(uint32_t block);         ///< no longer published
  std::span<const int32_t> content(uint32_t block) const {
    return {content_.data() + size_t{block} * block_size_, block_size_};
  }

  const uint32_t block_size_;
  std::vector<uint32_t> free_;     ///< a stack
  std::vector<uint32_t> holders_;  ///< [total] tables that hold it
  std::vector<uint32_t> generation_;  ///< [total]
  std::vector<uint8_t> is_published_;       ///< [total]
  std::vector<PrefixHash> hash_;            ///< [total] of published blocks
  std::vector<int32_t> content_;            ///< [total, block_size] tokens of published blocks
  std::vector<uint32_t> older_, newer_;     ///< [total] the list of cached blocks by last use
  uint32_t oldest_ = kNone, newest_ = kNone, n_cached_ = 0;
  uint64_t sharing_epoch_ = 0;
  std::unordered_map<PrefixHash, uint32_t, PrefixHashKey> index_;
};

}  // namespace sluice::kv

#include "core/kv/block_pool.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace sluice::kv {

BlockPool::BlockPool(uint32_t total_blocks, uint32_t block_size_tokens)
    : block_size_(block_size_tokens),
      holders_(total_blocks, 0),
      generation_(total_blocks, 0),
      is_published_(total_blocks, 0),
      hash_(total_blocks),
      content_(size_t{total_blocks} * block_size_tokens),
      older_(total_blocks, kNone),
      newer_(total_blocks, kNone) {
  free_.reserve(total_blocks);
  for (uint32_t id = total_blocks; id > 0; --id) free_.push_back(id - 1);
}

bool BlockPool::allocate(uint32_t n, std::vector<uint32_t> &table) {
  if (n > available_blocks()) return false;
  for (uint32_t i = 0; i < n; ++i) {
    if (free_.empty()) {
      const uint32_t evicted = oldest_;
      unlink_cached(evicted);
      forget(evicted);
      free_.push_back(evicted);
    }
    const uint32_t id = free_.back();
    free_.pop_back();
    holders_[id] = 1;
    ++generation_[id];
    table.push_back(id);
  }
  return true;
}

void BlockPool::free(std::vector<uint32_t> &table) {
  while (!table.empty()) {
    const uint32_t id = table.back();
    table.pop_back();
    assert(id < holders_.size() && holders_[id] > 0);
    if (--holders_[id] > 0) {
      sharing_epoch_ += holders_[id] == 1;
      continue;
    }
    if (is_published_[id] != 0) {
      link_cached(id);
    } else {
      free_.push_back(id);
    }
  }
}

void BlockPool::publish(uint32_t block, const PrefixHash &hash, std::span<const int32_t> tokens) {
  assert(holders_[block] > 0 && tokens.size() == block_size_);
  if (is_published_[block] != 0 || !index_.emplace(hash, block).second) return;
  is_published_[block] = 1;
  hash_[block] = hash;
  std::copy(tokens.begin(), tokens.end(), content_.begin() + static_cast<ptrdiff_t>(size_t{block} * block_size_));
}

uint32_t BlockPool::match(std::span<const PrefixHash> hashes, std::span<const int32_t> tokens) const {
  uint32_t n = 0;
  for (; n < hashes.size(); ++n) {
    const auto it = index_.find(hashes[n]);
    if (it == index_.end()) break;
    const auto stored = content(it->second);
    if (!std::equal(stored.begin(), stored.end(), tokens.begin() + static_cast<ptrdiff_t>(size_t{n} * block_size_)))
      break;
  }
  return n;
}

void BlockPool::share(std::span<const PrefixHash> hashes, uint32_t n, std::vector<uint32_t> &table) {
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t block = index_.at(hashes[i]);
    if (holders_[block] == 0) unlink_cached(block);
    sharing_epoch_ += ++holders_[block] == 2;
    table.push_back(block);
  }
}

void BlockPool::fork(std::span<const uint32_t> blocks, std::vector<uint32_t> &table) {
  for (const uint32_t block : blocks) {
    assert(holders_[block] > 0);
    sharing_epoch_ += ++holders_[block] == 2;
    table.push_back(block);
  }
}

bool BlockPool::split(uint32_t &block) {
  assert(!is_writable(block));
  std::vector<uint32_t> fresh;
  if (!allocate(1, fresh)) return false;
  std::vector<uint32_t> old = {block};
  free(old);
  ++sharing_epoch_;  // the place in the table is not shared any more, whoever still shares the block
  block = fresh.front();
  return true;
}

void BlockPool::link_cached(uint32_t block) {
  older_[block] = newest_;
  newer_[block] = kNone;
  (newest_ == kNone ? oldest_ : newer_[newest_]) = block;
  newest_ = block;
  ++n_cached_;
}

void BlockPool::unlink_cached(uint32_t block) {
  (older_[block] == kNone ? oldest_ : newer_[older_[block]]) = newer_[block];
  (newer_[block] == kNone ? newest_ : older_[newer_[block]]) = older_[block];
  --n_cached_;
}

void BlockPool::forget(uint32_t block) {
  index_.erase(hash_[block]);
  is_published_[block] = 0;
}

std::string BlockPool::audit(std::span<const std::vector<uint32_t> *const> tables) const {
  std::vector<uint32_t> seen(holders_.size(), 0);
  for (const auto *table : tables) {
    for (const uint32_t id : *table) {
      if (id >= holders_.size()) return fmt::format("block {} is out of range, the pool has {}", id, holders_.size());
      ++seen[id];
    }
  }
  for (uint32_t id = 0; id < holders_.size(); ++id)
    if (seen[id] != holders_[id])
      return fmt::format("block {} is in {} tables and has {} holders", id, seen[id], holders_[id]);
  uint32_t cached = 0;
  for (uint32_t id = oldest_; id != kNone; id = newer_[id], ++cached)
    if (holders_[id] != 0 || is_published_[id] == 0) return fmt::format("block {} is cached and held", id);
  const auto held = static_cast<uint32_t>(std::count_if(seen.begin(), seen.end(), [](uint32_t n) { return n > 0; }));
  if (cached != n_cached_ || held + cached + free_blocks() != total())
    return fmt::format("{} blocks are lost", int64_t{total()} - held - cached - free_blocks());
  for (const auto &[hash, id] : index_)
    if (is_published_[id] == 0 || !(hash_[id] == hash)) return fmt::format("the prefix index is wrong about block {}", id);
  return {};
}

}  // namespace sluice::kv

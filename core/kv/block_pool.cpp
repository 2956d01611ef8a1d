#include "core/kv/block_pool.hpp"

#include <fmt/format.h>

#include <cassert>

namespace sluice::kv {

BlockPool::BlockPool(uint32_t total_blocks) : held_(total_blocks, 0) {
  free_.reserve(total_blocks);
  for (uint32_t id = total_blocks; id > 0; --id) free_.push_back(id - 1);
}

bool BlockPool::allocate(uint32_t n, std::vector<uint32_t> &table) {
  if (n > free_.size()) return false;
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t id = free_.back();
    free_.pop_back();
    held_[id] = 1;
    table.push_back(id);
  }
  return true;
}

void BlockPool::free(std::vector<uint32_t> &table) {
  while (!table.empty()) {
    const uint32_t id = table.back();
    assert(id < held_.size() && held_[id] != 0);
    held_[id] = 0;
    free_.push_back(id);
    table.pop_back();
  }
}

std::string BlockPool::audit(std::span<const std::vector<uint32_t> *const> tables) const {
  std::vector<uint8_t> seen(held_.size(), 0);
  uint32_t n_seen = 0;
  for (const auto *table : tables) {
    for (const uint32_t id : *table) {
      if (id >= held_.size()) return fmt::format("block {} is out of range, the pool has {}", id, held_.size());
      if (held_[id] == 0) return fmt::format("block {} is in a table but free in the pool", id);
      if (seen[id] != 0) return fmt::format("block {} is in two tables", id);
      seen[id] = 1;
      ++n_seen;
    }
  }
  if (n_seen != used_blocks()) return fmt::format("{} blocks are lost", used_blocks() - n_seen);
  return {};
}

}  // namespace sluice::kv

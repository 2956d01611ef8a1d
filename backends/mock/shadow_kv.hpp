// The cache of a model that does not exist: which token, after which context, was stored in each slot.
#pragma once
#include "script.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sluice::mock {

/// Always: a written slot has token >= 0, and context = extend(context of the position before, token).
struct KvSlot {
  int32_t token = -1;
  uint64_t context = 0;
};

/// Device and host blocks. Every change gives a block a new stamp, so an unchanged block need not be looked at again.
class ShadowKv {
 public:
  ShadowKv(uint32_t device_blocks, uint32_t host_blocks, uint32_t block_size)
      : block_size_(block_size),
        device_(size_t{device_blocks} * block_size),
        host_(size_t{host_blocks} * block_size),
        stamp_(device_blocks) {}

  uint32_t device_blocks() const { return static_cast<uint32_t>(stamp_.size()); }
  uint32_t host_blocks() const { return static_cast<uint32_t>(host_.size() / block_size_); }
  uint32_t slots() const { return static_cast<uint32_t>(device_.size()); }
  uint32_t block_size() const { return block_size_; }

  const KvSlot &slot(uint32_t slot) const { return device_[slot]; }
  uint64_t stamp(uint32_t block) const { return stamp_[block]; }

  void write(uint32_t slot, KvSlot value) { device_[slot] = value, touch(slot / block_size_); }
  void forget(uint32_t slot) { write(slot, {}); }
  void move(uint32_t from, uint32_t to) { write(to, device_[from]); }
  void copy(uint32_t from, uint32_t to) { put(device_, to, block(device_, from)), touch(to); }
  void swap_out(uint32_t from, uint32_t host_to) { put(host_, host_to, block(device_, from)); }
  void swap_in(uint32_t host_from, uint32_t to) { put(device_, to, block(host_, host_from)), touch(to); }

 private:
  const KvSlot *block(const std::vector<KvSlot> &space, uint32_t b) const {
    return space.data() + size_t{b} * block_size_;
  }
  void put(std::vector<KvSlot> &space, uint32_t b, const KvSlot *from) {
    std::copy_n(from, block_size_, space.data() + size_t{b} * block_size_);
  }
  void touch(uint32_t b) { stamp_[b] = ++last_stamp_; }

  uint32_t block_size_;
  std::vector<KvSlot> device_, host_;
  std::vector<uint64_t> stamp_;  // by device block
  uint64_t last_stamp_ = 0;
};

}  // namespace sluice::mock

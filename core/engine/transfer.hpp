#pragma once
#include <sluice/abi/kinds/backend.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace sluice::engine {

/// Block operations that go to the backend as one batch and take effect in this order.
class KvOps {
 public:
  void add(uint8_t op, uint32_t src, uint32_t dst) {
    op_.push_back(op);
    src_.push_back(src);
    dst_.push_back(dst);
  }
  void append(const KvOps &other) {
    op_.insert(op_.end(), other.op_.begin(), other.op_.end());
    src_.insert(src_.end(), other.src_.begin(), other.src_.end());
    dst_.insert(dst_.end(), other.dst_.begin(), other.dst_.end());
  }
  uint32_t size() const { return static_cast<uint32_t>(op_.size()); }
  void clear() {
    op_.clear();
    src_.clear();
    dst_.clear();
  }
  /// Valid until the next change.
  sluice_kv_batch abi() const {
    sluice_kv_batch batch{};
    batch.struct_size = SLUICE_SIZE_THROUGH(sluice_kv_batch, keep_len);
    batch.n = size();
    batch.op = op_.data();
    batch.src = src_.data();
    batch.dst = dst_.data();
    return batch;
  }

 private:
  std::vector<uint8_t> op_;
  std::vector<uint32_t> src_, dst_;
};

/// Sequences whose blocks move between device and host, all in one direction. Whoever ended meanwhile is known by a ref
/// that is nobody's or has another id.
struct Transfer {
  bool in = false;                ///< to the device
  sluice_ticket ticket = 0;       ///< of kv_ops(); 0 = nothing had to be copied
  uint64_t bytes = 0;
  uint64_t queued_ns = 0;
  uint64_t last_seen_moving_ns = 0;  ///< host clock; when it was last looked at in vain
  std::vector<std::pair<sluice_seq_ref, sluice_seq_id>> sequences;
};

}  // namespace sluice::engine

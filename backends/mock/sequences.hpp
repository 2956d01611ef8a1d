// What the mock remembers of the sequences it has seen, and the check of their cache that makes it an oracle.
#pragma once
#include "shadow_kv.hpp"

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace sluice::mock {

/// Always: `seen` covers positions 0..tokens.size()-1, and each of its blocks held these tokens when it had that stamp.
struct Sequence {
  struct Seen {
    uint32_t block, n_tokens;
    uint64_t stamp;
  };
  std::vector<int32_t> tokens;  // by position
  std::vector<Seen> seen;       // by index in the block table
  uint32_t n_prompt = 0;        // tokens before its first row; 0 = there was none
  uint64_t last_submit = 0;
};

/// Sequences by id. The host does not say when one ends, so those not seen for a while lose their tokens once there are
/// many (they are then checked by contexts alone), and go altogether once there are too many (one that comes back then
/// counts as one with a new prompt).
class Sequences {
 public:
  static constexpr size_t kManySequences = 8192, kTooManySequences = 131072;
  static constexpr uint64_t kKeepSubmits = 1024;

  /// Makes it if need be. Valid until the next call of sweep().
  Sequence &at(uint64_t seq_id) { return known_[seq_id]; }
  /// Call once per submission.
  void sweep(uint64_t n_submit);
  size_t size() const { return known_.size(); }

 private:
  std::unordered_map<uint64_t, Sequence> known_;
  uint64_t next_sweep_ = 0;
};

/// Checks that the first kv_len positions of the block table hold the tokens of this sequence, each computed after the
/// tokens before it; remembers those that are new. Looks only at blocks that changed since the last time.
///
/// blocks  [ceil(kv_len / block_size)] ids below kv.device_blocks()
/// errors  sdk::Error kInvalidArgument, names sequence, block, slot, position and both tokens
void check_cache(const ShadowKv &kv, uint64_t seq_id, const uint32_t *blocks, uint32_t kv_len, Sequence &sequence);

/// Stores a token of the sequence at `position`, the first one behind what it has or one that it overwrites.
void store_token(ShadowKv &kv, const uint32_t *blocks, uint32_t slot, uint32_t position, KvSlot value,
                 Sequence &sequence);

}  // namespace sluice::mock

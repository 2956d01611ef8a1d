#include "sequences.hpp"

#include <sluice/sdk/error.hpp>

#include <string>

namespace sluice::mock {
namespace {

/// The block differs from what the sequence needs at this position: says how.
[[noreturn]] void blame(uint64_t seq_id, uint32_t block, uint32_t slot, uint32_t position, const KvSlot &found,
                        int32_t expected) {
  std::string text = "sequence " + std::to_string(seq_id) + ": block " + std::to_string(block) + " slot " +
                     std::to_string(slot) + " (position " + std::to_string(position) + ") holds ";
  text += found.token < 0 ? "nothing" : "token " + std::to_string(found.token);
  if (expected >= 0 && expected != found.token)
    text += ", expected " + std::to_string(expected);
  else if (found.token >= 0)
    text += ", computed after other tokens than those before it now";
  throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, text + "; the block was lost, shared wrongly or overwritten");
}

void check_block(const ShadowKv &kv, uint64_t seq_id, const uint32_t *blocks, uint32_t index, uint32_t n_tokens,
                 Sequence &s) {
  const uint32_t size = kv.block_size(), first = index * size;
  uint64_t context = index == 0 ? kEmptyContext : kv.slot(blocks[index - 1] * size + size - 1).context;
  for (uint32_t i = 0; i < n_tokens; ++i) {
    const KvSlot &found = kv.slot(blocks[index] * size + i);
    const uint32_t position = first + i;
    const int32_t expected = position < s.tokens.size() ? s.tokens[position] : -1;
    context = found.token < 0 ? 0 : extend(context, found.token);
    if (found.token < 0 || found.context != context || (expected >= 0 && found.token != expected))
      blame(seq_id, blocks[index], i, position, found, expected);
    if (expected < 0) s.tokens.push_back(found.token);
  }
}

}  // namespace

void Sequences::sweep(uint64_t n_submit) {
  if (known_.size() <= kManySequences || n_submit < next_sweep_) return;
  next_sweep_ = n_submit + kKeepSubmits;
  const bool too_many = known_.size() > kTooManySequences;
  for (auto it = known_.begin(); it != known_.end();) {
    Sequence &s = it->second;
    const bool idle = s.last_submit + kKeepSubmits < n_submit;
    if (idle) std::vector<int32_t>().swap(s.tokens), std::vector<Sequence::Seen>().swap(s.seen);
    it = idle && too_many ? known_.erase(it) : std::next(it);
  }
}

void check_cache(const ShadowKv &kv, uint64_t seq_id, const uint32_t *blocks, uint32_t kv_len, Sequence &s) {
  const uint32_t size = kv.block_size();
  const uint32_t n_blocks = (kv_len + size - 1) / size;
  if (s.seen.size() > n_blocks) s.seen.resize(n_blocks);
  for (uint32_t i = 0; i < n_blocks; ++i) {
    const uint32_t n_tokens = std::min(size, kv_len - i * size);
    const uint64_t stamp = kv.stamp(blocks[i]);
    if (i < s.seen.size()) {
      Sequence::Seen &seen = s.seen[i];
      if (seen.block == blocks[i] && seen.stamp == stamp && seen.n_tokens >= n_tokens) continue;
      check_block(kv, seq_id, blocks, i, n_tokens, s);
      seen = {blocks[i], n_tokens, stamp};
    } else {
      check_block(kv, seq_id, blocks, i, n_tokens, s);
      s.seen.push_back({blocks[i], n_tokens, stamp});
    }
  }
  if (s.tokens.size() > kv_len) s.tokens.resize(kv_len);  // drafts that were not accepted, or a recompute
  if (!s.seen.empty()) s.seen.back().n_tokens = std::min(s.seen.back().n_tokens, kv_len - (n_blocks - 1) * size);
}

void store_token(ShadowKv &kv, const uint32_t *blocks, uint32_t slot, uint32_t position, KvSlot value, Sequence &s) {
  const uint32_t size = kv.block_size(), index = position / size, block = blocks[index];
  const bool ours = index < s.seen.size() && s.seen[index].block == block && s.seen[index].stamp == kv.stamp(block);
  kv.write(slot, value);
  s.tokens.resize(position);
  s.tokens.push_back(value.token);
  if (index == s.seen.size() && position % size == 0)
    s.seen.push_back({block, 1, kv.stamp(block)});
  else if (ours)  // else somebody else wrote here too, and the next check shall look
    s.seen[index].n_tokens = position % size + 1, s.seen[index].stamp = kv.stamp(block);
}

}  // namespace sluice::mock

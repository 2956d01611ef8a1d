// What travels between a step program and a device: places, shapes and the data of one step.
#pragma once
#include "core/model_file/formats.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sluice::graph {

using model_file::TensorType;

/// Device memory. An id and not a pointer: a Vulkan buffer has no address that the host could use. 0 = none.
struct Buffer {
  uint32_t id = 0;
  explicit operator bool() const { return id != 0; }
};

/// Who touches a buffer: decides which memory it gets on a device that has several.
enum class BufferUse : uint8_t {
  kDevice,  ///< the device alone, once upload() has filled it
  kArgs,    ///< the host writes between steps, the device reads
  kResult,  ///< the device writes, the host reads between steps
};

/// A packed weight of one device. 0 = none.
struct WeightId {
  uint32_t id = 0;
};

/// Names an activation of the step program; the buffer behind it keeps its address from configure() on.
using Slot = uint32_t;

/// How many rows an activation has in a step: one per token, per row whose logits are wanted, or per such row at which
/// the draft heads are wanted too.
enum class Extent : uint8_t { kTokens, kRows, kHeadRows };

/// f32, row-major [extent, width], rows contiguous.
struct Activation {
  Extent extent = Extent::kTokens;
  uint32_t width = 0;
  std::string name;
};

/// What a weight is for: a device may pack each use in its own way.
enum class WeightUse : uint8_t {
  kEmbed,      ///< rows are looked up
  kLinear,     ///< segments are stacked: out = [in W0^T | in W1^T | ...]
  kLinearGlu,  ///< exactly two segments of equal shape, gate then up
};

/// One matrix of the file, [rows, cols] row-major.
/// data  [row_bytes * rows], borrowed until the device dies: the mapped file outlives its devices.
struct WeightSegment {
  std::string name;
  TensorType type{};
  const std::byte *data = nullptr;
  uint64_t rows = 0;
};

struct WeightSource {
  WeightUse use = WeightUse::kLinear;
  uint64_t cols = 0;
  std::vector<WeightSegment> segments;
};

enum class KvType : uint8_t { kF32, kF16 };
inline uint64_t kv_type_bytes(KvType type) { return type == KvType::kF32 ? 4 : 2; }

/// The paged cache. Block-major: a block holds all layers, so copying or swapping it is one contiguous copy.
struct KvShape {
  uint32_t layers = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t block_size_tokens = 0;
  uint32_t device_blocks = 0;
  uint32_t host_blocks = 0;
  KvType type = KvType::kF16;

  uint64_t bytes_per_block() const {
    return uint64_t{2} * layers * kv_heads * head_dim * block_size_tokens * kv_type_bytes(type);
  }
};

/// The largest step a device will meet; scratch is sized from it.
struct StepLimits {
  uint32_t tokens = 0;
  uint32_t seqs = 0;
  uint32_t rows = 0;
  uint32_t context_tokens = 0;
  uint32_t blocks_per_seq = 0;
  uint32_t tree_words = 0;  ///< 64-bit words of tree mask in one step
};

/// One piece of attention: query tokens [q_begin, q_end) of a sequence over splits [split_begin, split_end) of what
/// they see. partial is the first row of partial results, or kNoPartial when the item covers all splits.
struct AttentionItem {
  uint32_t seq = 0;
  uint32_t q_begin = 0, q_end = 0;
  uint32_t split_begin = 0, split_end = 0;
  uint32_t partial = 0;
};
constexpr uint32_t kNoPartial = 0xFFFFFFFFu;

/// Partial results to merge in ascending order: n_partials rows, `stride` apart, make up token `token`.
struct AttentionMerge {
  uint32_t token = 0;
  uint32_t first_partial = 0;
  uint32_t n_partials = 0;
  uint32_t stride = 0;
};

/// Device buffers with the data of a step. Allocated once by configure(), mapped and rewritten before every step, so
/// that a recorded step can be replayed over new data. Sizes are those of StepLimits.
struct StepArgs {
  Buffer ids;                       ///< i32 [tokens]
  Buffer positions;                 ///< i32 [tokens]
  Buffer slots;                     ///< u32 [tokens] block * block_size + offset
  Buffer rows;                      ///< u32 [rows] token index, ascending
  Buffer head_rows;                 ///< u32 [head_rows] row index, ascending
  Buffer q_begin;                   ///< u32 [seqs + 1] into tokens
  Buffer kv_len;                    ///< u32 [seqs] cached tokens before this step
  Buffer block_table;               ///< u32 [seqs, blocks_per_seq]
  Buffer tree_begin;                ///< u32 [seqs + 1] into tree_mask words; an empty range is a causal sequence
  Buffer tree_mask;                 ///< u64 [tree_words] ceil(q_len/64) words per token of the sequence
  Buffer items;                     ///< AttentionItem [n_items]
  Buffer merges;                    ///< AttentionMerge [n_merges]
  std::vector<Buffer> activations;  ///< by Slot
  Buffer head_ids;                  ///< i32 [head_rows, heads, top], result of TopOp
  Buffer head_logprobs;             ///< f32, likewise
};

/// The sizes of one step. A replaying device rounds them up to a bucket of its own.
struct StepShape {
  uint32_t tokens = 0;
  uint32_t seqs = 0;
  uint32_t rows = 0;
  uint32_t attention_items = 0;
  uint32_t attention_merges = 0;
  uint32_t split_tokens = 0;  ///< length of a split of the visible tokens
  uint32_t head_rows = 0;
};

}  // namespace sluice::graph

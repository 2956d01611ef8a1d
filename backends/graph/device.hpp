// The cut between a model and the hardware: the fused operations that a step program is made of.
//
// Source level, never ABI: graph and device are compiled into one plugin and change together.
//
// What the Vulkan spike (tests/backends/vulkan_spike, backends/vulkan/README.md) settled here:
//  - A place is a buffer id, never a pointer. A device turns it into a pointer, a device address in a push constant, or
//  a
//    descriptor; the program does not care.
//  - All data of a step lies in StepArgs, at addresses that do not change after configure(). A recorded command buffer
//    holds those addresses; replaying it over new data is a memcpy and a submit. So begin_step() may answer "already
//    recorded", and then the program is not walked.
//  - How many tokens there are is data too: a recording covers a bucket, and the kernels read the true count and stop.
//    An operation must not depend on StepShape in any other way.
//  - No operation returns a value: the host reads nothing between begin_step() and end_step().
//  - Arguments are rewritten only when the step that reads them has finished: end_step() returns its fence.
//  - A buffer says who touches it. Here all memory is mapped, on a card of its own it is not.
#pragma once
#include "backends/graph/tensors.hpp"

#include <span>
#include <variant>

namespace sluice::graph {

/// out[t] = row ids[t] of the table, as f32.
struct EmbedOp {
  WeightId table;  ///< [vocab, width]
  Slot out = 0;    ///< [tokens, width]
};

/// out = in / sqrt(mean(in^2) + eps) * weight, row by row (RMSNorm, arXiv:1910.07467).
struct NormOp {
  Slot in = 0, out = 0;  ///< [extent, width]; may be the same slot
  Extent extent = Extent::kTokens;
  uint32_t width = 0;
  Buffer weight;  ///< f32 [width]
  float eps = 0;
};

/// out = in W^T (+ bias), stored or added to what is there.
struct LinearOp {
  WeightId weight;  ///< [n_out, n_in]
  Slot in = 0;      ///< [extent, n_in]
  Slot out = 0;     ///< [extent, n_out]
  Extent extent = Extent::kTokens;
  uint32_t n_in = 0, n_out = 0;
  Buffer bias;  ///< f32 [n_out] or none
  bool add = false;
};

/// out = silu(in G^T) * (in U^T) (SwiGLU, arXiv:2002.05202).
struct LinearGluOp {
  WeightId weight;  ///< gate and up, [n_out, n_in] each
  Slot in = 0;      ///< [tokens, n_in]
  Slot out = 0;     ///< [tokens, n_out]
  uint32_t n_in = 0, n_out = 0;
};

/// Which two elements of a head rotate together: neighbours (GPT-J, llama files) or halves (NeoX, Qwen files).
enum class RopeStyle : uint8_t { kNeighbours, kHalves };

/// Normalises (where asked) and rotates queries and keys, stores keys and values in the cache at slots[t], queries in
/// q. Angle of pair i: position * inv_freq[i] (RoPE, arXiv:2104.09864); elements from 2 * n_pairs on pass unrotated.
struct RopeKvOp {
  Slot qkv = 0;  ///< [tokens, (q_heads + 2 * kv_heads) * head_dim]: all q, all k, all v
  Slot q = 0;    ///< [tokens, q_heads * head_dim]
  uint32_t layer = 0;
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  uint32_t n_pairs = 0;
  RopeStyle style = RopeStyle::kNeighbours;
  Buffer inv_freq;        ///< f32 [n_pairs]
  Buffer q_norm, k_norm;  ///< f32 [head_dim] RMS weights per head, or none
  float eps = 0;
};

/// out[t, h] = sum over visible s of softmax(scale * q[t, h] . k[s, h / group]) v[s, h / group].
///
/// Visible to window token j of a sequence: its kv_len cached tokens, then window tokens 0..j, or in a draft tree those
/// whose bit is set. Visible tokens are numbered in that order; splits, sums and merges follow the numbering, not the
/// cells, so a tree path gives the bits of the same tokens in a row.
struct AttentionOp {
  Slot q = 0, out = 0;  ///< [tokens, q_heads * head_dim]
  uint32_t layer = 0;
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;
};

/// out[r] = in[rows[r]], or from rows to head rows: out[r] = in[head_rows[r]].
struct GatherRowsOp {
  Slot in = 0;   ///< [tokens, width]; [rows, width] for head rows
  Slot out = 0;  ///< [extent, width]
  uint32_t width = 0;
  Extent extent = Extent::kRows;  ///< or kHeadRows
};

/// out = base + silu(in): the residual layer of a Medusa head (arXiv:2401.10774).
struct SiluAddOp {
  Slot in = 0, base = 0, out = 0;  ///< [extent, width]; out may be base
  Extent extent = Extent::kHeadRows;
  uint32_t width = 0;
};

/// The n best entries of each row, best first, the lower id first among equals, with their log-softmax over the row:
/// into head_ids[r, head] and head_logprobs[r, head] of the step.
struct TopOp {
  Slot in = 0;  ///< [head_rows, width]
  uint32_t width = 0;
  uint32_t head = 0, n_heads = 0;
  uint32_t n = 0;  ///< at most width
};

using Op = std::variant<EmbedOp, NormOp, LinearOp, LinearGluOp, RopeKvOp, AttentionOp, GatherRowsOp,
                        SiluAddOp, TopOp>;

enum class OpKind : uint8_t { kEmbed, kLinear, kLinearGlu };
const char *op_name(OpKind op);

struct KvMove {
  enum class Kind : uint8_t { kCopyBlock, kSwapOut, kSwapIn, kMoveSlot } kind;
  uint32_t src, dst;  ///< blocks; slots for kMoveSlot
};

struct DeviceMemory {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;
};

/// One model on one device, and its in-order queue. Setup calls are [init] and throw sdk::Error; the rest is [engine].
class Device {
 public:
  virtual ~Device() = default;
  virtual const char *name() const = 0;
  virtual bool supports(OpKind op, TensorType format) const = 0;
  virtual DeviceMemory memory() const = 0;

  /// Zeroed memory of a fixed address. errors: RESOURCE_EXHAUSTED
  virtual Buffer allocate(uint64_t size_bytes, BufferUse use) = 0;
  virtual void free(Buffer buffer) = 0;
  /// Fills the front of a buffer; not while a step runs.
  virtual void upload(Buffer buffer, const void *from, uint64_t size_bytes) = 0;
  /// The host's view of a kArgs or kResult buffer, for as long as the buffer lives. [engine], between steps.
  virtual void *mapped(Buffer buffer) = 0;

  /// Takes a weight in the device's own layout. The caller has asked supports() for every segment.
  virtual WeightId add_weight(const WeightSource &source) = 0;
  virtual uint64_t weights_bytes() const = 0;

  /// Bytes of private scratch that configure() will take for these limits and this program. Allocates nothing.
  virtual uint64_t scratch_bytes(const StepLimits &limits, std::span<const Op> program) const = 0;
  /// Scratch and cache; again when nothing is in flight. The cache starts as zeros. errors: RESOURCE_EXHAUSTED
  virtual void configure(const StepLimits &limits, std::span<const Op> program, const KvShape &kv) = 0;

  /// How many attention items keep the device busy; the planner splits long contexts until it has as many.
  virtual uint32_t attention_parallelism() const = 0;

  /// Opens a step. false: a recording of this shape was replayed, the program need not be walked.
  virtual bool begin_step(const StepShape &shape, const StepArgs &args) = 0;
  /// Closes it and returns its fence, which grows from step to step.
  virtual uint64_t end_step() = 0;
  /// [any] Blocks until the fence has passed. false: timeout.
  virtual bool wait(uint64_t fence, uint64_t timeout_ns) = 0;

  virtual void embed(const EmbedOp &op) = 0;
  virtual void norm(const NormOp &op) = 0;
  virtual void linear(const LinearOp &op) = 0;
  virtual void linear_glu(const LinearGluOp &op) = 0;
  virtual void rope_kv(const RopeKvOp &op) = 0;
  virtual void attention(const AttentionOp &op) = 0;
  virtual void gather_rows(const GatherRowsOp &op) = 0;
  virtual void silu_add(const SiluAddOp &op) = 0;
  virtual void top(const TopOp &op) = 0;

  /// In list order, in the same queue as the steps. Ids have been checked against the KvShape.
  virtual void kv_moves(std::span<const KvMove> moves) = 0;
};

}  // namespace sluice::graph

/* The kernels of one instruction set, and the plain data they take.
 *
 * A kernel translation unit is compiled for an instruction set that the machine may lack. Whatever it shares with the
 * rest of the library (an inline function, a template of std::) the linker may keep in that version for everybody. So
 * such a unit includes this header, <stdint.h> and intrinsics, keeps everything in an anonymous namespace and exports
 * its table alone; a test looks at its symbols.
 */
#pragma once
#include <stdint.h>

namespace sluice::cpu {

/* A weight is packed in tiles of 16 rows (outputs), padded with zero rows: each vector lane owns one output, and a sum
 * over the inputs runs down the lane in one fixed order, whatever the batch. */
constexpr uint32_t kTileRows = 16;
/* Elements of an attention head; the graph refuses more. */
constexpr uint32_t kMaxHeadDim = 1024;
/* Rows of activations that a product kernel takes at most. */
constexpr uint32_t kMaxProductTokens = 8;

/* How a tile lies in memory. "group": 64 bytes, 4 neighbouring inputs of each of the 16 rows.
 *   kF32    per input: f32 [16]
 *   kF16    per input: f16 [16]
 *   kBF16   per input: bf16 [16]
 *   kQ8     per 64 inputs: 16 groups of i8, then f16 scale [2][16]
 *   kQ4     per 64 inputs: 8 pairs of groups (first in the low nibbles), then f16 scale [2][16]; value = nibble - 8
 *   kQ4K    per 256 inputs: 8 x 4 pairs of groups, u8 scale [8][16], u8 min [8][16], f16 d [16], f16 dmin [16]
 *   kQ6K    per 256 inputs: 64 groups of u8 (value + 32), i8 scale [16][16], f16 d [16], 32 bytes of padding */
enum Layout : uint8_t { kF32, kF16, kBF16, kQ8, kQ4, kQ4K, kQ6K };
constexpr uint32_t kLayouts = 7;

struct LayoutInfo {
  uint32_t inputs, bytes; /* of one repeating unit of a tile */
  bool quantised_input;   /* multiplies i8 activations, not f32 */
};
constexpr LayoutInfo kLayoutInfo[kLayouts] = {{1, 64, false},  {1, 32, false},    {1, 32, false},   {64, 1088, true},
                                              {64, 576, true}, {256, 2368, true}, {256, 4416, true}};

/* Activation rows. Quantised ones: 32 inputs share a scale, q = round(x / d), d = max|x| / 127; rows are padded with
 * zeros to 256 inputs. */
struct ProductInput {
  uint32_t n_inputs;    /* before padding */
  const float *x;       /* [tokens, n_inputs] */
  const int8_t *q;      /* [tokens, q_stride] */
  const float *d;       /* [tokens, q_stride / 32] */
  const int32_t *sum16; /* [tokens, q_stride / 16] sums of 16 neighbours of q */
  uint32_t q_stride;
};

/* Attention of one tile of query tokens to the splits of one kv head; see graph::AttentionItem. */
struct AttendArgs {
  const float *q; /* [token, q_heads, head_dim], at the tile's first token and the group's first head */
  float *out;     /* likewise; unused when there are partials */
  uint32_t q_heads, group, head_dim, tokens;
  float scale;
  const uint8_t *keys; /* of this layer and head, in block 0 */
  const uint8_t *values;
  uint64_t block_bytes; /* from a block to the next */
  uint32_t block_size;  /* tokens */
  uint32_t is_f16;
  const uint32_t *blocks;  /* block table of the sequence */
  uint32_t cached;         /* tokens visible to all; the window follows them */
  const uint32_t *visible; /* [tokens] cached and window */
  const uint32_t
      *window; /* [tokens, window_stride] indices of the visible window tokens, ascending; NULL = 0, 1, ... */
  uint32_t window_stride;
  uint32_t split_tokens, split_begin, split_end;
  float *partial; /* NULL, or [token, q_heads, head_dim + 2] at the group's first head: max, sum, values */
  float *scratch; /* attend_scratch_floats() */
};
constexpr uint64_t attend_scratch_floats(uint32_t tokens, uint32_t group, uint32_t head_dim, uint32_t split_tokens) {
  return uint64_t{tokens} * group * (split_tokens + 2 * (uint64_t{head_dim} + 2));
}

struct KernelTable {
  const char *name;
  /* acc [n][16] = rows token .. token + n - 1 of the input times one tile. 1 <= n <= kMaxProductTokens. The bits of a
   * row do not depend on n. */
  void (*product[kLayouts])(const ProductInput *in, const uint8_t *tile, uint32_t token, uint32_t n, float *acc);
  /* One row; n_padded is a multiple of 32. */
  void (*quantise)(const float *x, uint32_t n, uint32_t n_padded, int8_t *q, float *d, int32_t *sum16);
  void (*rms_norm)(const float *x, const float *weight, uint32_t n, float eps, float *out);
  /* gate = silu(gate) * up */
  void (*silu_mul)(float *gate, const float *up, uint32_t n);
  /* out = base + silu(x); out may be base */
  void (*silu_add)(const float *x, const float *base, uint32_t n, float *out);
  void (*to_f16)(const float *from, uint16_t *to, uint32_t n);
  void (*attend)(const AttendArgs *args);
  /* Merges n partials of head_dim + 2 floats, `stride` floats apart, in order. */
  void (*merge)(const float *partials, uint32_t n, uint64_t stride, uint32_t head_dim, float *out);
};

extern const KernelTable kGenericKernels;
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;

}  // namespace sluice::cpu

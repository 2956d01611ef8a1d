/* sluice/abi/kv.h - who owns what of the key/value cache.
 *
 * Host: sequences, logical block ids 0..n-1, reference counts, block tables, prefix cache. Backend: the bytes, their
 * layout, host copies, copy engines. A logical block stands for the same tokens in every layer of its group and in
 * every draft model of the sequence: draft caches use the target's block table, so block operations go to both.
 */
#ifndef SLUICE_ABI_KV_H
#define SLUICE_ABI_KV_H
#include <sluice/abi/base.h>
SLUICE_C_BEGIN

/* PAGED: blocks handed out by the host. SEQ: the backend stores by sequence id; step.block_* and step.slots are NULL,
 * only SEQ_* operations are sent, and a shared prefix is a SEQ_FORK. */
#define SLUICE_KV_MODE_PAGED 1
#define SLUICE_KV_MODE_SEQ 2

#define SLUICE_NO_SLOT 0xFFFFFFFFu /* in step.slots: do not keep this token's keys and values */

/* Layers with one block table in common; hybrids have several (full, sliding window, recurrent). A recurrent block is
 * the whole state of one sequence: COPY it before drafts, and drop the copy or the original afterwards. */
typedef struct sluice_kv_group {
  uint32_t struct_size;
  uint32_t block_size;      /* tokens; 0 = recurrent state */
  uint64_t bytes_per_block; /* keys, values and scales of all its layers */
  uint32_t window;          /* tokens that a query sees; 0 = all */
  uint32_t reserved;
} sluice_kv_group;

/* Operations come in batches and take effect one after the other. Slot = block * block_size + offset. */
#define SLUICE_KV_COPY 1       /* device block src to device block dst */
#define SLUICE_KV_SWAP_OUT 2   /* device block src to host block dst */
#define SLUICE_KV_SWAP_IN 3    /* host block src to device block dst */
#define SLUICE_KV_MOVE_SLOTS 4 /* slot src to slot dst, as stored (no new rotation): compacts an accepted path. Within a
                                  sequence dst <= src and both ascend */
#define SLUICE_KV_SEQ_FORK 16  /* seq_dst begins as the first keep_len tokens of seq_src */
#define SLUICE_KV_SEQ_TRIM 17  /* seq_src forgets all after keep_len tokens */
#define SLUICE_KV_SEQ_DROP 18
#define SLUICE_KV_SEQ_SWAP_OUT 19
#define SLUICE_KV_SEQ_SWAP_IN 20

typedef struct sluice_kv_batch {
  uint32_t struct_size;
  uint32_t n;
  const uint8_t *op;            /* [n] SLUICE_KV_* */
  const uint8_t *group;         /* [n]; NULL = group 0 throughout */
  const uint32_t *src, *dst;    /* [n] blocks or slots; NULL in SEQ mode */
  const sluice_seq_id *seq_src; /* [n] in SEQ mode, else NULL */
  const sluice_seq_id *seq_dst;
  const uint32_t *keep_len; /* [n] tokens, in SEQ mode, else NULL */
} sluice_kv_batch;

SLUICE_C_END
#endif

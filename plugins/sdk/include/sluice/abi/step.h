/* sluice/abi/step.h - one forward pass over prefill chunks, decodes and draft trees, and what comes back.
 *
 * Tokens of all sequences lie end to end; ranges are CSR offsets ([n + 1]). Arrays are host memory and may go once
 * submit() has returned. The host sends no padding and no attention work list: what suits a device the backend derives
 * from q_indptr, kv_len, the block table and the tree.
 */
#ifndef SLUICE_ABI_STEP_H
#define SLUICE_ABI_STEP_H
#include <sluice/abi/kv.h>
#include <sluice/abi/sampling.h>
#include <sluice/abi/tensor.h>
SLUICE_C_BEGIN

#define SLUICE_HISTORY_RESET 1  /* empty the slot, then append as prompt */
#define SLUICE_HISTORY_PROMPT 2 /* append as prompt */
#define SLUICE_HISTORY_OUTPUT 3 /* append as output */
#define SLUICE_HISTORY_FORK 4   /* become a copy of the slot whose number is the one token given */

typedef struct sluice_step {
  uint32_t struct_size;
  uint32_t flags; /* none defined yet */
  uint64_t step_no;
  uint32_t n_tokens, n_seqs, n_rows, n_kv_groups;
  /* tokens */
  const int32_t *tokens;    /* [n_tokens] ids; -1-k (CAP_TOKEN_FEED): the token drawn for row k of the step before */
  const int32_t *positions; /* [n_tokens] rotary position; siblings in a tree have the same */
  const uint32_t *slots;    /* [n_kv_groups * n_tokens] where to store, or SLUICE_NO_SLOT */
  /* sequences */
  const sluice_seq_id *seq_ids; /* [n_seqs] */
  const uint32_t *q_indptr;     /* [n_seqs + 1] into tokens */
  const uint32_t *kv_len;       /* [n_seqs] cached tokens that were there before this step */
  const uint32_t *block_indptr; /* [n_kv_groups * (n_seqs + 1)] into block_ids */
  const uint32_t *block_ids;    /* device blocks in order of position */
  /* draft trees; the three are NULL together, when no sequence has one */
  const int32_t *parent;            /* [n_tokens] index within the sequence's tokens, -1 = the cached context */
  const uint32_t *tree_mask_indptr; /* [n_seqs + 1] into tree_mask; an empty range = a causal sequence */
  const uint64_t *tree_mask;        /* ceil(q_len / 64) words per token; bit j: sees token j of its sequence (itself and
                                       its ancestors, as `parent` says). The cached context is always seen */
  /* tokens drawn by a sampler on the device (CAP_LOGITS_DEV); NULL = by this backend */
  const sluice_tensor *feed; /* i32 [rows of the step before] */
  const sluice_sync *feed_sync;
  /* rows */
  const uint32_t *row_token; /* [n_rows] ascending indices of tokens whose logits are wanted */
  const uint8_t *row_want;   /* [n_rows] SLUICE_ROW_* */
  const sluice_sample_spec *spec;
  uint32_t n_specs, spec_stride;
  const uint32_t *row_spec;     /* [n_rows] which spec; read for TOKEN, CANDIDATES, LOGITS_HOST only */
  const uint64_t *row_seed;     /* [n_rows] */
  const uint32_t *row_position; /* [n_rows] of the token being chosen; rng.h */
  const uint32_t *mask_words;   /* masks of ceil(vocab / 32) words each, bit = allowed */
  const int32_t *row_mask;      /* [n_rows] which mask, -1 = none; NULL = none at all */
  const uint32_t *bias_indptr;  /* [n_rows + 1] into bias_*; NULL = none at all */
  const int32_t *bias_token;
  const float *bias_value;
  uint32_t n_candidates; /* for ROW_CANDIDATES */
  /* token histories for penalties, which the backend keeps per slot. They grow here before any row is processed. A row
   * in a tree sees its slot's history and the draft tokens on the way to it */
  uint32_t n_history;
  const uint32_t *history_slot;   /* [n_history] below max_seqs_per_step */
  const uint8_t *history_kind;    /* [n_history] SLUICE_HISTORY_* */
  const uint32_t *history_indptr; /* [n_history + 1] into history_token */
  const int32_t *history_token;
  const int32_t *row_history; /* [n_rows] slot, -1 = none; NULL = none at all */
} sluice_step;

/* Host memory, BORROWED-UNTIL release(ticket), rows in the step's order; NULL = not asked for. */
typedef struct sluice_step_result {
  uint32_t struct_size;
  uint32_t n_rows;
  const int32_t *token;            /* [n_rows] -1 = none drawn */
  const float *logprob;            /* [n_rows] of the drawn token, in the spec's logprobs_kind */
  const int32_t *top_ids;          /* [n_rows, n_top] best first, then -1; n_top is the largest n_logprobs */
  const float *top_logprobs;       /* [n_rows, n_top] */
  const int32_t *cand_ids;         /* [n_rows, n_candidates] best first, then -1 */
  const float *cand_logits;        /* [n_rows, n_candidates] */
  const float *row_lse;            /* [n_rows] logsumexp of the whole row after the stages; with candidates */
  const float *logits_host;        /* [n_rows, vocab] */
  const sluice_tensor *logits_dev; /* [n_rows, vocab], may be overwritten */
  const sluice_sync *logits_sync;
  const int32_t *head_ids; /* [n_rows, n_heads, head_top] best first; -1 = not wanted */
  const float *head_logprobs;
  uint32_t n_top, reserved;
  uint64_t device_ns, queue_ns; /* time on the device, and in the queue before it */
} sluice_step_result;

SLUICE_C_END
#endif

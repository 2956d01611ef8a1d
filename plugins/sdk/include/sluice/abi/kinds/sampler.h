/* sluice/abi/kinds/sampler.h - edits rows, forbids tokens, chooses: one link of the chain that the configuration lists.
 *
 * Works on rows. Sequence state changes in commit() alone; a row in a draft tree is judged as if the tokens on the way
 * to it (row_parent, row_token) had been committed. Randomness is rng.h with the row's seed and position.
 *
 * The longest prefix of the chain that can be lowered runs on the device, the rest on the cheapest form of row that all
 * of it takes. Constraints are masks given before the forward, so they need no logits at all.
 */
#ifndef SLUICE_ABI_KINDS_SAMPLER_H
#define SLUICE_ABI_KINDS_SAMPLER_H
#include <sluice/abi/host.h>
#include <sluice/abi/rng.h>
#include <sluice/abi/sampling.h>
#include <sluice/abi/tensor.h>
SLUICE_C_BEGIN

struct sluice_model_info; /* kinds/backend.h */

/* Rows of one sequence stand together, parents before children. */
typedef struct sluice_sample_batch {
  uint32_t struct_size;
  uint32_t form; /* ROW_CANDIDATES, ROW_LOGITS_DEV or ROW_LOGITS_HOST */
  uint32_t n_rows, vocab_size, n_candidates, mask_n_words;
  sluice_sampler_seq *const *row_seq; /* [n_rows] */
  const int32_t *row_parent;          /* [n_rows] row it follows, -1 = the committed state */
  const int32_t *row_token;           /* [n_rows] draft token between parent and this row, -1 without parent */
  const uint64_t *row_seed;           /* [n_rows] */
  const uint32_t *row_position;       /* [n_rows] of the token being chosen */
  const uint32_t *mask_words;         /* masks of the whole chain, mask_n_words words each; already applied to rows */
  const int32_t *row_mask;            /* [n_rows] which mask, -1 = none; NULL = none at all */
  /* CANDIDATES */
  const int32_t *cand_ids; /* [n_rows, n_candidates] best first, then -1 */
  float *cand_logits;      /* [n_rows, n_candidates] in/out; -inf removes */
  const float *row_lse;    /* [n_rows] of the whole row, before the first host stage */
  /* LOGITS_HOST */
  float *logits_host; /* [n_rows, vocab_size] in/out */
  /* LOGITS_DEV: enqueue behind `sync`, do not wait */
  const sluice_tensor *logits_dev; /* [n_rows, vocab_size] in/out */
  const sluice_sync *sync;
} sluice_sample_batch;

typedef struct sluice_sample_out { /* the host owns the arrays and presets them to -1 and NaN */
  uint32_t struct_size;
  uint32_t reserved;
  int32_t *token;           /* [n_rows] -1 = leave it to the next link, in the end to THE DRAW */
  float *logprob;           /* [n_rows] of the choice after processing; NaN = the host works it out */
  sluice_tensor *token_dev; /* LOGITS_DEV: set to i32 [n_rows] of the sampler's own, which feeds the next step;
                               BORROWED-UNTIL the second apply from now */
} sluice_sample_out;

#define SLUICE_SMPF_PROCESSOR 1u        /* edits, never chooses */
#define SLUICE_SMPF_ARGMAX_INVARIANT 2u /* never alters which is best: left out at temperature 0 */
#define SLUICE_SMPF_MASKS 4u            /* does nothing but fill_masks */
#define SLUICE_SMPF_STATEFUL 8u         /* apply looks at earlier tokens: batches hold whole paths */
#define SLUICE_SMPF_RELOWER 16u         /* lower and bias look at earlier tokens: ask again after each commit */

typedef struct sluice_sampler_vtbl {
  uint32_t struct_size;
  uint32_t flags;          /* SLUICE_SMPF_* */
  uint32_t forms;          /* SLUICE_ROW_* that apply takes; 0 with SMPF_MASKS */
  uint32_t min_candidates; /* for CANDIDATES */
  int32_t device_type;     /* for LOGITS_DEV: SLUICE_DEV_* whose handles it understands; 0 = none */
  uint32_t reserved;
  /* [init] errors: INVALID_ARGUMENT (says which option), UNSUPPORTED (not for this model). */
  int32_t (*create)(const sluice_host_api *, const sluice_config *, const struct sluice_model_info *,
                    sluice_sampler **out, sluice_status *);
  void (*destroy)(sluice_sampler *); /* [init] */
  /* [io] or NULL. Checks what a request set; may compile it and keep that for seq_open, within the request's deadline.
   * errors: INVALID_ARGUMENT (400, says which field), TIMEOUT. */
  int32_t (*validate)(const sluice_sampler *, const sluice_config *request, sluice_status *);
  /* [engine] Both may allocate. errors: RESOURCE_EXHAUSTED, NOT_FOUND (validate had compiled something, now gone). */
  int32_t (*seq_open)(sluice_sampler *, const sluice_seq_start *, sluice_sampler_seq **out, sluice_status *);
  int32_t (*seq_fork)(sluice_sampler *, const sluice_sampler_seq *, sluice_sampler_seq **out, sluice_status *);
  void (*seq_close)(sluice_sampler *, sluice_sampler_seq *); /* [engine] */
  /* [engine] or NULL. In the order of the chain: adds stages behind those already listed and sets their parameters,
   * touching nothing else. errors: UNSUPPORTED (from here on the chain runs on the host). */
  int32_t (*lower)(const sluice_sampler *, const sluice_sampler_seq *, const sluice_sample_caps *, sluice_sample_spec *,
                   sluice_status *);
  /* [engine] or NULL. Logit bias in pairs. *n: room, then count. errors: RESOURCE_EXHAUSTED. */
  int32_t (*bias)(const sluice_sampler *, const sluice_sampler_seq *, int32_t *token, float *value, uint32_t *n,
                  sluice_status *);
  /* [engine] or NULL. Before the forward. Masks for the root, then for n_nodes draft nodes (parent -1 = root), each of
   * mask_n_words words, preset to ones: AND into them. dead[i] = 1: node i's own token is forbidden and its subtree
   * will not be sent. A finished grammar leaves the stop tokens. errors: any */
  int32_t (*fill_masks)(const sluice_sampler *, const sluice_sampler_seq *, uint32_t n_nodes, const int32_t *token,
                        const int32_t *parent, uint32_t *masks, uint32_t mask_n_words, uint8_t *dead, sluice_status *);
  /* [engine] NULL iff SMPF_MASKS. Changes no sequence. errors: INVALID_ARGUMENT (a row is -inf throughout), UNSUPPORTED
   * (the form), any (requests of these rows fail). */
  int32_t (*apply)(const sluice_sampler *, const sluice_sample_batch *, sluice_sample_out *, sluice_status *);
  /* [engine] Final tokens of n_seqs sequences in CSR form; logprob as sampled, NaN = unknown. errors: any */
  int32_t (*commit)(sluice_sampler *, sluice_sampler_seq *const *seq, const uint32_t *tok_indptr, const int32_t *tok,
                    const float *logprob, uint32_t n_seqs, sluice_status *);
  /* [engine] or NULL. HOT options have changed. errors: INVALID_ARGUMENT (nothing changed). */
  int32_t (*reconfigure)(sluice_sampler *, const sluice_config *, sluice_status *);
} sluice_sampler_vtbl;

SLUICE_C_END
#endif

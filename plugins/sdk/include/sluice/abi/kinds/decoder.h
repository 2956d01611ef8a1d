/* sluice/abi/kinds/decoder.h - more than one token per step: n-gram, draft model, Medusa; branching; or just plain.
 *
 * A decoder only proposes. The host verifies, moves KV, runs the draft model and keeps its cache level with the target:
 * the draft model uses the target's block ids, is fed what it lacks before round 0, and simply overwrites rejected
 * slots. Where the host has no heads for a root (after a swap-in, say) the budget is 0, and nothing may be added.
 */
#ifndef SLUICE_ABI_KINDS_DECODER_H
#define SLUICE_ABI_KINDS_DECODER_H
#include <sluice/abi/draft.h>
#include <sluice/abi/host.h>
SLUICE_C_BEGIN

struct sluice_model_info; /* kinds/backend.h */

#define SLUICE_PROPOSE_DETERMINISTIC 1u /* chosen in any way */
#define SLUICE_PROPOSE_SAMPLED 2u       /* siblings drawn from q without replacement, as the host's draws are */
#define SLUICE_PROPOSE_SAMPLED_IID 4u   /* siblings drawn from q independently; excludes SAMPLED */

#define SLUICE_VERIFY_DEFAULT 0 /* match; rejection if the request allows it and nodes are SAMPLED */
#define SLUICE_VERIFY_TYPICAL 1 /* LOSSY: keeps x with p(x) > min(epsilon, alpha * exp(-entropy)) */

#define SLUICE_DECF_PINNED 1u /* the host does not adapt how much is drafted to what it brings */

/* Asked once after create. If the target lacks something, the configuration is refused and the lack named. */
typedef struct sluice_decoder_needs {
  uint32_t struct_size;
  uint32_t proposals;            /* SLUICE_PROPOSE_* set; 0 = plain */
  uint32_t max_nodes, max_depth; /* per sequence, to the target; 0 = no drafts */
  uint32_t max_fed;              /* per sequence, FEED nodes of all rounds */
  uint32_t max_rounds;           /* draft() calls after the first; the host may allow fewer */
  uint32_t max_branches;         /* above 1: branch() is called and max_nodes is 0. A request may use fewer */
  uint32_t n_top;                /* candidates wanted per fed node, or per row for branch() */
  uint32_t draws;                /* drawn tokens wanted per fed node; draft.h */
  uint32_t logprobs_kind;        /* for branch(): SLUICE_LOGPROBS_* */
  uint32_t verify;               /* SLUICE_VERIFY_* */
  float typical_epsilon, typical_alpha;
  uint32_t n_heads;        /* draft heads of the target that it uses */
  const char *draft_model; /* a [models.X] by name, or NULL; BORROWED-UNTIL destroy */
  uint64_t caps;           /* SLUICE_CAP_* that the target's backend must have */
  uint32_t flags;          /* SLUICE_DECF_* */
  uint32_t reserved;
} sluice_decoder_needs;

typedef struct sluice_decoder_setup {
  uint32_t struct_size;
  uint32_t max_seqs;                      /* of one step */
  const struct sluice_model_info *target; /* for the call */
} sluice_decoder_setup;

typedef struct sluice_decoder_vtbl {
  uint32_t struct_size;
  uint32_t reserved;
  /* [init] errors: INVALID_ARGUMENT (says which option), NOT_FOUND (a file), UNSUPPORTED (not for this target). */
  int32_t (*create)(const sluice_host_api *, const sluice_config *, const sluice_decoder_setup *, sluice_decoder **out,
                    sluice_status *);
  void (*destroy)(sluice_decoder *);                                                    /* [init] */
  int32_t (*needs)(const sluice_decoder *, sluice_decoder_needs *out, sluice_status *); /* [init] errors: any */
  /* [io] or NULL. Checks what a request set. errors: INVALID_ARGUMENT (400, says which field). */
  int32_t (*validate)(const sluice_decoder *, const sluice_config *request, sluice_status *);
  /* [engine] Both may allocate. errors: RESOURCE_EXHAUSTED. */
  int32_t (*seq_open)(sluice_decoder *, const sluice_seq_start *, sluice_decoder_seq **out, sluice_status *);
  int32_t (*seq_fork)(sluice_decoder *, const sluice_decoder_seq *, sluice_decoder_seq **out, sluice_status *);
  void (*seq_close)(sluice_decoder *, sluice_decoder_seq *); /* [engine] */
  /* [engine] NULL = plain. What exceeds the budget is trimmed by score. A step may be lost, so nothing that decides
   * later drafts may change here; commit() is for that. errors: any (this step has no drafts). */
  int32_t (*draft)(sluice_decoder *, const sluice_draft_in *, sluice_draft_tree *, sluice_status *);
  /* [engine] For needs with max_branches above 1, and then required. errors: any (its requests fail),
   * RESOURCE_EXHAUSTED (the output arrays are too small). */
  int32_t (*branch)(sluice_decoder *, const sluice_branch_in *, sluice_branch_out *, sluice_status *);
  /* [engine] Once per step, when tokens are final and forks are made. errors: any */
  int32_t (*commit)(sluice_decoder *, const sluice_decoder_commit *, sluice_status *);
  /* [engine] or NULL. HOT options have changed. errors: INVALID_ARGUMENT (nothing changed). */
  int32_t (*reconfigure)(sluice_decoder *, const sluice_config *, sluice_status *);
  /* [engine] or NULL. Draft tokens that it would like for this sequence; schedulers see it as draft_wish. */
  uint32_t (*wish)(const sluice_decoder *, const sluice_decoder_seq *);
} sluice_decoder_vtbl;

SLUICE_C_END
#endif

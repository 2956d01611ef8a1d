/* sluice/abi/draft.h - draft trees, their outcome, and branching, as data; the calls are in kinds/decoder.h.
 *
 * Verifying is the host's: one target step over the tree, then a walk from the root in which the samplers of the
 * request judge every node.
 *   match      the default. Draw at each node as if there were no drafts, follow the child that equals the token, stop
 *              where none does. Any sampler, any drafts: exactly the tokens of plain decoding with that seed.
 *   rejection  on request, unseeded only, at SAMPLED nodes: a child is accepted with probability min(1, p / q), and
 *              after the last one refused the residual is drawn from. Plain decoding's distribution, other tokens.
 *   typical    Medusa's rule. LOSSY, and called so wherever it is named.
 * So a node is DETERMINISTIC (q = -1) or SAMPLED from a known row (q >= 0).
 */
#ifndef SLUICE_ABI_DRAFT_H
#define SLUICE_ABI_DRAFT_H
#include <sluice/abi/base.h>
SLUICE_C_BEGIN

/* All sequences of a step in one draft() call. The root is the last committed token, not a node; its row gives the
 * token after it, and the row of node n the one after n. ROUNDS: the host runs nodes flagged FEED through the draft
 * model, all in one batch, and calls again with what came out, until nothing is fed or max_rounds is reached; with a
 * draft model the root itself has been fed before round 0. Of each fed node's distribution the host draws `draws`
 * distinct tokens by Gumbel top-k. Match takes the target's DRAW noise for that and needs no q row; rejection takes
 * DRAFT noise and keeps one. A decoder copies fed_token and fed_q and need not know which. */
typedef struct sluice_draft_in {
  uint32_t struct_size;
  uint32_t round; /* from 0 */
  uint32_t n_seqs;
  uint32_t n_fed;                 /* outcomes of the round before */
  sluice_decoder_seq *const *seq; /* [n_seqs] */
  const uint32_t *budget;         /* [n_seqs] nodes that may go to the target; 0 = draft nothing */
  const int32_t *root_token;      /* [n_seqs] */
  const uint32_t *root_position;  /* [n_seqs] absolute */
  /* draft model */
  const int32_t *fed_node;    /* [n_fed] node index, or -1-i = root of sequence i */
  const int32_t *fed_token;   /* [n_fed, draws] in the order drawn, then -1 */
  const int32_t *fed_q;       /* [n_fed] q row held by the host, or -1 */
  const int32_t *fed_top_ids; /* [n_fed, n_top] the draft model's best, then -1 */
  const float *fed_top_logprobs;
  /* draft heads at the row that chose the root: head i guesses i + 1 tokens past it */
  const int32_t *head_ids; /* [n_seqs, n_heads, head_top] best first; -1 = unknown, as after a swap-in */
  const float *head_logprobs;
  uint32_t draws, n_top, n_heads, head_top;
} sluice_draft_in;

#define SLUICE_NODE_FEED 1u /* run the draft model here and call again */

#define SLUICE_Q_HOST 0   /* q columns are fed_q rows */
#define SLUICE_Q_SPARSE 1 /* q columns are rows of q_indptr, q_id, q_prob */

/* Grows from round to round. Parents come before children; depth d lies at root position + d. Children of one parent
 * share their q and stand in the order in which they are tried: for SAMPLED the order drawn. */
typedef struct sluice_draft_tree { /* the host owns the arrays */
  uint32_t struct_size;
  uint32_t capacity, n; /* n: nodes so far. Of old nodes only `flags` may change */
  uint32_t q_form;      /* SLUICE_Q_* */
  uint32_t *seq;        /* [n] index into in->seq */
  int32_t *token;       /* [n] id in the target's vocabulary */
  int32_t *parent;      /* [n] node, or -1 = root */
  uint32_t *flags;      /* [n] SLUICE_NODE_* */
  int32_t *q;           /* [n] -1 = DETERMINISTIC, else the row it was drawn from */
  float *score;         /* [n] the host trims the smallest first, leaves before parents */
  uint32_t q_capacity, n_q; /* SPARSE: room in q_id, rows so far */
  uint32_t *q_indptr;       /* SPARSE: [n_q + 1] */
  int32_t *q_id;            /* SPARSE: ids not listed have probability 0 */
  float *q_prob;            /* SPARSE: each row sums to 1 and is exactly what was drawn from */
} sluice_draft_tree;

/* The outcome of a step. */
typedef struct sluice_decoder_commit {
  uint32_t struct_size;
  uint32_t n_seqs;
  sluice_decoder_seq *const *seq; /* [n_seqs] */
  const uint32_t *tok_indptr;     /* [n_seqs + 1] */
  const int32_t *tok;             /* tokens appended, with the stop token */
  const uint32_t *n_drafted;      /* [n_seqs] nodes verified */
  const uint32_t *n_accepted;     /* [n_seqs] */
  uint32_t n_nodes, reserved;
  const uint8_t *node_accepted; /* [n_nodes] of this step's tree */
  uint64_t step_ns;             /* device time of the verifying step */
  uint64_t plain_ns;            /* the same step without drafts, by the cost model */
  uint64_t draft_ns;            /* device time of the fed rounds */
} sluice_decoder_commit;

/* Beam search: the decoder ranks; the host forks, prunes and keeps finished answers. A branch has one row. */
typedef struct sluice_branch_in {
  uint32_t struct_size;
  uint32_t n_groups, n_branches, n_top;
  const uint32_t *group_indptr;   /* [n_groups + 1] branches of each request, in the order last returned */
  sluice_decoder_seq *const *seq; /* [n_branches] */
  const int32_t *top_ids;         /* [n_branches, n_top] best first, then -1 */
  const float *top_logprobs;      /* [n_branches, n_top] of the kind that needs.logprobs_kind chose */
  const uint32_t *generated;      /* [n_branches] output tokens so far */
} sluice_branch_in;
#define SLUICE_BRANCH_GROW 1   /* continue with this token; several from one branch fork it, none prunes it */
#define SLUICE_BRANCH_FINISH 2 /* a finished answer that ends in this token (-1: as it is) */
typedef struct sluice_branch_out { /* the host owns the arrays */
  uint32_t struct_size;
  uint32_t capacity, n;
  uint32_t reserved;
  uint32_t *from; /* [n] branch; groups in order, best first within each */
  int32_t *token;
  float *score;
  uint8_t *what;       /* SLUICE_BRANCH_* */
  uint8_t *group_done; /* [n_groups] 1 = answer now with the finished answers of the best score */
} sluice_branch_out;

SLUICE_C_END
#endif

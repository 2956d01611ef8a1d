/* sluice/abi/sampling.h - from a row of logits to a token, described as data.
 *
 * A row holds the logits after one token. One sequence may have many rows in a step (draft trees, beams), so nothing
 * here is "per request". Samplers `lower` what can be said in a sluice_sample_spec and the backend does it on the
 * device; the rest of the chain works on the cheapest form of the row that all of it accepts.
 */
#ifndef SLUICE_ABI_SAMPLING_H
#define SLUICE_ABI_SAMPLING_H
#include <sluice/abi/base.h>
SLUICE_C_BEGIN

/* What is wanted of a row, as a set; LOGITS_DEV and LOGITS_HOST exclude each other. In brackets the bytes that cross
 * the bus for a vocabulary of 128k. */
#define SLUICE_ROW_TOKEN 1u       /* [4] the drawn id, with logprobs if the spec asks */
#define SLUICE_ROW_CANDIDATES 2u  /* [2 K] the best ids with logits after the stages, and logsumexp */
#define SLUICE_ROW_LOGITS_DEV 4u  /* [0] a view of the row where it is */
#define SLUICE_ROW_LOGITS_HOST 8u /* [512 K] the row after the stages as f32; the last resort */
#define SLUICE_ROW_HEADS 16u      /* what the draft heads (Medusa) propose at this row */

/* Stages run in the order listed in the spec; what is not listed does not run. l: logit; p: softmax of the row as it
 * stands then. "Best" is by logit, the lower id first among equals. */
#define SLUICE_STAGE_MASK 1        /* l = -inf for ids whose bit in the row's mask is 0 */
#define SLUICE_STAGE_BIAS 2        /* l += the row's bias pairs */
#define SLUICE_STAGE_REPETITION 3  /* each distinct token in scope, once: l = l > 0 ? l / r : l * r */
#define SLUICE_STAGE_FREQUENCY 4   /* l -= f * (times in scope) */
#define SLUICE_STAGE_PRESENCE 5    /* l -= s if in scope */
#define SLUICE_STAGE_TEMPERATURE 6 /* l /= t; t = 0 keeps only the best */
#define SLUICE_STAGE_TOP_K 7       /* keeps the k best; with SPF_TOP_K_TIES also all equal to the k-th */
#define SLUICE_STAGE_TOP_P 8       /* keeps the fewest best whose p sum to top_p, at least one */
#define SLUICE_STAGE_MIN_P 9       /* keeps p >= min_p * (largest p) */
/* 10 and above are never lowered in v0; the numbers serve rng streams and messages */
#define SLUICE_STAGE_TYPICAL 10
#define SLUICE_STAGE_TOP_N_SIGMA 11
#define SLUICE_STAGE_XTC 12
#define SLUICE_STAGE_DRY 13
#define SLUICE_STAGE_MIROSTAT 14
#define SLUICE_STAGE_DYNAMIC_TEMPERATURE 15
#define SLUICE_MAX_STAGES 16
#define SLUICE_STAGE_BIT(s) (1ull << (s))

#define SLUICE_LOGPROBS_RAW 0       /* log-softmax of what the model gave */
#define SLUICE_LOGPROBS_PROCESSED 1 /* log-softmax after the last stage */
#define SLUICE_LOGITS_RAW 2
#define SLUICE_LOGITS_PROCESSED 3

#define SLUICE_SPF_LOGPROB 1u /* return the logprob of the drawn token */
#define SLUICE_SPF_TOP_K_TIES 2u

/* Penalties in the set count prompt and output, the others output only. */
#define SLUICE_SCOPE_REPETITION 1u
#define SLUICE_SCOPE_FREQUENCY 2u
#define SLUICE_SCOPE_PRESENCE 4u

typedef struct sluice_sample_spec {
  uint32_t struct_size;
  uint32_t flags; /* SLUICE_SPF_* */
  uint32_t n_stages;
  uint8_t stage[SLUICE_MAX_STAGES]; /* [n_stages] SLUICE_STAGE_* */
  float temperature;
  int32_t top_k; /* <= 0 keeps all */
  float top_p, min_p;
  float repetition, frequency, presence;
  uint32_t penalty_prompt; /* SLUICE_SCOPE_* set */
  uint32_t penalty_last_n; /* look at the last n tokens of the scope only; 0 = at all */
  uint32_t n_logprobs;     /* return the n best as well */
  uint32_t logprobs_kind;  /* SLUICE_LOGPROBS_*, SLUICE_LOGITS_* */
} sluice_sample_spec;

#define SLUICE_SCF_ANY_ORDER 1u      /* stages in any order; without it only in ascending numbers */
#define SLUICE_SCF_TOP_K_TIES 2u
#define SLUICE_SCF_CANONICAL_DRAW 4u /* draws as rng.h says. Without it the host draws wherever a seed or the check of
                                        a draft asks for THE DRAW */

/* What a backend can do with a row; constant per model. */
typedef struct sluice_sample_caps {
  uint32_t struct_size;
  uint32_t flags;     /* SLUICE_SCF_* */
  uint64_t stages;    /* SLUICE_STAGE_BIT set; 0 = no sampling there */
  uint32_t forms;     /* SLUICE_ROW_* that submit accepts, always LOGITS_HOST */
  uint32_t max_top_k; /* 0 = any */
  uint32_t max_logprobs, max_candidates;
  uint64_t logprobs_kinds; /* bit 1 << SLUICE_LOGPROBS_* or SLUICE_LOGITS_* */
} sluice_sample_caps;

SLUICE_C_END
#endif

/* sluice/abi/sched.h - what a scheduling policy reads and writes, as data; its calls are in kinds/scheduler.h.
 *
 *   table   columns of facts by ref, updated in place: a step copies nothing, however long the queue is
 *   events  what happened since the last plan: enough for a policy with queues of its own
 *   view    who holds KV (all), who waits (the first few), and the limits of this step: enough for a simple one
 * Step n+1 is planned while step n runs; `in_flight` and `pending` take that into account.
 */
#ifndef SLUICE_ABI_SCHED_H
#define SLUICE_ABI_SCHED_H
#include <sluice/abi/base.h>
SLUICE_C_BEGIN

#define SLUICE_SEQ_WAITING 1    /* no KV: new, or its KV was dropped */
#define SLUICE_SEQ_RESIDENT 2   /* KV on the device; left out of a plan it pauses */
#define SLUICE_SEQ_SWAPPED 3    /* KV on the host; needs SWAP_IN */
#define SLUICE_SEQ_MOVING_OUT 4 /* until SWAPPED_OUT */
#define SLUICE_SEQ_MOVING_IN 5  /* until SWAPPED_IN */
#define SLUICE_SEQ_BLOCKED 6    /* waits for something that is not a seat, such as a grammar */

#define SLUICE_SEQF_NO_PREEMPT 1u  /* take nothing from it */
#define SLUICE_SEQF_RESUMED 2u     /* lost its KV and has not run since */
#define SLUICE_SEQF_BEST_EFFORT 4u /* REJECT is allowed under load */

/* Columns of `capacity` entries, BORROWED-UNTIL destroy. Times are host nanoseconds, lengths tokens, memory blocks of
 * the scarcest KV group with draft models counted in. 0 = none or unknown where nothing else is said. */
typedef struct sluice_sched_table {
  uint32_t struct_size;
  uint32_t capacity;
  /* fixed at ARRIVE, changed only together with CHANGED */
  const sluice_seq_id *seq;
  const uint64_t *request_id; /* answers to one request share it, and a prefix */
  const uint64_t *arrival_ns;
  const uint64_t *ttft_deadline_ns; /* absolute: first token */
  const uint64_t *deadline_ns;      /* absolute: last token; then the host cancels */
  const uint64_t *tpot_ns;          /* desired time per output token */
  const int32_t *priority;          /* the SMALLER goes first */
  const uint32_t *client;           /* dense id of a key or tenant */
  const float *client_weight;       /* 1 = normal share */
  const uint32_t *prompt_len, *max_new;
  const uint32_t *predicted_len; /* output tokens, if anybody knows */
  const uint8_t *predicted_conf; /* 0 = no prediction, else 1..255 */
  const uint32_t *flags;         /* SLUICE_SEQF_* */
  /* current */
  const uint8_t *state;      /* SLUICE_SEQ_* */
  const uint32_t *computed;  /* tokens with valid KV */
  const uint32_t *generated; /* committed output tokens */
  const uint32_t *in_flight; /* tokens submitted, not yet committed */
  const uint32_t *pending;   /* tokens it could take in the step being planned: the rest of the prompt (or of what is to
                                be recomputed), or `width` when it decodes; 0 = nothing now */
  const uint32_t *width;     /* live branches; above 1 only in beam search */
  const uint64_t *state_since_ns, *last_run_ns, *first_token_ns;
  const uint64_t *service_ns; /* device time of all steps it was in */
  const uint32_t *n_preempt;  /* how often it lost or swapped its KV */
  const uint32_t *n_skipped;  /* steps without it since it last ran */
  const uint32_t *device_blocks, *host_blocks;
  const uint32_t *exclusive_blocks; /* device blocks that nobody else references: what preempting it frees */
  const uint32_t *draft_wish;       /* draft tokens its decoder asks for */
  const uint8_t *draft_accept;      /* recent acceptance, 255 = all */
  /* written by probe_prefix, valid for step probed_step */
  const uint32_t *cached_device, *cached_host; /* prompt tokens found in each tier of the prefix cache */
  const uint64_t *first_miss_hash;             /* first block not found; equal values are about to compute the same */
  const uint64_t *probed_step;
} sluice_sched_table;

typedef struct sluice_sched_view {
  uint32_t struct_size;
  uint32_t flags; /* none defined yet */
  uint64_t now_ns, step_no;
  /* refs by arrival */
  const sluice_seq_ref *resident, *swapped, *moving; /* complete lists */
  const sluice_seq_ref *waiting;                     /* the first n_waiting that could run */
  uint32_t n_resident, n_swapped, n_moving, n_waiting;
  uint32_t n_waiting_total, n_blocked;
  uint64_t waiting_tokens; /* pending, summed over all who wait */
  /* limits of this step */
  uint32_t token_budget, max_seqs, max_prefills, block_size;
  /* usable blocks: free + evictable. Admission should leave `watermark` of them */
  uint32_t device_total, device_free, device_evictable, watermark, host_total, host_free;
  uint64_t bytes_per_block;
  uint64_t swap_in_bytes, swap_out_bytes;           /* under way */
  double swap_in_bytes_per_s, swap_out_bytes_per_s; /* as measured */
} sluice_sched_view;

/* In order of time. A ref comes back into use only after on_events has seen its FINISH or CANCEL. */
#define SLUICE_EV_ARRIVE 1      /* tokens = prompt_len. A new policy hears it of everybody alive */
#define SLUICE_EV_CHANGED 2     /* priority, deadline, weight, prediction or flags */
#define SLUICE_EV_COMMIT 3      /* a step's outcome: computed, tokens, device_ns */
#define SLUICE_EV_FINISH 4      /* tokens = output length */
#define SLUICE_EV_CANCEL 5      /* client gone, deadline, rejected, failed; tokens = output length */
#define SLUICE_EV_PREEMPTED 6   /* KV dropped, on whosever wish; computed = tokens lost */
#define SLUICE_EV_SWAPPED_OUT 7 /* done; device_ns = transfer time */
#define SLUICE_EV_SWAPPED_IN 8  /* done; device_ns = transfer time */
#define SLUICE_EV_TRIMMED 9     /* the last plan's act for it was not possible */
#define SLUICE_EV_UNBLOCKED 10
typedef struct sluice_sched_events {
  uint32_t struct_size;
  uint32_t n;
  const uint8_t *kind;       /* [n] SLUICE_EV_* */
  const sluice_seq_ref *ref; /* [n] */
  const uint32_t *computed;  /* [n] tokens whose KV became valid */
  const uint32_t *tokens;    /* [n] output tokens appended: 0 within a prefill, above 1 with accepted drafts */
  const uint64_t *device_ns; /* [n] of the whole step, not of this sequence's share */
} sluice_sched_events;

/* Acts take effect in order, each with the blocks that the ones before it left. */
#define SLUICE_ACT_RUN 1      /* WAITING, RESIDENT. tokens 1..pending; exactly `width` when it decodes */
#define SLUICE_ACT_PREEMPT 2  /* RESIDENT: drop KV, recompute later. Prefix blocks stay evictable, a token in flight
                                 still counts */
#define SLUICE_ACT_SWAP_OUT 3 /* RESIDENT: behind what is in flight. Its blocks serve later acts, those of the next plan
                                 if drafts are in flight */
#define SLUICE_ACT_SWAP_IN 4  /* SWAPPED: runs again after SWAPPED_IN, so ask ahead of need */
#define SLUICE_ACT_REJECT 5   /* WAITING and never run, or BEST_EFFORT: answered 503 at once */
typedef struct sluice_sched_plan { /* the host owns the arrays; the policy writes entries and counts */
  uint32_t struct_size;
  uint32_t capacity, n_acts; /* room for everybody in the view's lists and max_seqs more */
  uint32_t victim_capacity, n_victims;
  uint32_t reserved;
  uint8_t *op;             /* [n_acts] SLUICE_ACT_* */
  sluice_seq_ref *ref;     /* [n_acts] each ref once */
  uint32_t *tokens;        /* [n_acts] RUN: prompt tokens or width */
  uint32_t *drafts;        /* [n_acts] RUN: draft tokens allowed; they use up token_budget too */
  sluice_seq_ref *victims; /* [n_victims] who yields first if blocks run short */
  uint64_t wake_at_ns;     /* plan again by then. Required when the plan is empty though somebody could run */
} sluice_sched_plan;

SLUICE_C_END
#endif

/* sluice/abi/kinds/scheduler.h - composes steps: picks sequences and token counts, and those that must yield.
 *
 * A plan is a proposal. The host owns blocks and swaps, checks every plan, and runs a step first come, first served if
 * it is invalid (counted and logged): a bad policy costs speed, nothing else. One instance serves one model.
 */
#ifndef SLUICE_ABI_KINDS_SCHEDULER_H
#define SLUICE_ABI_KINDS_SCHEDULER_H
#include <sluice/abi/host.h>
#include <sluice/abi/sched.h>
SLUICE_C_BEGIN

/* [engine] From inside on_events and plan only. Look-ups, except for probe_prefix. */
typedef struct sluice_sched_host {
  uint32_t struct_size;
  uint32_t reserved;
  void *ctx;
  /* Device time that a step should take, fitted to steps measured. Tokens as they would be fed, drafts counted as
   * decode; context = cached tokens of all its sequences. */
  uint64_t (*step_time_ns)(void *ctx, uint32_t prefill_tokens, uint32_t decode_tokens, uint64_t context_tokens);
  uint64_t (*swap_time_ns)(void *ctx, uint32_t blocks, int32_t in); /* in: 1 = to the device, 0 = from it */
  uint64_t (*recompute_time_ns)(void *ctx, sluice_seq_ref);         /* price of dropping its KV now */
  /* Looks the ref up in the prefix cache and writes its columns. errors: UNAVAILABLE (no probe left in this step). */
  int32_t (*probe_prefix)(void *ctx, sluice_seq_ref);
} sluice_sched_host;

typedef struct sluice_sched_setup {
  uint32_t struct_size;
  uint32_t can_swap;               /* 1 = host space exists */
  uint32_t max_seqs, token_budget; /* largest values a view will hold */
  uint32_t waiting_window;         /* largest n_waiting */
  uint32_t probes_per_step;
  uint64_t seed;                   /* for policies that draw: rng.h with step_no as position */
  const sluice_sched_table *table; /* BORROWED-UNTIL destroy */
  const sluice_sched_host *host;   /* BORROWED-UNTIL destroy */
} sluice_sched_setup;

/* what a policy makes use of; hints for host and operator */
#define SLUICE_SCHEDF_USES_PROBE 1u
#define SLUICE_SCHEDF_USES_PREDICTION 2u
#define SLUICE_SCHEDF_USES_SWAP 4u
#define SLUICE_SCHEDF_PREEMPTIVE 8u

typedef struct sluice_scheduler_vtbl {
  uint32_t struct_size;
  uint32_t flags; /* SLUICE_SCHEDF_* */
  /* [init] Allocates all it will ever need; table capacity is known. errors: INVALID_ARGUMENT (says which option). */
  int32_t (*create)(const sluice_host_api *, const sluice_config *, const sluice_sched_setup *, sluice_scheduler **out,
                    sluice_status *);
  void (*destroy)(sluice_scheduler *); /* [init] */
  /* [engine] Before a plan, whenever there is at least one event. errors: any */
  int32_t (*on_events)(sluice_scheduler *, const sluice_sched_events *, sluice_status *);
  /* [engine] A function of the events and views so far. Aim: p99 200 us with 256 resident and 10,000 waiting; 2 ms is a
   * fault. errors: any */
  int32_t (*plan)(sluice_scheduler *, const sluice_sched_view *, sluice_sched_plan *, sluice_status *);
  /* [engine] or NULL. HOT options have changed. errors: INVALID_ARGUMENT (nothing changed). */
  int32_t (*reconfigure)(sluice_scheduler *, const sluice_config *, sluice_status *);
  /* [engine] or NULL. Tells an operator in one line why this one waits; returns the length. */
  uint32_t (*explain)(const sluice_scheduler *, sluice_seq_ref, char *buf, uint32_t cap);
  /* [engine] or NULL, both or neither. Whole state, for replays with the same build and table; dst NULL = only *len.
   * errors: RESOURCE_EXHAUSTED (cap), INVALID_ARGUMENT (not a state of ours). */
  int32_t (*save)(const sluice_scheduler *, void *dst, uint64_t cap, uint64_t *len, sluice_status *);
  int32_t (*load)(sluice_scheduler *, const void *src, uint64_t len, sluice_status *);
} sluice_scheduler_vtbl;

SLUICE_C_END
#endif

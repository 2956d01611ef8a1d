/* sluice/abi/kinds/backend.h - computes: models in device memory, steps over many sequences at once.
 *
 * Owns weights, graph, the bytes of the cache, streams. A life: enumerate, open, model_load, model_info, plan_memory,
 * kv_groups, configure, sample_caps, warmup, then (submit | kv_ops | wait | release)*, model_unload, close.
 */
#ifndef SLUICE_ABI_KINDS_BACKEND_H
#define SLUICE_ABI_KINDS_BACKEND_H
#include <sluice/abi/host.h>
#include <sluice/abi/step.h>
SLUICE_C_BEGIN

#define SLUICE_CAP_MIXED_BATCH (1ull << 0)      /* prefill and decode in one step; else the host separates them */
#define SLUICE_CAP_TREE (1ull << 1)             /* parent and tree_mask; else only chains are drafted */
#define SLUICE_CAP_MOVE_SLOTS (1ull << 2)       /* KV_MOVE_SLOTS; trees need it */
#define SLUICE_CAP_KV_HOST_SPACE (1ull << 3)    /* host blocks, KV_SWAP_* */
#define SLUICE_CAP_TOKEN_FEED (1ull << 5)       /* negative ids in step.tokens */
#define SLUICE_CAP_LOGITS_DEV (1ull << 6)       /* ROW_LOGITS_DEV and step.feed */
#define SLUICE_CAP_BATCH_INVARIANT (1ull << 11) /* can honour SETUP_BATCH_INVARIANT */

typedef struct sluice_device_info {
  uint32_t struct_size;
  int32_t device_type, device_id;
  uint32_t score;               /* 0 = not usable; the highest is the default device */
  uint64_t mem_total, mem_free; /* bytes */
  char name[128], uuid[40];
} sluice_device_info;

typedef struct sluice_backend_open {
  uint32_t struct_size;
  uint32_t n_devices;
  const int32_t *device_ids; /* [n_devices]; a model is spread over all of them */
  const sluice_config *config;
} sluice_backend_open;

typedef struct sluice_model_source {
  uint32_t struct_size;
  uint32_t n_attach;
  const char *path;          /* absolute; file or folder */
  const char *format_hint;   /* "gguf", "safetensors" or the backend's own; NULL = find out */
  const char *const *attach; /* [n_attach] files of draft heads that run with the model */
  const sluice_config *config;
  /* [init] or NULL. Bytes of a phase, from inside model_load; nonzero asks to stop. */
  int32_t (*progress)(void *ctx, const char *phase, uint64_t done, uint64_t total);
  void *progress_ctx;
} sluice_model_source;

typedef struct sluice_model_info {
  uint32_t struct_size;
  uint32_t vocab_size, hidden_size, n_layers, max_context;
  uint32_t kv_mode, n_kv_groups;     /* SLUICE_KV_MODE_* */
  uint32_t kv_dtypes;                /* SLUICE_DT_BIT set of what configure takes */
  uint32_t max_tree_nodes, max_seqs; /* limits of the backend; 0 = none */
  uint32_t n_heads, head_top;        /* attached draft heads; candidates of each */
  uint32_t kv_capacity_tokens;       /* SEQ mode: cells that all sequences share */
  uint32_t reserved;
  uint64_t caps;          /* SLUICE_CAP_* */
  uint64_t weights_bytes; /* resident */
  char arch[64];
} sluice_model_info;

#define SLUICE_SETUP_BATCH_INVARIANT 1u /* logits of a row independent of its company and of chunking */

/* The largest step there will ever be. Everything is sized by it, so submit does not allocate. */
typedef struct sluice_model_setup {
  uint32_t struct_size;
  uint32_t flags; /* SLUICE_SETUP_* */
  uint32_t max_tokens_per_step, max_seqs_per_step, max_rows_per_step, max_tree_nodes, max_context;
  uint32_t kv_dtype, block_size; /* SLUICE_DT_*, tokens; 0 = as the backend likes */
  uint32_t max_candidates, max_logprobs;
} sluice_model_setup;

typedef struct sluice_memory_plan { /* bytes over all devices */
  uint32_t struct_size;
  uint32_t block_size;           /* tokens, as settled */
  uint64_t workspace_bytes;      /* besides weights and KV */
  uint64_t kv_bytes_available;   /* what remains for KV, were it configured now */
  uint64_t host_bytes_available; /* the same for swap space */
} sluice_memory_plan;

typedef struct sluice_backend_vtbl {
  uint32_t struct_size;
  uint32_t reserved;
  /* [init] *n: room, then how many devices there are. errors: UNSUPPORTED (no driver). */
  int32_t (*enumerate)(const sluice_host_api *, const sluice_config *, sluice_device_info *out, uint32_t stride,
                       uint32_t *n, sluice_status *);
  /* [init] errors: NOT_FOUND (device), UNSUPPORTED, RESOURCE_EXHAUSTED. */
  int32_t (*open)(const sluice_host_api *, const sluice_backend_open *, sluice_backend **out, sluice_status *);
  void (*close)(sluice_backend *); /* [init] after it no thread of the plugin is left and no callback comes */
  /* [init] errors: NOT_FOUND, CANCELLED (by progress), INVALID_ARGUMENT (with the tensor or key), UNSUPPORTED (with
   * the op and the format), RESOURCE_EXHAUSTED (with a size that would fit). */
  int32_t (*model_load)(sluice_backend *, const sluice_model_source *, sluice_model **out, sluice_status *);
  void (*model_unload)(sluice_model *);                                                 /* [init] */
  int32_t (*model_info)(const sluice_model *, sluice_model_info *out, sluice_status *); /* [init] errors: any */
  /* [init] The price of a setup; allocates nothing. errors: UNSUPPORTED (kv_dtype, block_size, flag),
   * RESOURCE_EXHAUSTED (not even the workspace fits; says what would). */
  int32_t (*plan_memory)(const sluice_model *, const sluice_model_setup *, sluice_memory_plan *out, sluice_status *);
  /* [init] Fills n_kv_groups groups. errors: as plan_memory. */
  int32_t (*kv_groups)(const sluice_model *, const sluice_model_setup *, sluice_kv_group *out, uint32_t stride,
                       sluice_status *);
  /* [init] Allocates; block counts per group, host_blocks NULL = no swap. May be repeated when nothing is in flight.
   * errors: as plan_memory. */
  int32_t (*configure)(sluice_model *, const sluice_model_setup *, const uint32_t *device_blocks,
                       const uint32_t *host_blocks, sluice_status *);
  int32_t (*sample_caps)(const sluice_model *, sluice_sample_caps *out, sluice_status *); /* [init] errors: any */
  /* [init] or NULL. Prepares for buckets of n_tokens[i] tokens and n_seqs[i] sequences at most. errors: any */
  int32_t (*warmup)(sluice_model *, const uint32_t *n_tokens, const uint32_t *n_seqs, uint32_t n, sluice_status *);

  /* [engine] One in-order queue per model: effects follow the order of calls, so the submit after a swap-out may write
   * to the freed block at once. Both return early and keep none of the pointers. errors: INVALID_ARGUMENT (nothing
   * was queued), UNSUPPORTED (flag, op, stage), RESOURCE_EXHAUSTED. */
  int32_t (*submit)(sluice_model *, const sluice_step *, sluice_ticket *out, sluice_status *);
  int32_t (*kv_ops)(sluice_model *, const sluice_kv_batch *, sluice_ticket *out, sluice_status *);
  /* [any] Waits up to timeout_ns, 0 = looks once. Reports what went wrong in a step. `out` is NULL for kv_ops.
   * errors: TIMEOUT, CANCELLED (closing), INTERNAL, DEVICE_LOST. */
  int32_t (*wait)(sluice_model *, sluice_ticket, uint64_t timeout_ns, sluice_step_result *out, sluice_status *);
  void (*release)(sluice_model *, sluice_ticket); /* [engine] once per submit: its result is not read any more */

  /* [engine] or NULL. A view's elements, row-major, to host memory. errors: RESOURCE_EXHAUSTED (dst is too small). */
  int32_t (*tensor_read)(sluice_model *, const sluice_tensor *, void *dst, uint64_t dst_bytes, sluice_status *);
  int32_t (*health)(sluice_backend *, sluice_status *); /* [any] cheap. errors: UNAVAILABLE, DEVICE_LOST */
} sluice_backend_vtbl;

SLUICE_C_END
#endif

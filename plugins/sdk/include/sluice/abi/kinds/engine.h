/* sluice/abi/kinds/engine.h - a whole foreign engine, or a remote server, driven request by request.
 *
 * It batches, caches and samples by itself, so its model has no backend, scheduler, sampler or decoder plugin, and a
 * configuration that names one is refused. Admission, deadlines, cancellation, stop strings and the API remain ours.
 */
#ifndef SLUICE_ABI_KINDS_ENGINE_H
#define SLUICE_ABI_KINDS_ENGINE_H
#include <sluice/abi/host.h>
#include <sluice/abi/sampling.h>
SLUICE_C_BEGIN

#define SLUICE_INPUT_TOKENS 1u /* ids in the vocabulary of vocab_path */
#define SLUICE_INPUT_TEXT 2u   /* the finished prompt, UTF-8 */
#define SLUICE_INPUT_CHAT 4u   /* OpenAI's `messages` as JSON; the engine has its own template */

typedef struct sluice_engine_info {
  uint32_t struct_size;
  uint32_t inputs;         /* SLUICE_INPUT_* set, not empty */
  uint32_t max_context;    /* tokens; 0 = unknown, it refuses by itself */
  uint32_t max_concurrent; /* requests in flight; 0 = any number */
  uint64_t stages;         /* SLUICE_STAGE_BIT set; a request that needs another is refused */
  uint32_t max_logprobs;
  uint32_t seeded; /* 1 = obeys `seed` */
  char arch[64];
  const char *vocab_path; /* file with the tokenizer for TOKENS, or NULL; BORROWED-UNTIL close */
} sluice_engine_info;

typedef struct sluice_engine_request {
  uint32_t struct_size;
  uint32_t input_kind; /* one SLUICE_INPUT_* */
  uint64_t request_id;
  const int32_t *prompt; /* TOKENS: [n_prompt] */
  uint32_t n_prompt, max_new;
  const char *text; /* TEXT, CHAT: [text_bytes] UTF-8 */
  uint64_t text_bytes;
  uint64_t seed, deadline_ns; /* on the host's clock; 0 = no deadline */
  const sluice_sample_spec *spec;
  const sluice_config *request; /* the PER_REQUEST options of this plugin */
} sluice_engine_request;

#define SLUICE_FINISH_NO 0
#define SLUICE_FINISH_STOP 1
#define SLUICE_FINISH_LENGTH 2
#define SLUICE_FINISH_CANCELLED 3
#define SLUICE_FINISH_ERROR 4

/* For host_api.engine_event. The last event of a request, and only that, has a finish. */
typedef struct sluice_engine_event {
  uint32_t struct_size;
  uint32_t n_tokens;
  uint64_t request_id;
  const int32_t *tokens; /* [n_tokens] new ids; NULL where text is given */
  const float *logprobs; /* [n_tokens] or NULL */
  const char *text;      /* [text_bytes] new UTF-8 in whole characters; NULL where tokens are given */
  uint64_t text_bytes;
  int32_t finish;      /* SLUICE_FINISH_* */
  int32_t code;        /* ERROR: SLUICE_E_* */
  const char *message; /* ERROR: the client reads it */
  uint32_t prompt_tokens, output_tokens, cached_tokens; /* with a finish: usage; 0 = unknown */
} sluice_engine_event;

typedef struct sluice_engine_vtbl {
  uint32_t struct_size;
  uint32_t reserved;
  /* [init] `model` is the path or URL from the configuration. errors: NOT_FOUND, UNSUPPORTED, UNAVAILABLE (try again
   * later; the model is not ready until then). */
  int32_t (*open)(const sluice_host_api *, const sluice_config *, const char *model, sluice_engine **out,
                  sluice_status *);
  void (*close)(sluice_engine *); /* [init] its threads have ended and no event follows; the host ends what is open */
  int32_t (*info)(const sluice_engine *, sluice_engine_info *out, sluice_status *); /* [init] errors: any */
  /* [any] Copies and returns. After an error no event comes. errors: INVALID_ARGUMENT and UNSUPPORTED (400),
   * RESOURCE_EXHAUSTED (429), UNAVAILABLE (503). */
  int32_t (*generate)(sluice_engine *, const sluice_engine_request *, sluice_status *);
  /* [any] Returns at once; a CANCELLED finish comes soon. errors: NOT_FOUND (has ended). */
  int32_t (*cancel)(sluice_engine *, uint64_t request_id, sluice_status *);
  int32_t (*health)(sluice_engine *, sluice_status *); /* [any] cheap. errors: UNAVAILABLE, DEVICE_LOST */
} sluice_engine_vtbl;

SLUICE_C_END
#endif

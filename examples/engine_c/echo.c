/* A whole engine of its own, request by request: it answers with the prompt, one token every `delay_ms`.
 *
 * It stands for an engine that batches, caches and samples by itself, or for a server elsewhere. What matters is the
 * shape: generate() copies and returns, one thread of the plugin's own delivers, cancel() only marks, close() joins.
 */
#define _POSIX_C_SOURCE 200809L
#include <sluice/abi/kinds/engine.h>
#include <sluice/abi/plugin.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct job {
  struct job *next;
  uint64_t request_id;
  uint32_t n, at, max_new;
  int cancelled;
  int32_t prompt[];
} job;

struct sluice_engine {
  const sluice_host_api *host;
  int64_t delay_ms;
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t arrived;
  job *jobs; /* under the mutex, as is `closing` */
  int closing;
};

static int32_t fail(sluice_status *st, int32_t code, const char *message) {
  if (SLUICE_HAS(st, sluice_status, msg)) {
    st->code = code, st->flags = 0, st->msg_len = (uint32_t)strlen(message);
    memcpy(st->msg, message, st->msg_len + 1);
  }
  return code;
}

/* Sends one event of a job and says whether that was its last. Called without the mutex: the host may take its time,
 * and may call cancel() meanwhile. */
static int deliver(sluice_engine *e, job *j, int cancelled) {
  sluice_engine_event ev;
  int32_t answer;
  memset(&ev, 0, sizeof ev);
  ev.struct_size = SLUICE_SIZE_THROUGH(sluice_engine_event, cached_tokens);
  ev.request_id = j->request_id;
  if (cancelled) {
    ev.finish = SLUICE_FINISH_CANCELLED;
  } else {
    ev.tokens = &j->prompt[j->at++];
    ev.n_tokens = 1;
    if (j->at == j->max_new) ev.finish = SLUICE_FINISH_LENGTH;
    if (j->at == j->n) ev.finish = SLUICE_FINISH_STOP;
  }
  if (ev.finish != SLUICE_FINISH_NO) ev.prompt_tokens = j->n, ev.output_tokens = j->at;
  answer = e->host->engine_event(e->host->host, &ev);
  return ev.finish != SLUICE_FINISH_NO || answer != SLUICE_OK; /* CANCELLED, NOT_FOUND: nobody waits for more */
}

/* Jobs are taken off the list by this thread alone, so a job stays valid while the mutex is not held. */
static void *work(void *argument) {
  sluice_engine *e = argument;
  pthread_mutex_lock(&e->mutex);
  while (!e->closing) {
    job **link = &e->jobs;
    struct timespec pause;
    if (e->jobs == NULL) {
      pthread_cond_wait(&e->arrived, &e->mutex);
      continue;
    }
    while (*link != NULL && !e->closing) {
      job *j = *link;
      const int cancelled = j->cancelled;
      int last;
      pthread_mutex_unlock(&e->mutex);
      last = deliver(e, j, cancelled);
      pthread_mutex_lock(&e->mutex);
      if (!last) {
        link = &j->next;
        continue;
      }
      while (*link != j) link = &(*link)->next; /* newer jobs may have been put in front */
      *link = j->next;
      free(j);
    }
    pause.tv_sec = e->delay_ms / 1000, pause.tv_nsec = e->delay_ms % 1000 * 1000000;
    pthread_mutex_unlock(&e->mutex);
    nanosleep(&pause, NULL);
    pthread_mutex_lock(&e->mutex);
  }
  pthread_mutex_unlock(&e->mutex);
  return NULL;
}

static int32_t engine_open(const sluice_host_api *host, const sluice_config *config, const char *model,
                           sluice_engine **out, sluice_status *st) {
  sluice_engine *e;
  (void)model;
  if (host == NULL || out == NULL) return fail(st, SLUICE_E_INVALID_ARGUMENT, "a required pointer is NULL");
  e = calloc(1, sizeof *e);
  if (e == NULL) return fail(st, SLUICE_E_RESOURCE_EXHAUSTED, "out of host memory");
  e->host = host;
  if (host->cfg_i64(config, "delay_ms", &e->delay_ms) != SLUICE_OK) e->delay_ms = 20;
  pthread_mutex_init(&e->mutex, NULL);
  pthread_cond_init(&e->arrived, NULL);
  if (pthread_create(&e->thread, NULL, work, e) != 0) {
    pthread_cond_destroy(&e->arrived);
    pthread_mutex_destroy(&e->mutex);
    free(e);
    return fail(st, SLUICE_E_RESOURCE_EXHAUSTED, "no thread could be started");
  }
  *out = e;
  return SLUICE_OK;
}

static void engine_close(sluice_engine *e) {
  if (e == NULL) return;
  pthread_mutex_lock(&e->mutex);
  e->closing = 1;
  pthread_cond_signal(&e->arrived);
  pthread_mutex_unlock(&e->mutex);
  pthread_join(e->thread, NULL);
  while (e->jobs != NULL) {
    job *next = e->jobs->next;
    free(e->jobs);
    e->jobs = next;
  }
  pthread_cond_destroy(&e->arrived);
  pthread_mutex_destroy(&e->mutex);
  free(e);
}

static int32_t engine_info(const sluice_engine *e, sluice_engine_info *out, sluice_status *st) {
  if (e == NULL || !SLUICE_HAS(out, sluice_engine_info, arch))
    return fail(st, SLUICE_E_INVALID_ARGUMENT, "no room for the info");
  out->inputs = SLUICE_INPUT_TOKENS;
  out->max_context = out->max_concurrent = 0;
  strcpy(out->arch, "echo");
  return SLUICE_OK;
}

static int32_t engine_generate(sluice_engine *e, const sluice_engine_request *r, sluice_status *st) {
  job *j;
  if (e == NULL || r == NULL) return fail(st, SLUICE_E_INVALID_ARGUMENT, "a required pointer is NULL");
  if (r->input_kind != SLUICE_INPUT_TOKENS) return fail(st, SLUICE_E_UNSUPPORTED, "echo takes tokens");
  if (r->n_prompt == 0 || r->max_new == 0) return fail(st, SLUICE_E_INVALID_ARGUMENT, "there is nothing to echo");
  j = malloc(sizeof *j + (size_t)r->n_prompt * sizeof j->prompt[0]);
  if (j == NULL) return fail(st, SLUICE_E_RESOURCE_EXHAUSTED, "out of host memory");
  j->request_id = r->request_id, j->n = r->n_prompt, j->at = 0, j->max_new = r->max_new, j->cancelled = 0;
  memcpy(j->prompt, r->prompt, (size_t)r->n_prompt * sizeof j->prompt[0]);
  pthread_mutex_lock(&e->mutex);
  j->next = e->jobs;
  e->jobs = j;
  pthread_cond_signal(&e->arrived);
  pthread_mutex_unlock(&e->mutex);
  return SLUICE_OK;
}

static int32_t engine_cancel(sluice_engine *e, uint64_t request_id, sluice_status *st) {
  job *j;
  if (e == NULL) return fail(st, SLUICE_E_INVALID_ARGUMENT, "a required pointer is NULL");
  pthread_mutex_lock(&e->mutex);
  for (j = e->jobs; j != NULL && j->request_id != request_id; j = j->next) {
  }
  if (j != NULL) j->cancelled = 1;
  pthread_mutex_unlock(&e->mutex);
  return j != NULL ? SLUICE_OK : fail(st, SLUICE_E_NOT_FOUND, "this request has ended");
}

static int32_t engine_health(sluice_engine *e, sluice_status *st) { return (void)e, (void)st, SLUICE_OK; }

static const sluice_config_field fields[] = {{SLUICE_SIZE_THROUGH(sluice_config_field, max), SLUICE_CFG_I64, 0,
                                              "delay_ms", "pause between two tokens, in ms", "20", NULL, 0, 1000}};
static const sluice_engine_vtbl table = {SLUICE_SIZE_THROUGH(sluice_engine_vtbl, health), 0, engine_open, engine_close,
                                         engine_info, engine_generate, engine_cancel, engine_health};
static const sluice_plugin_desc desc = {
    SLUICE_SIZE_THROUGH(sluice_plugin_desc, shutdown), SLUICE_ABI_MAJOR, SLUICE_ABI_MINOR, 0, 0, 0,
    SLUICE_KIND_ENGINE, "echo", "1.0.0", NULL, "Apache-2.0", NULL,
    fields, 1, sizeof fields[0], NULL, &table, NULL, NULL, NULL, NULL, NULL};

SLUICE_PLUGIN_META(SLUICE_KIND_ENGINE, "echo", "1.0.0", 0, "");

const sluice_plugin_desc *SLUICE_PLUGIN_ENTRY(const sluice_host_api *host, sluice_status *st) {
  if (host == NULL || host->abi_major != SLUICE_ABI_MAJOR || host->abi_floor > SLUICE_ABI_MINOR) {
    fail(st, SLUICE_E_ABI, "echo was built for another major version of the plugin ABI; rebuild it");
    return NULL;
  }
  return &desc;
}

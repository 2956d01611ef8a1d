/* The best token of every row, in C99 with nothing but the public headers: the smallest useful sampler.
 *
 * `banned_token` shows how a plugin publishes an option and reads it. There is no state per sequence, so
 * every sequence gets the same handle.
 */
#include <sluice/abi/kinds/sampler.h>
#include <sluice/abi/plugin.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sluice_sampler {
  int64_t banned_token; /* -1 = none */
};
struct sluice_sampler_seq {
  char unused;
};
static struct sluice_sampler_seq the_only_sequence;

static int32_t fail(sluice_status *st, int32_t code, const char *message) {
  if (SLUICE_HAS(st, sluice_status, msg)) {
    st->code = code, st->flags = 0, st->msg_len = (uint32_t)strlen(message);
    memcpy(st->msg, message, st->msg_len + 1);
  }
  return code;
}

static int32_t create(const sluice_host_api *host, const sluice_config *config, const struct sluice_model_info *model,
                      sluice_sampler **out, sluice_status *st) {
  sluice_sampler *s;
  (void)model;
  if (host == NULL || out == NULL) return fail(st, SLUICE_E_INVALID_ARGUMENT, "a required pointer is NULL");
  s = malloc(sizeof *s);
  if (s == NULL) return fail(st, SLUICE_E_RESOURCE_EXHAUSTED, "out of host memory");
  if (host->cfg_i64(config, "banned_token", &s->banned_token) != SLUICE_OK) s->banned_token = -1;
  *out = s;
  return SLUICE_OK;
}
static void destroy(sluice_sampler *s) { free(s); }

static int32_t seq_open(sluice_sampler *s, const sluice_seq_start *start, sluice_sampler_seq **out,
                        sluice_status *st) {
  (void)s, (void)start;
  if (out == NULL) return fail(st, SLUICE_E_INVALID_ARGUMENT, "a required pointer is NULL");
  *out = &the_only_sequence;
  return SLUICE_OK;
}
static int32_t seq_fork(sluice_sampler *s, const sluice_sampler_seq *from, sluice_sampler_seq **out,
                        sluice_status *st) {
  (void)from;
  return seq_open(s, NULL, out, st);
}
static void seq_close(sluice_sampler *s, sluice_sampler_seq *q) { (void)s, (void)q; }

/* Takes the larger logit, and of equal ones the lower id. -inf and NaN never win. */
static void offer(const sluice_sampler *s, float logit, int32_t id, float *best, int32_t *best_id) {
  if (!(logit > -INFINITY) || id == s->banned_token) return;
  if (*best_id >= 0 && (logit < *best || (logit == *best && id > *best_id))) return;
  *best = logit, *best_id = id;
}

/* Writes nothing but the tokens: a row without an allowed token stays -1, and the host fails that request alone. */
static int32_t apply(const sluice_sampler *s, const sluice_sample_batch *b, sluice_sample_out *out, sluice_status *st) {
  uint32_t r, i;
  if (s == NULL || b == NULL || out == NULL) return fail(st, SLUICE_E_INVALID_ARGUMENT, "a required pointer is NULL");
  if (b->form != SLUICE_ROW_LOGITS_HOST && b->form != SLUICE_ROW_CANDIDATES)
    return fail(st, SLUICE_E_UNSUPPORTED, "argmax takes host rows and candidates");
  for (r = 0; r < b->n_rows; ++r) {
    float best = -INFINITY;
    int32_t best_id = -1;
    if (b->form == SLUICE_ROW_LOGITS_HOST) {
      const float *row = b->logits_host + (size_t)r * b->vocab_size;
      for (i = 0; i < b->vocab_size; ++i) offer(s, row[i], (int32_t)i, &best, &best_id);
    } else {
      const size_t first = (size_t)r * b->n_candidates;
      for (i = 0; i < b->n_candidates && b->cand_ids[first + i] >= 0; ++i)
        offer(s, b->cand_logits[first + i], b->cand_ids[first + i], &best, &best_id);
    }
    out->token[r] = best_id;
  }
  return SLUICE_OK;
}

static int32_t commit(sluice_sampler *s, sluice_sampler_seq *const *seq, const uint32_t *tok_indptr, const int32_t *tok,
                      const float *logprob, uint32_t n_seqs, sluice_status *st) {
  (void)s, (void)seq, (void)tok_indptr, (void)tok, (void)logprob, (void)n_seqs, (void)st;
  return SLUICE_OK; /* what was chosen before does not matter to the next choice */
}

/* The range of `temperature` admits one value, so that a request for another is refused by name. */
static const sluice_config_field fields[] = {
    {SLUICE_SIZE_THROUGH(sluice_config_field, max), SLUICE_CFG_I64, 0, "banned_token",
     "id that is never chosen; -1 = none", "-1", NULL, -1, 2147483647.0},
    {SLUICE_SIZE_THROUGH(sluice_config_field, max), SLUICE_CFG_F64, SLUICE_CFGF_PER_REQUEST, "temperature",
     "0, the only value that argmax knows", "0", NULL, 0, 0}};

static const sluice_sampler_vtbl table = {
    SLUICE_SIZE_THROUGH(sluice_sampler_vtbl, reconfigure),
    0,                                                /* flags */
    SLUICE_ROW_LOGITS_HOST | SLUICE_ROW_CANDIDATES,   /* forms */
    2,                                                /* min_candidates: the best may be banned */
    0, 0,                                             /* device_type, reserved */
    create, destroy, NULL,                            /* validate */
    seq_open, seq_fork, seq_close, NULL, NULL, NULL,  /* lower, bias, fill_masks */
    apply, commit, NULL};                             /* reconfigure */

static const sluice_plugin_desc desc = {
    SLUICE_SIZE_THROUGH(sluice_plugin_desc, shutdown), SLUICE_ABI_MAJOR, SLUICE_ABI_MINOR, 0, 0, 0,
    SLUICE_KIND_SAMPLER, "argmax", "1.0.0", NULL, "Apache-2.0", NULL,
    fields, 2, sizeof fields[0], NULL, NULL, NULL, &table, NULL, NULL, NULL};

SLUICE_PLUGIN_META(SLUICE_KIND_SAMPLER, "argmax", "1.0.0", 0, "");

const sluice_plugin_desc *SLUICE_PLUGIN_ENTRY(const sluice_host_api *host, sluice_status *st) {
  if (host == NULL || host->abi_major != SLUICE_ABI_MAJOR || host->abi_floor > SLUICE_ABI_MINOR) {
    fail(st, SLUICE_E_ABI, "argmax was built for another major version of the plugin ABI; rebuild it");
    return NULL;
  }
  return &desc;
}

/* sluice/abi/host.h - services of the host, as a table that is valid until the process ends. An instance uses the table
 * that it was created with: its metrics and events are booked on that one. */
#ifndef SLUICE_ABI_HOST_H
#define SLUICE_ABI_HOST_H
#include <sluice/abi/status.h>
SLUICE_C_BEGIN

struct sluice_engine_event; /* kinds/engine.h */

#define SLUICE_LOG_TRACE 0
#define SLUICE_LOG_DEBUG 1
#define SLUICE_LOG_INFO 2
#define SLUICE_LOG_WARN 3
#define SLUICE_LOG_ERROR 4

#define SLUICE_METRIC_COUNTER 0
#define SLUICE_METRIC_GAUGE 1
#define SLUICE_METRIC_HISTOGRAM 2

typedef struct sluice_host_api {
  uint32_t struct_size;
  uint16_t abi_major, abi_minor, abi_floor, reserved;
  uint32_t reserved2;
  const char *host_version; /* semver */
  sluice_host *host;        /* goes first into the calls below */

  /* [any] One line of UTF-8 without a newline; level is SLUICE_LOG_*. */
  void (*log)(sluice_host *, int32_t level, const char *component, const char *msg, size_t len);
  /* [any] Monotonic nanoseconds, simulated ones in the simulator. Plugins read no other clock. */
  uint64_t (*now_ns)(sluice_host *);

  /* [any] Options. errors: NOT_FOUND (not set and without default). Strings are BORROWED-UNTIL the call that brought
   * the config returns. cfg_list: element i, NOT_FOUND past the last. cfg_raw: a TABLE option as TOML text. */
  int32_t (*cfg_bool)(const sluice_config *, const char *key, int32_t *out);
  int32_t (*cfg_i64)(const sluice_config *, const char *key, int64_t *out);
  int32_t (*cfg_f64)(const sluice_config *, const char *key, double *out);
  int32_t (*cfg_str)(const sluice_config *, const char *key, const char **out, size_t *len);
  int32_t (*cfg_list)(const sluice_config *, const char *key, uint32_t i, const char **out, size_t *len);
  int32_t (*cfg_raw)(const sluice_config *, const char *key, const char **toml, size_t *len);

  /* [init] Registers a metric of SLUICE_METRIC_*; labels for model and plugin are added by the host. Names are
   * [a-z0-9_]+ and end in their unit. errors: INVALID_ARGUMENT (the name exists with another kind). */
  int32_t (*metric)(sluice_host *, int32_t kind, const char *name, const char *help, uint64_t *id);
  /* [any] By kind: an amount to add, the value to set, one observation. Takes no lock. */
  void (*metric_update)(sluice_host *, uint64_t id, double value);

  /* [init] [engine] The process's one CPU pool. Calls fn(ctx, i, worker) for every i below n, worker below n_workers,
   * and returns after the last. A call from inside fn runs inline. fn cannot fail. */
  void (*parallel_for)(sluice_host *, uint32_t n, void (*fn)(void *ctx, uint32_t i, uint32_t worker), void *ctx);
  uint32_t (*n_workers)(sluice_host *); /* [any] never changes */

  /* [any] For the engine kind: delivers output from any thread; the event is copied. errors: CANCELLED (nobody wants
   * it any more, stop this request), NOT_FOUND (no such request, or it has ended). */
  int32_t (*engine_event)(sluice_host *, const struct sluice_engine_event *);

  /* [any] Services that are still on trial, by name ("sluice.trace") and version; NULL = not here. */
  const void *(*get_extension)(sluice_host *, const char *name, uint32_t version);
} sluice_host_api;

SLUICE_C_END
#endif

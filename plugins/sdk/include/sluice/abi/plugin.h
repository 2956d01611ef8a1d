/* sluice/abi/plugin.h - what a library says of itself, its one symbol, and a copy readable without loading it. */
#ifndef SLUICE_ABI_PLUGIN_H
#define SLUICE_ABI_PLUGIN_H
#include <sluice/abi/config.h>
#include <sluice/abi/host.h>
SLUICE_C_BEGIN

struct sluice_backend_vtbl; /* each defined in its header under kinds/ */
struct sluice_engine_vtbl;
struct sluice_scheduler_vtbl;
struct sluice_sampler_vtbl;
struct sluice_decoder_vtbl;

#define SLUICE_KIND_BACKEND 1ull
#define SLUICE_KIND_ENGINE 2ull
#define SLUICE_KIND_SCHEDULER 4ull
#define SLUICE_KIND_SAMPLER 8ull
#define SLUICE_KIND_DECODER 16ull

/* Static and immutable: libraries stay loaded until the process ends. */
typedef struct sluice_plugin_desc {
  uint32_t struct_size;
  uint16_t abi_major;       /* of the headers it was compiled with */
  uint16_t abi_minor_built; /* of the same headers: the fields it can know */
  uint16_t abi_minor_min;   /* the oldest host it can work with */
  uint16_t reserved;
  uint32_t reserved2;
  uint64_t kinds;            /* SLUICE_KIND_*, one at least, each with its table below */
  const char *name;          /* [a-z0-9_-]+, unique within a kind; what TOML calls it */
  const char *version;       /* semver */
  const char *vendor, *license, *url; /* or NULL */
  const sluice_config_field *fields;  /* [n_fields], field_stride bytes apart */
  uint32_t n_fields, field_stride;
  const struct sluice_backend_vtbl *backend;
  const struct sluice_engine_vtbl *engine;
  const struct sluice_scheduler_vtbl *scheduler;
  const struct sluice_sampler_vtbl *sampler;
  const struct sluice_decoder_vtbl *decoder;
  const void *(*get_extension)(const char *name, uint32_t version); /* [any] or NULL */
  void (*shutdown)(void); /* [init] at exit, when all instances are gone; or NULL */
} sluice_plugin_desc;

/* The exported function. [init] Runs on the main thread while it is the only one. NULL refuses; the operator reads
 * the status. errors: ABI, UNSUPPORTED (missing hardware or driver), INTERNAL. */
typedef const sluice_plugin_desc *(*sluice_plugin_entry_fn)(const sluice_host_api *, sluice_status *);
#define SLUICE_PLUGIN_ENTRY sluice_plugin_entry_v0
#define SLUICE_PLUGIN_ENTRY_NAME "sluice_plugin_entry_v0"
SLUICE_EXPORT const sluice_plugin_desc *SLUICE_PLUGIN_ENTRY(const sluice_host_api *, sluice_status *);

/* Stored in the ELF section .sluice_plugin. Listing plugins reads it from the file, so no foreign code runs. The
 * descriptor must say the same. */
typedef struct sluice_plugin_meta {
  char magic[8]; /* "SLUICEPM" */
  uint32_t size; /* sizeof(sluice_plugin_meta) */
  uint16_t abi_major, abi_minor_built, abi_minor_min, reserved;
  uint32_t reserved2;
  uint64_t kinds;
  char name[64];
  char version[32];
  char needs[64]; /* checked before loading: "cpu:avx512f,avx512_vnni", "cuda>=12.4", "" */
} sluice_plugin_meta;

#if defined(__has_attribute)
#if __has_attribute(retain)
#define SLUICE_RETAIN , retain
#endif
#endif
#ifndef SLUICE_RETAIN
#define SLUICE_RETAIN
#endif
/* Once per library, at file scope, with a semicolon behind it. */
#define SLUICE_PLUGIN_META(KINDS, NAME, VERSION, MINOR_MIN, NEEDS)                                              \
  __attribute__((section(".sluice_plugin"), used SLUICE_RETAIN, aligned(8))) static const sluice_plugin_meta    \
      sluice_plugin_meta_v0 = {{'S', 'L', 'U', 'I', 'C', 'E', 'P', 'M'}, (uint32_t)sizeof(sluice_plugin_meta),  \
                               SLUICE_ABI_MAJOR, SLUICE_ABI_MINOR, (MINOR_MIN), 0, 0, (KINDS), NAME, VERSION,   \
                               NEEDS}

SLUICE_C_END
#endif

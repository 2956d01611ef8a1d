/* sluice/abi/base.h - versions, the rules that every other header obeys, and handles.
 *
 * C99 with nothing but <stddef.h> and <stdint.h>. A plugin exports one function (plugin.h) and links no library
 * of ours: the host hands its services over as function pointers.
 *
 * RULES
 *  R1  Growable structs begin with `uint32_t struct_size`. The one who fills the struct sets it to
 *      SLUICE_SIZE_THROUGH(T, last field he knows); sizeof(T) would let a new field hide in old padding. In a struct
 *      that receives output the caller sets it to the room there is, and the callee stays within.
 *  R2  New fields go to the end. Ask SLUICE_HAS before reading a field younger than the oldest peer you accept; an
 *      absent field means 0 or NULL. No growable struct is a member of another by value.
 *  R3  What stays off the boundary: errno, longjmp, exceptions, variadic calls, structs by value, and the types whose
 *      size or layout compilers choose (enum, bool, long, bit-fields).
 *  R4  An array of growable structs comes with count and stride. Hot data comes as arrays of plain numbers.
 *  R5  Who allocates frees. A pointer argument lives until the call returns, unless BORROWED-UNTIL says longer.
 *      Results are written to memory of the caller.
 *  R6  Unknown values: refuse with SLUICE_E_UNSUPPORTED where they alter the meaning (kinds, ops, stages, the low half
 *      of a flags word); skip where they advise (the high half). Halves are 16 bits of 32, 32 bits of 64.
 *  R7  Each function names its thread:
 *        [init]   the loading thread; nothing else runs on the same object. May block.
 *        [engine] the one thread of a model, serial per object. No blocking, no I/O, no threads, no clock but the
 *                 host's, and no allocation once warm.
 *        [io]     request threads, many at once; changes nothing that another call can see. May take its time.
 *        [any]    callable from everywhere at once.
 *      and its errors. "errors: any" are INTERNAL, CANCELLED, UNAVAILABLE, DEVICE_LOST: they may always come.
 *  R8  Backend and engine calls pass flat arrays only, so that such a plugin can also live in a child process.
 *
 * VERSIONS  A plugin loads iff the majors agree, it was built with at least the host's FLOOR, and the minor it
 *      requires is at most the host's MINOR. Appending raises MINOR. In major 0 a break raises FLOOR as well; from
 *      major 1 on a break gets a new entry symbol instead.
 */
#ifndef SLUICE_ABI_BASE_H
#define SLUICE_ABI_BASE_H
#include <stddef.h>
#include <stdint.h>

#define SLUICE_ABI_MAJOR 0
#define SLUICE_ABI_MINOR 0
#define SLUICE_ABI_FLOOR 0

#define SLUICE_SIZE_THROUGH(T, f) ((uint32_t)(offsetof(T, f) + sizeof(((T *)0)->f)))
#define SLUICE_HAS(p, T, f) ((p) != NULL && (p)->struct_size >= SLUICE_SIZE_THROUGH(T, f))
#define SLUICE_HAS_FN(p, T, f) (SLUICE_HAS(p, T, f) && (p)->f != NULL)

#ifdef __cplusplus
#define SLUICE_C_BEGIN extern "C" {
#define SLUICE_C_END }
#else
#define SLUICE_C_BEGIN
#define SLUICE_C_END
#endif
#if defined(__GNUC__)
#define SLUICE_EXPORT __attribute__((visibility("default")))
#else
#define SLUICE_EXPORT
#endif

SLUICE_C_BEGIN

/* Opaque. The host makes the first two; a plugin makes the others and alone knows what is inside. */
typedef struct sluice_host sluice_host;
typedef struct sluice_config sluice_config;
typedef struct sluice_backend sluice_backend;
typedef struct sluice_model sluice_model;
typedef struct sluice_engine sluice_engine;
typedef struct sluice_scheduler sluice_scheduler;
typedef struct sluice_sampler sluice_sampler;
typedef struct sluice_sampler_seq sluice_sampler_seq;
typedef struct sluice_decoder sluice_decoder;
typedef struct sluice_decoder_seq sluice_decoder_seq;

typedef uint64_t sluice_seq_id;  /* a sequence, for the life of the process; given by the host, 0 = none */
typedef uint32_t sluice_seq_ref; /* row of a live sequence in a scheduler's table; used again after it ended */
typedef uint64_t sluice_ticket;  /* a place in a model's in-order queue; 0 = already done */

/* The beginning of a sequence, as samplers and decoders hear of it. */
typedef struct sluice_seq_start {
  uint32_t struct_size;
  uint32_t n_prompt; /* tokens */
  sluice_seq_id seq;
  uint64_t request_id; /* shared by all answers to one request */
  uint64_t seed;       /* the request's seed + answer_index; rng.h */
  uint32_t answer_index, n_answers;
  uint32_t max_new; /* output tokens at most */
  uint32_t n_stop;
  const int32_t *prompt;        /* [n_prompt] */
  const int32_t *stop_tokens;   /* [n_stop] */
  const sluice_config *request; /* the PER_REQUEST options of this plugin, validated */
} sluice_seq_start;

SLUICE_C_END
#endif

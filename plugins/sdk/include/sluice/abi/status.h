/* sluice/abi/status.h - failure, without allocation or ownership.
 *
 * Fallible functions return a code, 0 for success, and fill a status that belongs to the caller and may be NULL.
 * On success they do not touch it.
 */
#ifndef SLUICE_ABI_STATUS_H
#define SLUICE_ABI_STATUS_H
#include <sluice/abi/base.h>
SLUICE_C_BEGIN

#define SLUICE_OK 0
#define SLUICE_E_INVALID_ARGUMENT 1   /* the caller's mistake; no state has changed */
#define SLUICE_E_UNSUPPORTED 2        /* not offered here; take another way or refuse the configuration */
#define SLUICE_E_NOT_FOUND 3
#define SLUICE_E_RESOURCE_EXHAUSTED 4 /* no memory, blocks or room; less might work */
#define SLUICE_E_TIMEOUT 5            /* not yet */
#define SLUICE_E_CANCELLED 6
#define SLUICE_E_UNAVAILABLE 7        /* the same call may work later */
#define SLUICE_E_INTERNAL 8           /* the callee is broken */
#define SLUICE_E_DEVICE_LOST 9        /* this instance is dead; open another */
#define SLUICE_E_ABI 10               /* versions do not fit */

/* Beside INTERNAL: the state may be damaged, so the host stops using the instance, fails its requests and opens a
 * new one with back-off. DEVICE_LOST means this too. */
#define SLUICE_STF_POISONED 1u

typedef struct sluice_status {
  uint32_t struct_size;
  int32_t code;
  uint32_t flags;   /* SLUICE_STF_* */
  uint32_t msg_len; /* bytes before the NUL */
  char msg[496];    /* UTF-8, cut between characters, NUL at the end: the thing, the value, the remedy */
} sluice_status;

SLUICE_C_END
#endif

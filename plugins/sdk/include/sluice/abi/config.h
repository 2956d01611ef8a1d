/* sluice/abi/config.h - the options of a plugin, published as data.
 *
 * The host checks TOML and requests against this list, reports mistakes with file, line and the option's `doc`, fills
 * in defaults, and passes an opaque table that is read through the getters of host.h. No plugin parses TOML.
 */
#ifndef SLUICE_ABI_CONFIG_H
#define SLUICE_ABI_CONFIG_H
#include <sluice/abi/base.h>
SLUICE_C_BEGIN

#define SLUICE_CFG_BOOL 1
#define SLUICE_CFG_I64 2
#define SLUICE_CFG_F64 3
#define SLUICE_CFG_STR 4
#define SLUICE_CFG_STR_LIST 5
#define SLUICE_CFG_TABLE 6 /* a table of any keys, handed over as TOML text by cfg_raw */

#define SLUICE_CFGF_REQUIRED 1u
#define SLUICE_CFGF_PER_REQUEST 2u /* a request may set it too */
#define SLUICE_CFGF_HOT 4u         /* reconfigure() may change it in a running instance */
#define SLUICE_CFGF_SECRET 8u      /* kept out of logs and prints */

typedef struct sluice_config_field {
  uint32_t struct_size;
  int32_t type;        /* SLUICE_CFG_* */
  uint64_t flags;      /* SLUICE_CFGF_* */
  const char *key;     /* dots reach into sub-tables: "tree.max_nodes" */
  const char *doc;     /* one line, with the unit */
  const char *def;     /* default as a TOML value; NULL = absent */
  const char *choices; /* STR: "a|b|c"; NULL = anything */
  double min, max;     /* numbers; min > max = no bounds */
} sluice_config_field;

SLUICE_C_END
#endif

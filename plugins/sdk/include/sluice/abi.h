/* sluice/abi.h - everything a Sluice plugin can see. Including only the kind you implement is enough. */
#ifndef SLUICE_ABI_H
#define SLUICE_ABI_H
#include <sluice/abi/base.h>
#include <sluice/abi/config.h>
#include <sluice/abi/draft.h>
#include <sluice/abi/host.h>
#include <sluice/abi/kinds/backend.h>
#include <sluice/abi/kinds/decoder.h>
#include <sluice/abi/kinds/engine.h>
#include <sluice/abi/kinds/sampler.h>
#include <sluice/abi/kinds/scheduler.h>
#include <sluice/abi/kv.h>
#include <sluice/abi/plugin.h>
#include <sluice/abi/rng.h>
#include <sluice/abi/sampling.h>
#include <sluice/abi/sched.h>
#include <sluice/abi/status.h>
#include <sluice/abi/step.h>
#include <sluice/abi/tensor.h>
#endif

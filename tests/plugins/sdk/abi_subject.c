/* A plugin that sees every struct of the ABI, for abidiff: it is built, described and compared with abi.xml. Never run. */
#include <sluice/abi.h>

static const sluice_backend_vtbl backend;
static const sluice_engine_vtbl engine;
static const sluice_scheduler_vtbl scheduler;
static const sluice_sampler_vtbl sampler;
static const sluice_decoder_vtbl decoder;
static sluice_plugin_desc desc;

SLUICE_PLUGIN_META(SLUICE_KIND_BACKEND, "subject", "0.0.0", 0, "");

const sluice_plugin_desc *SLUICE_PLUGIN_ENTRY(const sluice_host_api *host, sluice_status *st) {
  (void)host, (void)st;
  desc.backend = &backend, desc.engine = &engine, desc.scheduler = &scheduler;
  desc.sampler = &sampler, desc.decoder = &decoder;
  return &desc;
}

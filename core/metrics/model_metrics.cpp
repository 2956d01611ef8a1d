#include "core/metrics/model_metrics.hpp"

namespace sluice::metrics {
namespace {

// source: the bucket bounds of vLLM, so that a dashboard may hold both servers in one panel.
const std::vector<double> kFirstTokenSeconds{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                             1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const std::vector<double> kPerTokenSeconds{.0001, .0005, .001, .0025, .005, .01, .025, .05, .075, .1, .15, .2,
                                           .3,    .4,    .5,   .75,   1,    2.5, 5,    7.5, 10,   20, 40,  80};
const std::vector<double> kRequestSeconds{.01, .05, .1, .3, .5, .8, 1,   1.5, 2,   2.5, 5,   10,
                                          15,  20,  30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const std::vector<double> kTokens{1,   2,   5,    10,   20,   50,    100,   200,   500,
                                  1e3, 2e3, 5e3,  1e4,  2e4,  5e4,   1e5,   2e5,   5e5, 1e6};

}  // namespace

ModelMetrics::ModelMetrics(Registry &r, const std::string &model) {
  const Labels l{{"model", model}};
  running = r.gauge("sluice_requests_running", "Answers whose sequence takes part in steps", l);
  waiting = r.gauge("sluice_requests_waiting", "Answers that wait for the scheduler", l);
  swapped = r.gauge("sluice_requests_swapped", "Answers whose KV is in host memory, or on its way there or back", l);
  host_blocks_total = r.gauge("sluice_kv_host_blocks", "KV blocks of the model's swap space", l);
  host_blocks_used = r.gauge("sluice_kv_host_blocks_used", "Blocks of the swap space that a sequence holds", l);
  kv_usage_ratio = r.gauge("sluice_kv_usage_ratio", "Used part of the KV blocks, 0 to 1", l);
  kv_blocks_total = r.gauge("sluice_kv_blocks", "KV blocks of the model's pool", l);
  kv_blocks_used = r.gauge("sluice_kv_blocks_used", "KV blocks that a sequence or the prefix cache holds", l);
  prompt_tokens = r.counter("sluice_prompt_tokens_total", "Prompt tokens of admitted requests", l);
  cached_prompt_tokens = r.counter("sluice_cached_prompt_tokens_total", "Prompt tokens found in the prefix cache", l);
  generation_tokens = r.counter("sluice_generation_tokens_total", "Tokens generated and counted in usage", l);
  preemptions = r.counter("sluice_preemptions_total", "Sequences taken out of the batch to free blocks", l);
  const Labels out{{"model", model}, {"direction", "out"}}, in{{"model", model}, {"direction", "in"}};
  const char *swaps = "Sequences whose KV moved to host memory (out) or back (in)";
  swaps_out = r.counter("sluice_swaps_total", swaps, out);
  swaps_in = r.counter("sluice_swaps_total", swaps, in);
  const char *bytes = "Bytes of KV copied to host memory (out) or back (in)";
  swapped_out_bytes = r.counter("sluice_swapped_bytes_total", bytes, out);
  swapped_in_bytes = r.counter("sluice_swapped_bytes_total", bytes, in);
  prefix_cache_queries = r.counter("sluice_prefix_cache_queries_total",
                                   "Tokens of sequences as they started, or started again after a preemption", l);
  prefix_cache_hits = r.counter("sluice_prefix_cache_hits_total", "Of those, tokens found in the prefix cache", l);
  computed_tokens = r.counter("sluice_computed_tokens_total", "Tokens that steps computed", l);
  recomputed_tokens =
      r.counter("sluice_recomputed_tokens_total", "Of those, tokens computed before and lost by a preemption", l);
  engine_steps = r.counter("sluice_engine_steps_total", "Batched steps", l);
  steps_planned_ahead = r.counter("sluice_engine_steps_planned_ahead_total",
                                  "Of those, steps planned while the one before ran", l);
  plan_fallbacks = r.counter("sluice_plan_fallbacks_total", "Steps whose plan the host had to make itself", l);
  plugin_errors = r.counter("sluice_plugin_errors_total", "Calls into plugins that failed", l);
  queue_time =
      r.histogram("sluice_request_queue_seconds", "From the whole request read to its first step", l, kRequestSeconds);
  plugin_overruns = r.counter("sluice_plugin_overruns_total", "Calls into plugins, and steps, that missed their deadline", l);
  reopens = r.counter("sluice_model_reopens_total", "Times that a model's damaged plugins were opened anew", l);
  healthy = r.gauge("sluice_model_healthy", "1 while the model can serve", l);
  draft_rounds = r.counter("sluice_draft_rounds_total", "Times that a sequence had drafts verified", l);
  draft_tokens = r.counter("sluice_draft_tokens_total", "Draft tokens verified", l);
  draft_accepted_tokens = r.counter("sluice_draft_accepted_tokens_total", "Draft tokens that were right", l);
  draft_verify_seconds = r.counter("sluice_draft_verify_seconds_total", "Device time of decoding steps with drafts", l);
  draft_plain_seconds = r.counter("sluice_draft_plain_seconds_total",
                                  "What those steps would have taken without drafts, by the cost model", l);
  drafting_seconds = r.counter("sluice_drafting_seconds_total", "Time spent on making the drafts of those steps", l);
  drafts_off = r.gauge("sluice_drafts_off", "1 while drafting is switched off because it does not pay", l);
  drafts_off_for_acceptance = r.counter("sluice_drafts_switched_off_total", "Times that drafting was switched off, by reason",
                                        {{"model", model}, {"reason", "acceptance"}});
  drafts_off_for_cost = r.counter("sluice_drafts_switched_off_total", "Times that drafting was switched off, by reason",
                                  {{"model", model}, {"reason", "cost"}});
  drafts_off_for_sequence = r.counter("sluice_drafts_switched_off_total", "Times that drafting was switched off, by reason",
                                      {{"model", model}, {"reason", "sequence"}});
  time_to_first_token = r.histogram("sluice_time_to_first_token_seconds", "From the whole request read to its first token",
                                    l, kFirstTokenSeconds);
  inter_token_latency =
      r.histogram("sluice_inter_token_latency_seconds", "Gaps between the tokens of one answer", l, kPerTokenSeconds);
  e2e_latency = r.histogram("sluice_e2e_request_latency_seconds", "From the whole request read to its end", l,
                            kRequestSeconds);
  request_prompt_tokens = r.histogram("sluice_request_prompt_tokens", "Prompt tokens per request", l, kTokens);
  request_generation_tokens = r.histogram("sluice_request_generation_tokens", "Generated tokens per answer", l, kTokens);
  for (const char *reason : {"stop", "length", "cancelled", "error"}) {
    finished_[reason] = r.counter("sluice_requests_finished_total", "Answers by the way they ended",
                                  {{"model", model}, {"reason", reason}});
  }
  for (const char *cause : {"disconnect", "client", "stop_string", "slow", "deadline", "drain"}) {
    cancelled_[cause] = r.counter("sluice_cancelled_total", "Answers cancelled before the engine ended them, by cause",
                                  {{"model", model}, {"cause", cause}});
  }
}

void ModelMetrics::finished(std::string_view reason) const {
  if (const auto it = finished_.find(reason); it != finished_.end()) it->second.add();
}

void ModelMetrics::cancelled(std::string_view cause) const {
  if (const auto it = cancelled_.find(cause); it != cancelled_.end()) it->second.add();
}

void publish_build_info(Registry &registry, const std::string &version, const std::string &commit) {
  registry.gauge("sluice_build_info", "1; the labels say what runs", {{"version", version}, {"commit", commit}}).set(1);
}

void publish_plugin_info(Registry &registry, const std::string &kind, const std::string &name,
                         const std::string &version, const std::string &abi) {
  registry
      .gauge("sluice_plugin_info", "1; one per loaded plugin",
             {{"kind", kind}, {"name", name}, {"version", version}, {"abi", abi}})
      .set(1);
}

}  // namespace sluice::metrics

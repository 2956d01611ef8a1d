#pragma once
#include <map>
#include <string>
#include <string_view>

#include "core/metrics/registry.hpp"

namespace sluice::metrics {

/// The serving metrics of one model; label `model`. Units are in the names, latencies in seconds. [any]
struct ModelMetrics {
  ModelMetrics() = default;
  ModelMetrics(Registry &registry, const std::string &model);

  Gauge healthy, running, waiting, swapped, host_blocks_total, host_blocks_used, kv_usage_ratio, kv_blocks_total, kv_blocks_used;
  Counter prompt_tokens, cached_prompt_tokens, generation_tokens;
  Counter preemptions, engine_steps, steps_planned_ahead, plan_fallbacks, plugin_errors, plugin_overruns, reopens;
  Counter swaps_out, swaps_in, swapped_out_bytes, swapped_in_bytes;
  Counter prefix_cache_queries, prefix_cache_hits, computed_tokens, recomputed_tokens;
  Histogram queue_time, time_to_first_token, inter_token_latency, e2e_latency;
  Counter draft_rounds, draft_tokens, draft_accepted_tokens;
  Counter draft_verify_seconds, draft_plain_seconds, drafting_seconds;
  Counter drafts_off_for_acceptance, drafts_off_for_cost, drafts_off_for_sequence;
  Gauge drafts_off;
  Histogram request_prompt_tokens, request_generation_tokens;

  void finished(std::string_view reason) const;  ///< stop length cancelled error
  void cancelled(std::string_view cause) const;  ///< disconnect client stop_string slow deadline drain

 private:
  std::map<std::string, Counter, std::less<>> finished_, cancelled_;
};

/// sluice_build_info and sluice_plugin_info: constant 1, the facts are in the labels.
void publish_build_info(Registry &registry, const std::string &version, const std::string &commit);
void publish_plugin_info(Registry &registry, const std::string &kind, const std::string &name,
                         const std::string &version, const std::string &abi);

}  // namespace sluice::metrics

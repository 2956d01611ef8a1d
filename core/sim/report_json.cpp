#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "core/sim/comparison.hpp"

namespace sluice::sim {
namespace {

namespace json = boost::json;

json::object to_object(const Spread &s) {
  return {{"mean", s.mean}, {"p50", s.p50}, {"p95", s.p95}, {"p99", s.p99}, {"max", s.max}};
}

json::object to_object(const Measures &m) {
  json::array deciles;
  for (const auto &d : m.deciles)
    deciles.push_back(json::object{
        {"output_tokens", d.output_tokens}, {"jct_s", d.jct_s}, {"jct_per_token_s", d.jct_per_token_s}});
  return {{"jct_s", to_object(m.jct)},
          {"ttft_s", to_object(m.ttft)},
          {"jct_per_token_s", to_object(m.normalized)},
          {"longest_pause_s", to_object(m.longest_pause)},
          {"throughput_of_arrivals", m.throughput_of_arrivals},
          {"preemptions", m.preemptions},
          {"swapped_out_gb", m.swaps_out_gb},
          {"swapped_in_gb", m.swaps_in_gb},
          {"recompute_tax", m.recompute_tax},
          {"end_s", m.end_s},
          {"device_busy", m.device_busy},
          {"kv_used", m.kv_used},
          {"by_output_decile", deciles}};
}

json::object to_object(const PolicyResult &policy) {
  json::array runs, hashes;
  for (const auto &run : policy.runs) runs.push_back(to_object(run));
  for (const uint64_t hash : policy.hashes) hashes.push_back(json::value(fmt::format("{:016x}", hash)));
  return {{"name", policy.name},
          {"mean", to_object(policy.mean)},
          {"runs", runs},
          {"finish_time_hashes", hashes},
          {"plan_fallbacks", policy.plan_fallbacks},
          {"most_held_back", policy.most_held_back}};
}

}  // namespace

std::string to_json(const Setup &setup, const Comparison &comparison) {
  json::array loads, seeds;
  for (const uint64_t seed : setup.seeds) seeds.push_back(json::value(seed));
  for (const auto &load : comparison.loads) {
    json::array policies;
    for (const auto &policy : load.policies) policies.push_back(to_object(policy));
    json::object one{{"rate_per_s", load.rate_per_s}, {"output_cv", load.output_cv}, {"policies", policies}};
    if (load.rho > 0) one["rho"] = load.rho;
    loads.push_back(std::move(one));
  }
  json::object report{{"setup", setup.title},
                      {"requests", setup.requests},
                      {"counted", setup.counted},
                      {"seeds", seeds},
                      {"step_model", comparison.step_model},
                      {"loads", loads}};
  if (comparison.saturation_per_s > 0) {
    report["saturation_per_s"] = comparison.saturation_per_s;
    report["saturation_measured"] = comparison.saturation_measured;
  }
  return json::serialize(report) + "\n";
}

}  // namespace sluice::sim

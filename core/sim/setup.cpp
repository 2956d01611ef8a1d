#include "core/sim/setup.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace sluice::sim {

uint32_t kv_blocks(const Setup &setup) {
  return static_cast<uint32_t>(setup.device.kv_tokens / setup.device.block_size);
}

uint32_t host_blocks(const Setup &setup) {
  return static_cast<uint32_t>(std::min(setup.device.host_pool * kv_blocks(setup), 4e9));
}

uint32_t watermark_blocks(const Setup &setup) {
  return setup.engine.watermark_blocks.value_or((kv_blocks(setup) * 2 + 99) / 100);
}

void check_setup(const Setup &setup, std::vector<config::Problem> &problems) {
  const config::Origin origin{config::Origin::Kind::kFile, setup.path, 0};
  const auto wrong = [&](std::string message) { problems.push_back({origin, std::move(message)}); };
  const auto &load = setup.load;
  const auto &device = setup.device;
  const bool is_trace = load.arrivals == Arrivals::kTrace;

  if (setup.seeds.empty()) wrong("seeds is empty; it must name at least one");
  if (setup.policies.empty()) wrong("there are no policies; add [[policies]] with use = \"fcfs\"");
  std::set<std::string> names;
  for (const auto &policy : setup.policies)
    if (!names.insert(policy.name).second)
      wrong(fmt::format("two policies are called {}; give one a name of its own with name = \"...\"", policy.name));

  if (is_trace) {
    if (load.trace.empty()) wrong("load.trace is not set; load.arrivals is \"trace\", so it must be a CSV file");
    if (!load.rho.empty() || !load.rates_per_s.empty())
      wrong("load.rho or load.rates_per_s is set; a trace has times of its own, so leave them out");
  } else {
    if (load.rho.empty() == load.rates_per_s.empty())
      wrong("load must have either rho, relative to FCFS's saturation, or rates_per_s");
    if (setup.lengths.input.empty() || setup.lengths.output.empty())
      wrong("lengths.input and lengths.output must each be a list such as [{ mean = 161, cv = 1.45 }]");
  }

  const int n_costs = (device.step_table.empty() ? 0 : 1) + (device.bench.empty() ? 0 : 1) +
                      (device.step.floor_ps + device.step.token_ps + device.step.base_ps != 0 ? 1 : 0);
  if (n_costs != 1)
    wrong("device must have one of: floor_us, token_us, base_us and context_token_us; step_table; bench");
  if (device.kv_tokens == 0) return wrong("device.kv_tokens is not set; it must be the size of the KV cache in tokens");
  if (device.host_pool > 0 && (device.bytes_per_token == 0 || device.transfer_bytes_per_s == 0))
    wrong("device.host_pool is set; then bytes_per_token and transfer_bytes_per_s must be too");
  const uint64_t kv_tokens = uint64_t{kv_blocks(setup)} * device.block_size;
  if (setup.lengths.max_total > kv_tokens)
    wrong(fmt::format("lengths.max_total is {}; the KV cache holds {} tokens, so it must be that at most",
                      setup.lengths.max_total, kv_tokens));
  if (setup.lengths.max_total != 0 && setup.lengths.max_input >= setup.lengths.max_total)
    wrong(fmt::format("lengths.max_input is {}; it must be below max_total, which is {}", setup.lengths.max_input,
                      setup.lengths.max_total));
  if (setup.engine.token_budget < setup.engine.max_seqs)
    wrong(fmt::format("engine.token_budget is {}; it must be at least engine.max_seqs, which is {}",
                      setup.engine.token_budget, setup.engine.max_seqs));
}

}  // namespace sluice::sim

#include "policy.hpp"

namespace {
using namespace sluice::sdk;

constexpr sluice_config_field kFields[] = {
    str_field("variant", "guarded; for study: naive (nobody skips a level) or unguarded (as published; may collapse)",
              "\"guarded\"", "guarded|naive|unguarded"),
    i64_field("levels", "number of queues", "12", 1, 24),
    f64_field("quantum_ms", "quantum of the first queue, best a little above a step's time; each next one doubles it",
              "23.1", 0.001, 60000, SLUICE_CFGF_HOT),
    f64_field("alpha_s", "longest pause of an answer before it is promoted, seconds: the stall that a reader bears",
              "30", 0.01, 86400, SLUICE_CFGF_HOT),
    i64_field("promotions_per_step", "how many are promoted at most", "2", 1, 65536, SLUICE_CFGF_HOT),
    f64_field("swap_budget", "part of a step's time that its swapping in may take", "0.5", 0, 100, SLUICE_CFGF_HOT),
    f64_field("host_watermark", "part of the host space below which nobody new begins", "0.1", 0, 1, SLUICE_CFGF_HOT),
    f64_field("min_length_cv", "below this variation of output lengths the order is first come, first served", "0.85",
              0, 100, SLUICE_CFGF_HOT),
    i64_field("length_window", "answers over which that variation is taken; before that many have ended feedback is on", "2000", 8, 1 << 20),
    i64_field("max_chunk", "while first come, first served: most prompt tokens that one sequence feeds in a step; "
                           "0 = what the token budget leaves", "0", 0, 1 << 20, SLUICE_CFGF_HOT)};
}  // namespace

using sluice::mlfq::Policy;
SLUICE_SCHEDULER_PLUGIN(Policy, "mlfq", "0.1.0", kFields);

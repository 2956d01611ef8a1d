// How long a device stands idle between two steps, with the next step planned while the one before runs and without:
// a mock whose steps take 5 ms, 64 who decode and as many who wait as asked, in turns. The gap is the time from one
// submit to the next less the 5 ms, so the timer's delay in waking the engine is in it both ways.
//   step_gap [PAIRS]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "tests/core/engine/plugin_fixture.hpp"

namespace {
using namespace sluice;
using namespace sluice::engine::testing;

constexpr uint32_t kRunning = 64, kTokens = 200, kStepUs = 5000;

std::vector<uint64_t> submitted_ns;
const sluice_backend_vtbl *real = nullptr;
const Clock *steady = nullptr;

struct Gaps {
  std::vector<double> us;
  uint64_t steps = 0, ahead = 0;
  double at(double part) {
    std::sort(us.begin(), us.end());
    return us[static_cast<size_t>(part * static_cast<double>(us.size() - 1))];
  }
};

void measure(const char *policy, uint32_t n_waiting, bool plan_ahead, Gaps &gaps) {
  TestHost host(true);
  engine::EngineLimits limits;
  limits.max_seqs = kRunning;
  limits.token_budget = 2048;
  limits.max_live = kRunning + n_waiting;
  limits.max_context = 512;
  limits.block_size = 16;
  limits.kv_blocks = 4096;
  limits.plan_ahead = plan_ahead;
  MockModel model(host, {{"script", "count"}, {"eos_token", "-1"}, {"step_us", std::to_string(kStepUs)}}, limits, "greedy");
  auto parts = model.parts(load_plugin(host, "scheduler", policy)->scheduler);
  real = parts.backend;
  steady = &host.time();
  auto timed = *real;
  timed.submit = [](sluice_model *m, const sluice_step *step, sluice_ticket *out, sluice_status *status) {
    submitted_ns.push_back(steady->now_ns());
    return real->submit(m, step, out, status);
  };
  parts.backend = &timed;
  auto core = engine::EngineCore::create(std::move(parts), limits);
  if (!core) {
    fmt::print(stderr, "step_gap: {}\n", core.error().message);
    std::exit(1);
  }
  std::vector<std::shared_ptr<request::Request>> requests;
  for (uint32_t i = 0; i < kRunning + n_waiting; ++i) {
    auto request = std::make_shared<request::Request>();
    request->id = i + 1;
    request->prompt.assign(16, static_cast<int32_t>(20 + i % 400));
    request->max_new = kTokens;
    request->arrival_ns = steady->now_ns();
    request->events = std::make_shared<request::EventChannel>(nullptr);
    requests.push_back(request);
    if (auto taken = (*core)->submit(requests.back()); !taken) {
      fmt::print(stderr, "step_gap: {}\n", taken.error().message);
      std::exit(1);
    }
  }
  submitted_ns.clear();
  while (submitted_ns.size() < kTokens) (*core)->step(100'000'000);
  // The first steps feed prompts and teach the engine what a step takes; at the last somebody ends.
  for (size_t i = 20; i + 1 < submitted_ns.size(); ++i)
    gaps.us.push_back(static_cast<double>(submitted_ns[i + 1] - submitted_ns[i]) * 1e-3 - kStepUs);
  gaps.steps += (*core)->stats().steps, gaps.ahead += (*core)->stats().steps_planned_ahead;
}

}  // namespace

int main(int argc, char **argv) {
  const int n_pairs = argc > 1 ? std::max(1, std::atoi(argv[1])) : 5;
  fmt::print("{} pairs of {} steps of {} us, {} running; us between steps, p50 / p90\n", n_pairs, kTokens, kStepUs, kRunning);
  for (const char *policy : {"fcfs", "mlfq"})
    for (const uint32_t n_waiting : {0U, 1000U}) {
      if (n_waiting > 0 && std::string(policy) == "mlfq") continue;  // would let the waiting in, and so measure swaps
      Gaps gaps[2];
      double lower = 0;
      for (int pair = 0; pair < n_pairs; ++pair) {
        Gaps once[2];
        for (const bool ahead : {pair % 2 == 0, pair % 2 != 0}) measure(policy, n_waiting, ahead, once[ahead]);
        lower += once[true].at(0.5) < once[false].at(0.5) ? 1 : 0;
        for (const bool ahead : {false, true}) {
          gaps[ahead].us.insert(gaps[ahead].us.end(), once[ahead].us.begin(), once[ahead].us.end());
          gaps[ahead].steps += once[ahead].steps, gaps[ahead].ahead += once[ahead].ahead;
        }
      }
      fmt::print("{}, {} waiting: planned behind {:.0f} / {:.0f}, ahead {:.0f} / {:.0f} ({:.0f} % of steps), lower in {} of {}\n",
                 policy, n_waiting, gaps[false].at(0.5), gaps[false].at(0.9), gaps[true].at(0.5), gaps[true].at(0.9),
                 100.0 * static_cast<double>(gaps[true].ahead) / static_cast<double>(gaps[true].steps), lower, n_pairs);
    }
}

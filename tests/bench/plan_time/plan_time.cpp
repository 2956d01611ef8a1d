// CPU time of plan() and on_event() of mlfq and fcfs with 256 who run and 10,000 who wait, in traffic that changes.
//   plan_time [PLANS]
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "tests/schedulers/mlfq/world.hpp"

namespace {
using namespace sluice;
using mlfq::kBlockSize;
using mlfq::kMs;

constexpr uint32_t kSeats = 256, kQueue = 10'000;

double now_us() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}

/// Times the calls that a host makes.
class Timed final : public sdk::Scheduler {
 public:
  explicit Timed(sdk::Scheduler &policy) : policy_(policy) {}
  void on_event(const sdk::Event &event) override {
    const double began = now_us();
    policy_.on_event(event);
    events_us += now_us() - began;
    ++n_events;
  }
  void plan(const sdk::View &view, sdk::Plan &out) override {
    const double began = now_us();
    policy_.plan(view, out);
    plans_us.push_back(now_us() - began);
  }
  std::vector<double> plans_us;
  double events_us = 0;
  uint64_t n_events = 0;

 private:
  sdk::Scheduler &policy_;
};

/// What the host would do with a plan; whatever moves has arrived at once.
void carry_out(mlfq::World &w, Timed &policy, const mlfq::Acts &acts, std::mt19937 &random) {
  for (const auto &act : acts) {
    const auto r = act.ref;
    if (act.op == SLUICE_ACT_SWAP_OUT) w.swapped(r);
    if (act.op == SLUICE_ACT_SWAP_IN) {
      w.state[r] = SLUICE_SEQ_RESIDENT;
      w.device_blocks[r] = w.exclusive_blocks[r] = w.host_blocks[r];
      w.view.device_free -= w.device_blocks[r], w.view.host_free += w.host_blocks[r];
      w.host_blocks[r] = 0;
    }
    if (act.op != SLUICE_ACT_RUN) continue;
    w.state[r] = SLUICE_SEQ_RESIDENT;
    w.computed[r] += act.tokens, w.generated[r] += 1, w.pending[r] = 1;
    const uint32_t blocks = (w.computed[r] + kBlockSize - 1) / kBlockSize;
    w.view.device_free -= blocks - w.device_blocks[r];
    w.device_blocks[r] = w.exclusive_blocks[r] = blocks;
    w.commit(policy, r, 12);
    if (random() % 200 != 0) continue;
    w.view.device_free += w.device_blocks[r];
    w.finish(policy, r, w.generated[r] * (random() % 3 + 1));
    w.waiting(policy, 1 + random() % 400);
  }
  w.view.now_ns += 12 * kMs;
}

void measure(const char *name, mlfq::World &w, sdk::Scheduler &policy, int n_plans) {
  Timed timed(policy);
  std::mt19937 random(1);
  for (uint32_t i = 0; i < kQueue + kSeats; ++i) w.waiting(timed, 1 + random() % 400);
  for (int i = 0; i < n_plans; ++i) carry_out(w, timed, w.plan(timed), random);
  auto &us = timed.plans_us;
  std::sort(us.begin(), us.end());
  const auto at = [&](double part) { return us[static_cast<size_t>(part * static_cast<double>(us.size() - 1))]; };
  std::printf("%s: %zu plans, p50 %.1f us, p99 %.1f us, max %.1f us; %.2f us an event\n", name, us.size(), at(0.5),
              at(0.99), us.back(), timed.events_us / static_cast<double>(timed.n_events));
}

void prepare(mlfq::World &w) {
  w.view.token_budget = 2048;
  w.view.watermark = 100;
  w.view.device_free = w.view.device_total = 5000;  // too few for all 256, so that blocks are fought over too
  w.view.host_free = w.view.host_total = 20'000;
  w.view.swap_in_bytes_per_s = 1e7;
}
}  // namespace

int main(int argc, char **argv) {
  const int n_plans = argc > 1 ? std::max(1, std::atoi(argv[1])) : 5000;
  const uint32_t capacity = kQueue + kSeats + static_cast<uint32_t>(n_plans) * 4;
  {
    mlfq::World w(capacity, kSeats);
    prepare(w);
    measure("mlfq", w, *w.policy(), n_plans);
  }
  {
    mlfq::World w(capacity, kSeats);
    prepare(w);
    measure("fcfs", w, *w.fcfs(), n_plans);
  }
}

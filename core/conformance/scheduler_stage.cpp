// Stage H: a scheduler in random traffic, driven by the server's own engine core over a backend that takes no time.
#include <fmt/format.h>
#include <sluice/sdk/backend.hpp>
#include <sluice/sdk/decoder.hpp>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "core/conformance/stages.hpp"
#include "core/engine/engine_core.hpp"

namespace sluice::conformance {
namespace {

constexpr uint32_t kVocab = 16;
constexpr int kTraces = 1000, kBenchTraces = 40, kMaxSteps = 20'000;
constexpr std::chrono::seconds kEnough{10};  // fewer traces for a policy that thinks long

/// Every row's token is 1; nothing is stored.
class InstantModel final : public sdk::Model {
 public:
  void info(sluice_model_info &i) const override {
    i = plain_model(kVocab);
    i.caps = SLUICE_CAP_MIXED_BATCH;
  }
  void plan_memory(const sluice_model_setup &, sluice_memory_plan &) const override {}
  std::vector<sluice_kv_group> kv_groups(const sluice_model_setup &) const override { return {}; }
  void configure(const sluice_model_setup &, const uint32_t *, const uint32_t *) override {}
  void sample_caps(sluice_sample_caps &c) const override { c.forms = SLUICE_ROW_TOKEN | SLUICE_ROW_LOGITS_HOST; }
  sluice_ticket submit(const sluice_step &step) override {
    tokens_.assign(step.n_rows, 1);
    logprobs_.assign(step.n_rows, 0.0f);
    return ++ticket_;
  }
  sluice_ticket kv_ops(const sluice_kv_batch &) override { return 0; }
  bool wait(sluice_ticket, uint64_t, sluice_step_result *out) override {
    if (out == nullptr) return true;
    out->n_rows = static_cast<uint32_t>(tokens_.size());
    out->token = tokens_.data(), out->logprob = logprobs_.data(), out->device_ns = 1'000'000;
    return true;
  }
  void release(sluice_ticket) override {}

 private:
  sluice_ticket ticket_ = 0;
  std::vector<int32_t> tokens_;
  std::vector<float> logprobs_;
};
struct InstantBackend final : sdk::Backend {
  InstantBackend(const sluice_host_api &, const sdk::Config &, const sluice_backend_open &) {}
  static std::vector<sluice_device_info> devices(const sluice_host_api &, const sdk::Config &) { return {}; }
  std::unique_ptr<sdk::Model> load(const sluice_model_source &, const sdk::Config &) override {
    return std::make_unique<InstantModel>();
  }
};
struct Nothing {};
struct PlainDecoder final : sdk::Decoder<Nothing> {
  PlainDecoder(const sluice_host_api &, const sdk::Config &, const sluice_decoder_setup &) {}
  Nothing open(const sluice_seq_start &, const sdk::Config &) override { return {}; }
};

/// Between core and plugin: looks at every plan before the core does.
struct Watch {
  const sluice_scheduler_vtbl *plugin = nullptr;
  const sluice_sched_table *table = nullptr;
  uint32_t max_seqs = 0;
  std::string first_wrong;
  uint64_t n_wrong = 0, fingerprint = 0;
  std::vector<uint64_t> plan_ns;
} watch;
ManualClock *the_clock = nullptr;

uint64_t thread_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

int32_t watched_create(const sluice_host_api *h, const sluice_config *c, const sluice_sched_setup *s,
                       sluice_scheduler **out, sluice_status *st) {
  watch.table = s->table, watch.max_seqs = s->max_seqs;
  return watch.plugin->create(h, c, s, out, st);
}

std::string wrong_with(const sluice_sched_view &view, const sluice_sched_plan &plan) {
  engine::PlanBuffers buffers(watch.table->capacity, watch.max_seqs);
  buffers.resident.assign(view.resident, view.resident + view.n_resident);
  buffers.waiting.assign(view.waiting, view.waiting + view.n_waiting);
  buffers.view = view, buffers.plan = plan;
  return engine::check_plan(buffers, *watch.table);
}

int32_t watched_plan(sluice_scheduler *s, const sluice_sched_view *view, sluice_sched_plan *plan, sluice_status *st) {
  const uint32_t capacity = plan->capacity, victims = plan->victim_capacity;
  const uint64_t started = thread_ns();
  const int32_t code = watch.plugin->plan(s, view, plan, st);
  watch.plan_ns.push_back(thread_ns() - started);
  const auto mix = [](uint64_t x) { watch.fingerprint = (watch.fingerprint ^ x) * 0x100000001b3ull; };
  mix(static_cast<uint64_t>(code));
  std::string wrong;
  if (code != SLUICE_OK) {
    wrong = fmt::format("plan() failed with code {}", code);
  } else if (plan->n_acts > capacity || plan->n_victims > victims || plan->capacity != capacity) {
    wrong = fmt::format("{} acts and {} victims, with room for {} and {}", plan->n_acts, plan->n_victims, capacity, victims);
  } else {
    for (uint32_t i = 0; i < plan->n_acts; ++i) mix(plan->op[i]), mix(plan->ref[i]), mix(plan->tokens[i]);
    wrong = wrong_with(*view, *plan);
  }
  if (!wrong.empty() && watch.n_wrong++ == 0) watch.first_wrong = wrong;
  return code;
}

struct Trace {
  std::string failure;
  uint64_t fingerprint = 0;
};

class Traffic {
 public:
  explicit Traffic(const Subject &subject) : subject_(subject), host_(*subject.api()) {
    the_clock = &clock_;
    host_.now_ns = [](sluice_host *) { return the_clock->now_ns(); };
    watched_ = *subject.desc().scheduler;
    watched_.create = watched_create, watched_.plan = watched_plan;
    backend_ = sdk::BackendAdapter<InstantBackend>::vtbl();
    decoder_ = sdk::DecoderAdapter<PlainDecoder>::vtbl();
    sluice_decoder_setup setup{};
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_setup, target);
    decoder_.create(&host_, nullptr, &setup, &decoder_instance_, nullptr);
  }
  ~Traffic() { decoder_.destroy(decoder_instance_); }

  Trace run(uint64_t seed) {
    watch.plugin = subject_.desc().scheduler;
    watch.fingerprint = 14695981039346656037ull;
    Trace trace;
    engine::EngineLimits limits;
    limits.max_seqs = 8, limits.token_budget = 64, limits.max_live = 64, limits.waiting_window = 32;
    limits.max_context = 512, limits.vocab_size = kVocab, limits.block_size = 16;
    limits.kv_blocks = seed % 3 == 0 ? 200 : 36;  // enough for all, or for about three long ones
    limits.watermark_blocks = 1;
    engine::EngineParts parts;
    parts.host = &host_, parts.clock = &clock_;
    parts.backend_name = "instant", parts.backend = &backend_, parts.model = reinterpret_cast<sluice_model *>(static_cast<sdk::Model *>(&model_));
    parts.scheduler_name = subject_.library().metadata.name, parts.scheduler = &watched_;
    parts.scheduler_options = subject_.options()->handle();
    parts.decoder_name = "plain", parts.decoder = &decoder_, parts.decoder_instance = decoder_instance_;
    auto core = engine::EngineCore::create(parts, limits);
    if (!core) {
      trace.failure = "creating it is refused: " + core.error().message;
      return trace;
    }
    drive(**core, seed, trace);
    trace.fingerprint = watch.fingerprint;
    return trace;
  }

 private:
  void drive(engine::EngineCore &core, uint64_t seed, Trace &trace) {
    std::mt19937_64 random(seed);
    uint32_t to_come = 40;
    uint64_t next_id = 1;
    int steps = 0;
    for (; steps < kMaxSteps && (to_come > 0 || core.live() > 0); ++steps) {
      while (to_come > 0 && core.live() < 60 && (core.live() == 0 || random() % 4 == 0)) {
        auto request = std::make_shared<request::Request>();
        request->id = next_id++;
        request->prompt.assign(1 + random() % (random() % 4 == 0 ? 300 : 40), 3);
        request->max_new = static_cast<uint32_t>(1 + random() % 60);
        request->arrival_ns = clock_.now_ns();
        request->priority = static_cast<int32_t>(random() % 3);
        request->seed = request->id;
        request->events = std::make_shared<request::EventChannel>(nullptr);
        if (const auto r = core.submit(request); !r) trace.failure = r.error().message;
        --to_come;
      }
      if (to_come > 0 && next_id > 1 && random() % 50 == 0) core.cancel(1 + random() % (next_id - 1), request::CancelCause::kClient);
      core.step(0);
      clock_.advance_ns(1'000'000);
      if (const std::string wrong = core.audit(); !wrong.empty()) trace.failure = "the core's own books are wrong: " + wrong;
      if (!trace.failure.empty()) return;
    }
    if (core.live() > 0)
      trace.failure = fmt::format("{} sequences are still there after {} steps", core.live(), steps);
  }

  const Subject &subject_;
  ManualClock clock_;
  sluice_host_api host_;
  InstantModel model_;
  sluice_scheduler_vtbl watched_{};
  sluice_backend_vtbl backend_{};
  sluice_decoder_vtbl decoder_{};
  sluice_decoder *decoder_instance_ = nullptr;
};

struct PlanTimes {
  double p50_us = 0, p99_us = 0;
  std::string text;
};

PlanTimes plan_times() {
  auto &ns = watch.plan_ns;
  if (ns.empty()) return {0, 0, "no plans"};
  std::sort(ns.begin(), ns.end());
  const auto at = [&](size_t part, size_t of) { return static_cast<double>(ns[std::min(ns.size() - 1, ns.size() * part / of)]) * 1e-3; };
  return {at(1, 2), at(99, 100),
          fmt::format("{} plans, CPU time p50 {:.1f} us, p90 {:.1f} us, p99 {:.1f} us, p99.9 {:.1f} us, most {:.1f} us", ns.size(),
                      at(1, 2), at(9, 10), at(99, 100), at(999, 1000), at(1, 1))};
}

}  // namespace

void bench_scheduler(const Subject &subject, Findings &findings) {
  for (uint64_t seed = 0; seed < kBenchTraces; ++seed) {
    const Trace trace = Traffic(subject).run(seed);
    if (!trace.failure.empty()) return findings.skip("it does not stand the traffic of `plugins check`: " + trace.failure);
  }
  findings.note("plan, with up to 8 running and 32 shown as waiting: " + plan_times().text);
}

void check_scheduler(const std::string &path, Findings &findings) {
  const auto subject = Subject::load(path, findings);
  if (!subject) return;
  if (subject->options() == nullptr) return findings.skip("it has a required option: " + subject->needs_options());
  const auto begin = std::chrono::steady_clock::now();
  uint64_t seed = 0;
  for (; seed < kTraces && std::chrono::steady_clock::now() - begin < kEnough; ++seed) {
    findings.doing(fmt::format("random traffic, trace {}", seed));
    const Trace trace = Traffic(*subject).run(seed);
    if (!trace.failure.empty())
      return findings.fail("H3 everybody finishes", fmt::format("trace {}: {}", seed, trace.failure),
                           "age those who wait, and let somebody run whenever somebody can");
    if (watch.n_wrong > 0)
      return findings.fail("H2 plans are valid", fmt::format("trace {}: {} plans were refused, the first because: {}", seed,
                                                             watch.n_wrong, watch.first_wrong),
                           "the host ran such a step first come, first served; see kinds/scheduler.h and sched.h");
    if (seed < 8 && Traffic(*subject).run(seed).fingerprint != trace.fingerprint)
      return findings.fail("H4 the same trace gives the same plans", fmt::format("trace {} went another way the second time", seed),
                           "plan() is a function of events and views: no clock, no addresses, no random numbers but rng.h");
  }
  const PlanTimes times = plan_times();
  findings.note(fmt::format("{} traces, {}", seed, times.text));
  if (times.p50_us > 2000)
    findings.fail("H5 a plan takes less than 2 ms", fmt::format("half of them take more than {:.0f} us", times.p50_us), "no allocation, no sorting of all who wait");
  else if (times.p99_us > 200)
    findings.warn("H5 a plan takes less than 2 ms", fmt::format("p99 is {:.0f} us; the aim is 200", times.p99_us), "look at the slowest steps");
}

}  // namespace sluice::conformance

// Stage J: what may be called from many threads at once is, while the instance lives.
#include <fmt/format.h>

#include <atomic>
#include <boost/json/object.hpp>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "core/conformance/stages.hpp"

namespace sluice::conformance {
namespace {

constexpr int kThreads = 16, kCalls = 200;

/// Every thread makes the same call again and again; the codes that are no answer are collected.
void hammer(Findings &findings, const char *what, const std::function<Result<>(int)> &call,
            const std::function<bool(Code)> &allowed) {
  findings.doing(fmt::format("{} from {} threads", what, kThreads));
  std::atomic<int> wrong{0};
  std::atomic<bool> go{false};
  std::string first;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      while (!go) std::this_thread::yield();
      for (int i = 0; i < kCalls; ++i) {
        const auto r = call(t * kCalls + i);
        if (r || allowed(r.error().code)) continue;
        const std::lock_guard lock(mutex);
        if (wrong++ == 0) first = r.error().message;
      }
    });
  go = true;
  for (auto &thread : threads) thread.join();
  if (wrong > 0)
    findings.fail("J1 [io] and [any] functions bear many threads", fmt::format("{}: {} of {} calls failed, the first: {}", what, wrong.load(),
                                                                               kThreads * kCalls, first),
                  "such a function changes nothing that another call can see, or locks what it changes");
}

}  // namespace

void check_threads(const std::string &path, const std::string &model, Findings &findings) {
  const auto subject = Subject::load(path, findings);
  if (!subject) return;
  if (subject->options() == nullptr) return findings.skip("it has a required option: " + subject->needs_options());
  const auto none = [](Code) { return false; };
  const auto created = [&](const auto &made) {
    if (!made) findings.skip("creating it is refused: " + made.error().message);
    return made.has_value();
  };
  // What a request may set, as it would be set: the defaults.
  const auto options = plugin::Options::from_json(*subject->options(), boost::json::object());
  if (!options) return findings.skip("its options cannot be set: " + options.error().message);
  if (subject->is(SLUICE_KIND_SAMPLER)) {
    const auto made = plugin::Sampler::create(subject->library(), subject->api(), *subject->options(), plain_model(512));
    if (created(made)) hammer(findings, "validate()", [&](int) { return (*made)->validate(**options); }, none);
  }
  if (subject->is(SLUICE_KIND_DECODER)) {
    const auto made = plugin::Decoder::create(subject->library(), subject->api(), *subject->options(), 8, plain_model(512));
    if (created(made)) hammer(findings, "validate()", [&](int) { return (*made)->validate(**options); }, none);
  }
  if (subject->is(SLUICE_KIND_BACKEND)) {
    const auto made = plugin::Backend::open(subject->library(), subject->api(), *subject->options());
    if (created(made)) hammer(findings, "health()", [&](int) { return (*made)->health(); }, none);
  }
  if (subject->is(SLUICE_KIND_ENGINE)) {
    const auto made = plugin::ForeignEngine::open(subject->library(), subject->api(), *subject->options(), model);
    if (!created(made)) return;
    const auto &engine = **made;
    hammer(findings, "health()", [&](int) { return engine.health(); }, none);
    const int32_t prompt[] = {5, 6, 7};
    sluice_sample_spec spec{};
    spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
    spec.temperature = spec.top_p = spec.repetition = 1;
    const auto generate_and_cancel = [&](int i) -> Result<> {
      sluice_engine_request r{};
      r.struct_size = SLUICE_SIZE_THROUGH(sluice_engine_request, request);
      r.input_kind = SLUICE_INPUT_TOKENS, r.request_id = static_cast<uint64_t>(i) + 1;
      r.prompt = prompt, r.n_prompt = 3, r.max_new = 4, r.spec = &spec, r.request = (*options)->handle();
      if (auto taken = engine.generate(r); !taken) return taken;
      const auto cancelled = engine.cancel(r.request_id);
      return cancelled || cancelled.error().code == Code::kNotFound ? Result<>{} : cancelled;
    };
    if ((engine.info().inputs & SLUICE_INPUT_TOKENS) != 0)
      hammer(findings, "generate() and cancel()", generate_and_cancel,
             [](Code code) { return code == Code::kResourceExhausted || code == Code::kUnavailable; });
  }
}

}  // namespace sluice::conformance

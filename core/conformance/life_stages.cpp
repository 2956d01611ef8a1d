// Stages D and E: creating and destroying, and calls that are unusual but allowed.
#include <dirent.h>
#include <fmt/format.h>
#include <malloc.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "core/conformance/stages.hpp"

namespace sluice::conformance {
namespace {

constexpr int kCycles = 200, kWarmCycles = 50;
constexpr uint64_t kKinds[] = {SLUICE_KIND_BACKEND, SLUICE_KIND_ENGINE, SLUICE_KIND_SCHEDULER, SLUICE_KIND_SAMPLER,
                               SLUICE_KIND_DECODER};

size_t entries_of(const char *folder) {
  DIR *dir = ::opendir(folder);
  if (dir == nullptr) return 0;
  size_t n = 0;
  while (::readdir(dir) != nullptr) ++n;
  ::closedir(dir);
  return n;
}
size_t n_files() { return entries_of("/proc/self/fd"); }
size_t n_threads() { return entries_of("/proc/self/task"); }
/// A thread is listed for a moment after it was joined.
size_t settled_threads(size_t expected) {
  for (int i = 0; i < 200 && n_threads() > expected; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return n_threads();
}
size_t heap_bytes() {
  const auto info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

/// Loads it and says why it is of no use for creating.
std::unique_ptr<Subject> ready(const std::string &path, Findings &findings) {
  auto subject = Subject::load(path, findings);
  if (subject && subject->options() == nullptr) {
    findings.skip("it has a required option: " + subject->needs_options());
    return nullptr;
  }
  return subject;
}

void cycle(const Subject &subject, uint64_t kind, const std::string &model, Findings &findings) {
  const std::string what = plugin::kind_name(kind);
  findings.doing("creating and destroying a " + what + " " + std::to_string(kCycles) + " times");
  const size_t threads = n_threads();
  size_t files = 0, heap = 0;
  for (int i = 0; i < kCycles; ++i) {
    if (i == kWarmCycles) files = n_files(), heap = heap_bytes();
    const auto made = subject.create(kind, model);
    if (!made && i == 0) return findings.skip("creating it from its defaults is refused: " + made.error().message);
    if (!made)
      return findings.fail("D1 creating works every time", fmt::format("time {}: {}", i + 1, made.error().message),
                           "give back everything in destroy (or close)");
  }
  if (const size_t now = settled_threads(threads); now > threads)
    findings.fail("D2 no thread survives", fmt::format("{} more threads than before", now - threads),
                  "join every thread in destroy (or close)");
  if (const size_t now = n_files(); now > files)
    findings.fail("D3 no file survives", fmt::format("{} more open files after {} cycles", now - files, kCycles - kWarmCycles),
                  "close what create opened");
  const size_t grown = heap_bytes() > heap ? heap_bytes() - heap : 0;
  if (grown > size_t{kCycles - kWarmCycles} * 16)
    findings.fail("D4 no memory survives", fmt::format("{} bytes more after {} cycles", grown, kCycles - kWarmCycles),
                  "free what create allocated, also in its failing paths");
  const uint64_t calls = Subject::n_callbacks();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  if (Subject::n_callbacks() != calls)
    findings.fail("D5 silence after the end", "it logs or sends events after destroy (or close) has returned",
                  "join the threads that call the host first");
}

int32_t create_without_status(const Subject &s, uint64_t kind, const std::string &model) {
  const auto &d = s.desc();
  const auto *config = s.options()->handle();
  if (kind == SLUICE_KIND_BACKEND) {
    sluice_backend_open open{};
    open.struct_size = SLUICE_SIZE_THROUGH(sluice_backend_open, config);
    open.config = config;
    sluice_backend *made = nullptr;
    const int32_t code = d.backend->open(s.api(), &open, &made, nullptr);
    if (code == SLUICE_OK) d.backend->close(made);
    return code;
  }
  if (kind == SLUICE_KIND_ENGINE) {
    sluice_engine *made = nullptr;
    const int32_t code = d.engine->open(s.api(), config, model.c_str(), &made, nullptr);
    if (code == SLUICE_OK) d.engine->close(made);
    return code;
  }
  if (kind == SLUICE_KIND_SCHEDULER) {
    sluice_scheduler *made = nullptr;
    const int32_t code = d.scheduler->create(s.api(), config, &s.sched_setup(), &made, nullptr);
    if (code == SLUICE_OK) d.scheduler->destroy(made);
    return code;
  }
  const sluice_model_info info = plain_model(512);
  if (kind == SLUICE_KIND_SAMPLER) {
    sluice_sampler *made = nullptr;
    const int32_t code = d.sampler->create(s.api(), config, &info, &made, nullptr);
    if (code == SLUICE_OK) d.sampler->destroy(made);
    return code;
  }
  sluice_decoder_setup setup{};
  setup.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_setup, target);
  setup.max_seqs = 8, setup.target = &info;
  sluice_decoder *made = nullptr;
  const int32_t code = d.decoder->create(s.api(), config, &setup, &made, nullptr);
  if (code == SLUICE_OK) d.decoder->destroy(made);
  return code;
}

/// What a status must be after a failure.
void check_status(int32_t code, const sluice_status &st, const char *call, Findings &findings) {
  if (code < SLUICE_OK || code > SLUICE_E_ABI)
    findings.fail("E3 codes of the list", fmt::format("{} returned {}", call, code), "return one of SLUICE_E_*");
  if (st.msg_len >= sizeof st.msg || st.msg[st.msg_len] != '\0')
    findings.fail("E4 a whole message", fmt::format("{}: msg_len is {} and no NUL stands there", call, st.msg_len),
                  "msg_len counts the bytes before the NUL, at most 495");
  else if (st.msg_len == 0)
    findings.warn("E4 a whole message", std::string(call) + " failed without a message", "say the thing, the value, the remedy");
}

void refuse_unknown_form(const Subject &subject, Findings &findings) {
  const auto *v = subject.desc().sampler;
  auto made = subject.create(SLUICE_KIND_SAMPLER, "");
  if (!made || v->apply == nullptr) return;
  auto *sampler = static_cast<plugin::Sampler *>(made->get())->get();
  float logits[8] = {};
  sluice_sample_batch batch{};
  batch.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_batch, sync);
  batch.form = 1u << 14;
  batch.vocab_size = 8, batch.logits_host = logits;
  sluice_sample_out out{};
  out.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_out, token_dev);
  sluice_status st = plugin::fresh_status();
  findings.doing("apply() with a form of row that does not exist");
  const int32_t code = v->apply(sampler, &batch, &out, &st);
  if (code == SLUICE_OK)
    findings.fail("E1 what is unknown and matters is refused", "apply() accepted the form 0x4000",
                  "return SLUICE_E_UNSUPPORTED for a form that is not among vtbl.forms");
  else check_status(code, st, "apply", findings);
  (void)v->apply(sampler, &batch, &out, nullptr);
  findings.doing("apply() and commit() of nothing");
  batch.form = (v->forms & SLUICE_ROW_LOGITS_HOST) != 0 ? SLUICE_ROW_LOGITS_HOST : SLUICE_ROW_CANDIDATES;
  const uint32_t indptr[1] = {0};
  if (v->apply(sampler, &batch, &out, nullptr) != SLUICE_OK ||
      v->commit(sampler, nullptr, indptr, nullptr, nullptr, 0, nullptr) != SLUICE_OK)
    findings.fail("E2 empty calls succeed", "apply() or commit() of nothing failed", "loops over zero rows end at once");
}

void plan_nothing(const Subject &subject, Findings &findings) {
  const auto *v = subject.desc().scheduler;
  auto made = subject.create(SLUICE_KIND_SCHEDULER, "");
  if (!made) return;
  auto *scheduler = static_cast<sluice_scheduler *>(made->get());
  sluice_sched_events events{};
  events.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_events, device_ns);
  findings.doing("on_events() without events, plan() of an empty view");
  if (v->on_events(scheduler, &events, nullptr) != SLUICE_OK)
    findings.fail("E2 empty calls succeed", "on_events() without events failed", "loops over zero events end at once");
  sluice_sched_view view{};
  view.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_view, swap_out_bytes_per_s);
  view.now_ns = 1, view.step_no = 1, view.token_budget = 64, view.max_seqs = 8, view.max_prefills = 8;
  view.block_size = 16, view.device_total = view.device_free = 32;
  sluice_sched_plan plan{};
  plan.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_plan, wake_at_ns);
  sluice_status st = plugin::fresh_status();
  const int32_t code = v->plan(scheduler, &view, &plan, &st);
  if (code != SLUICE_OK) {
    findings.fail("E2 empty calls succeed", "plan() of an empty view failed", "an empty plan is a good answer");
    check_status(code, st, "plan", findings);
  } else if (plan.n_acts != 0) {
    findings.fail("H1 acts within the room", fmt::format("{} acts, and there was room for none", plan.n_acts),
                  "write at most plan.capacity acts, and only about refs of the view");
  }
}

void refuse_unknown_input(const Subject &subject, const std::string &model, Findings &findings) {
  const auto *v = subject.desc().engine;
  auto made = subject.create(SLUICE_KIND_ENGINE, model);
  if (!made) return;
  auto *engine = static_cast<plugin::ForeignEngine *>(made->get())->get();
  const int32_t prompt[2] = {1, 2};
  sluice_sample_spec spec{};
  spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  sluice_engine_request request{};
  request.struct_size = SLUICE_SIZE_THROUGH(sluice_engine_request, request);
  request.input_kind = 0x4000, request.request_id = 1, request.prompt = prompt, request.n_prompt = 2, request.max_new = 1;
  request.spec = &spec;
  sluice_status st = plugin::fresh_status();
  findings.doing("generate() with a kind of input that does not exist");
  const int32_t code = v->generate(engine, &request, &st);
  if (code == SLUICE_OK)
    findings.fail("E1 what is unknown and matters is refused", "generate() accepted the input kind 0x4000",
                  "return SLUICE_E_UNSUPPORTED for an input that info() does not list");
  else check_status(code, st, "generate", findings);
  findings.doing("cancel() of a request that never was");
  st = plugin::fresh_status();
  if (const int32_t c = v->cancel(engine, 999, &st); c != SLUICE_E_NOT_FOUND)
    findings.fail("E5 cancel of an unknown request", fmt::format("returned {}", c), "return SLUICE_E_NOT_FOUND");
}

}  // namespace

void check_life_cycle(const std::string &path, const std::string &model, Findings &findings) {
  const auto subject = ready(path, findings);
  if (!subject) return;
  for (const uint64_t kind : kKinds)
    if (subject->is(kind)) cycle(*subject, kind, model, findings);
}

void check_status_handling(const std::string &path, const std::string &model, Findings &findings) {
  const auto subject = ready(path, findings);
  if (!subject) return;
  for (const uint64_t kind : kKinds) {
    if (!subject->is(kind)) continue;
    findings.doing(std::string("creating a ") + plugin::kind_name(kind) + " with a NULL status");
    const bool with = static_cast<bool>(subject->create(kind, model));
    const bool without = create_without_status(*subject, kind, model) == SLUICE_OK;
    if (with != without)
      findings.fail("E6 a status may be NULL", "creating ends differently without a status", "ask SLUICE_HAS(st, sluice_status, msg)");
  }
}

void check_hostile_calls(const std::string &path, const std::string &model, Findings &findings) {
  const auto subject = ready(path, findings);
  if (!subject) return;
  if (subject->is(SLUICE_KIND_SAMPLER)) refuse_unknown_form(*subject, findings);
  if (subject->is(SLUICE_KIND_SCHEDULER)) plan_nothing(*subject, findings);
  if (subject->is(SLUICE_KIND_ENGINE)) refuse_unknown_input(*subject, model, findings);
}

}  // namespace sluice::conformance

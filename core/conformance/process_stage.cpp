// Stage K: the same library in a process of its own. Its answers are those that it gives here.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>

#include "core/conformance/backend_driver.hpp"
#include "core/isolation/isolated_plugin.hpp"

namespace sluice::conformance {

namespace {

/// What an engine has said, by request.
struct Said {
  std::vector<int32_t> tokens;
  std::string text;
  int32_t finish = SLUICE_FINISH_NO;
  friend bool operator==(const Said &, const Said &) = default;
};
struct Ear {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<uint64_t, Said> said;
};
Ear ear;

int32_t hear_event(sluice_host *, const sluice_engine_event *event) {
  const std::lock_guard lock(ear.mutex);
  Said &said = ear.said[event->request_id];
  if (event->tokens != nullptr) said.tokens.insert(said.tokens.end(), event->tokens, event->tokens + event->n_tokens);
  if (event->text != nullptr) said.text.append(event->text, event->text_bytes);
  said.finish = event->finish;
  ear.changed.notify_all();
  return SLUICE_OK;
}

/// The whole answer to a short prompt; nothing when the engine refuses it or does not end it.
std::optional<Said> answer_of(const plugin::ForeignEngine &engine, const plugin::Options &options, uint64_t id) {
  const int32_t prompt[] = {5, 6, 7};
  sluice_sample_spec spec{};
  spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  spec.top_p = spec.repetition = 1;
  sluice_engine_request request{};
  request.struct_size = SLUICE_SIZE_THROUGH(sluice_engine_request, request);
  request.input_kind = SLUICE_INPUT_TOKENS, request.request_id = id, request.seed = 7;
  request.prompt = prompt, request.n_prompt = 3, request.max_new = 8, request.spec = &spec, request.request = options.handle();
  if (!engine.generate(request)) return {};
  std::unique_lock lock(ear.mutex);
  const auto ended = [id] { return ear.said[id].finish != SLUICE_FINISH_NO; };
  if (!ear.changed.wait_for(lock, std::chrono::seconds(10), ended)) return {};
  return ear.said[id];
}

void compare_engines(const Subject &subject, const plugin::Library &there, const plugin::Options &options,
                     const std::string &model, const char *rule, Findings &findings) {
  findings.doing("an engine in a child");
  sluice_host_api api = *subject.api();
  api.engine_event = hear_event;
  const auto here = plugin::ForeignEngine::open(subject.library(), &api, *subject.options(), model);
  const auto child = plugin::ForeignEngine::open(there, &api, options, model);
  if (here && !child) findings.fail(rule, child.error().message, "it opens in this process");
  if (child)
    if (const auto r = (*child)->health(); !r) findings.fail(rule, r.error().message, "health() is asked for every second");
  if (!here || !child || ((*here)->info().inputs & SLUICE_INPUT_TOKENS) == 0) return;
  const auto first = answer_of(**here, *subject.options(), 1), again = answer_of(**here, *subject.options(), 2);
  if (!first || first != again) return findings.note("not compared: it does not answer the same request twice alike here");
  const auto other = answer_of(**child, options, 3);
  if (!other) return findings.fail(rule, "a request that ends in this process does not in the child", "events go to host.engine_event");
  if (other != first)
    findings.fail(rule, fmt::format("another answer in the child: {} tokens and {} bytes of text, here {} and {}, or others of them",
                                    other->tokens.size(), other->text.size(), first->tokens.size(), first->text.size()),
                  "nothing may depend on the process: no environment, no open files");
}

}  // namespace

void check_process(const std::string &path, const std::string &model, Findings &findings) {
  const std::string program = isolation::plugin_host_program();
  if (::access(program.c_str(), X_OK) != 0) return findings.note("not tried: there is no " + program);
  const auto subject = Subject::load(path, findings);
  if (!subject) return;
  if (subject->options() == nullptr) return findings.skip("it has a required option: " + subject->needs_options());
  findings.doing("loading it in a child");
  const char *rule = "K1 it lives in a process of its own";
  const auto there = isolation::load_isolated(path, subject->library().metadata, {});
  if (!there)
    return findings.fail(rule, there.error().message, "R8: only flat arrays cross, so nothing may rest on shared memory or inherited files");
  const auto options = plugin::Options::defaults(there->schema);
  if (!options) return findings.fail(rule, options.error().message, "the options it publishes are the same everywhere");
  if (subject->is(SLUICE_KIND_ENGINE)) compare_engines(*subject, *there, **options, model, rule, findings);
  if (!subject->is(SLUICE_KIND_BACKEND)) return;
  BackendDriver here(findings), child(findings);
  if (!here.load(subject->library(), subject->api(), *subject->options(), model)) return;
  if (!child.load(*there, subject->api(), **options, model))
    return findings.fail(rule, "the model loads in this process and not in the child", "see the note above");
  for (const size_t n : {size_t{1}, here.prompt().size()}) {
    const std::vector<int32_t> tokens(here.prompt().begin(), here.prompt().begin() + static_cast<std::ptrdiff_t>(n));
    child.expect_same(child.whole(tokens), here.whole(tokens), rule, "the same prompt in both processes",
                      "nothing may depend on the process: no environment, no open files");
  }
}

}  // namespace sluice::conformance

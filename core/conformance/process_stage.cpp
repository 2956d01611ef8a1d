// Stage K: the same library in a process of its own. Its answers are those that it gives here.
#include <unistd.h>

#include "core/conformance/backend_driver.hpp"
#include "core/isolation/isolated_plugin.hpp"

namespace sluice::conformance {

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
  if (subject->is(SLUICE_KIND_ENGINE)) {
    findings.doing("an engine in a child");
    const auto engine = plugin::ForeignEngine::open(*there, subject->api(), **options, model);
    const auto here = plugin::ForeignEngine::open(subject->library(), subject->api(), *subject->options(), model);
    if (here && !engine) findings.fail(rule, engine.error().message, "it opens in this process");
    if (engine)
      if (const auto r = (*engine)->health(); !r) findings.fail(rule, r.error().message, "health() is asked for every second");
  }
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

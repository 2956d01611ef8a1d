#include "core/conformance/check.hpp"

#include "core/conformance/stages.hpp"
#include "core/conformance/tiny_model.hpp"

namespace sluice::conformance {
Report check_plugin(const CheckOptions &options) {
  Report report;
  report.path = options.path;
  const std::string &path = options.path;
  const auto metadata = plugin::read_metadata(path);
  const uint64_t kinds = metadata ? metadata->kinds : 0;
  report.title = metadata ? plugin::kind_names(kinds) + " " + metadata->name + " " + metadata->version : "no plugin";
  const auto run = [&](char stage, const char *name, const std::function<void(Findings &)> &check) -> const CaseResult & {
    return report.cases.emplace_back(run_in_child(stage, name, options.case_timeout, check));
  };
  run('A', "the file", [&](Findings &f) { check_elf(path, f); });
  report.loadable = !run('B', "loading", [&](Findings &f) { check_loading(path, f); }).failed();
  run('B', "a host of another major version", [&](Findings &f) { check_other_major(path, f); });
  if (!report.loadable) return report;
  run('B', "a host with a shorter table", [&](Findings &f) { check_short_host(path, f); });
  run('B', "a host with a longer table", [&](Findings &f) { check_long_host(path, f); });
  run('C', "descriptor and options", [&](Findings &f) { check_descriptor_texts(path, f); });

  std::string model = options.model;
  std::unique_ptr<TinyModel> tiny;
  if (model.empty() && (kinds & (SLUICE_KIND_BACKEND | SLUICE_KIND_ENGINE)) != 0) {
    tiny = std::make_unique<TinyModel>();
    model = tiny->path();
  }
  run('D', "created and destroyed 200 times", [&](Findings &f) { check_life_cycle(path, model, f); });
  run('E', "without a status", [&](Findings &f) { check_status_handling(path, model, f); });
  run('E', "unusual calls", [&](Findings &f) { check_hostile_calls(path, model, f); });
  if ((kinds & SLUICE_KIND_BACKEND) != 0) run('F', "a backend against itself", [&](Findings &f) { check_backend(path, model, f); });
  if ((kinds & SLUICE_KIND_SAMPLER) != 0) run('G', "a sampler's rows", [&](Findings &f) { check_sampler(path, f); });
  if ((kinds & SLUICE_KIND_SCHEDULER) != 0) run('H', "a scheduler in random traffic", [&](Findings &f) { check_scheduler(path, f); });
  if ((kinds & SLUICE_KIND_DECODER) != 0) {
    run('I', "a decoder's drafts", [&](Findings &f) { check_decoder(path, f); });
    run('I', "a decoder in the verifier", [&](Findings &f) { check_decoded_text(path, f); });
  }
  run('J', "calls from many threads", [&](Findings &f) { check_threads(path, model, f); });
  if ((kinds & (SLUICE_KIND_BACKEND | SLUICE_KIND_ENGINE)) != 0)
    run('K', "in a process of its own", [&](Findings &f) { check_process(path, model, f); });
  return report;
}

}  // namespace sluice::conformance

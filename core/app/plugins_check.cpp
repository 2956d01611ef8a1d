#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "core/app/command.hpp"
#include "core/app/paths.hpp"
#include "core/conformance/bench.hpp"
#include "core/conformance/check.hpp"

namespace sluice::app {

void add_plugins_check(CLI::App &plugins, Exit exit) {
  struct Options {
    conformance::CheckOptions check;
    int timeout_s = 60;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  auto *command = plugins.add_subcommand("check", "Try a plugin file against the rules of the ABI, in child processes");
  command->add_option("FILE", options->check.path, "libsluice_<kind>_<name>.so")->required()->check(CLI::ExistingFile);
  command->add_option("--model", options->check.model, "Model for backends and engines (a small random one)")
      ->check(CLI::ExistingPath);
  command->add_option("--timeout", options->timeout_s, "Seconds that one check may take (60)")->check(CLI::Range(1, 3600));
  command->add_flag("--json", options->json, "As JSON");
  command->callback([=] {
    options->check.path = absolute_path(options->check.path);
    if (!options->check.model.empty()) options->check.model = absolute_path(options->check.model);
    options->check.case_timeout = std::chrono::seconds(options->timeout_s);
    const auto report = conformance::check_plugin(options->check);
    fmt::print("{}{}", options->json ? report.json() : report.text(), options->json ? "\n" : "");
    exit(report.exit_code());
  });
}

void add_plugins_bench(CLI::App &plugins, Exit exit) {
  struct Options {
    conformance::CheckOptions bench;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  auto *command = plugins.add_subcommand("bench", "Measure what the calls of a plugin cost");
  command->add_option("FILE", options->bench.path, "libsluice_<kind>_<name>.so")->required()->check(CLI::ExistingFile);
  command->add_option("--model", options->bench.model, "Model for backends and engines (a small random one)")
      ->check(CLI::ExistingPath);
  command->add_flag("--json", options->json, "As JSON");
  command->callback([=] {
    options->bench.path = absolute_path(options->bench.path);
    if (!options->bench.model.empty()) options->bench.model = absolute_path(options->bench.model);
    const auto report = conformance::bench_plugin(options->bench);
    if (options->json) {
      fmt::print("{}\n", report.json());
    } else {
      fmt::print("{}\n{}\n", report.path, report.title);
      for (const auto &c : report.cases)
        for (const auto &f : c.findings) fmt::print("  {:<10} {}\n", c.name, f.message);
    }
    exit(report.exit_code());
  });
}

}  // namespace sluice::app

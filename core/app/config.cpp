#include "core/config/config.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <cstdio>

#include "core/app/command.hpp"
#include "core/app/plugins.hpp"

namespace sluice::app {
namespace {

int report(const std::vector<config::Problem> &problems) {
  for (const auto &problem : problems) fmt::print(stderr, "{}\n", config::to_string(problem));
  if (!problems.empty())
    fmt::print(stderr, "sluice: {} problem{} in the configuration\n", problems.size(), problems.size() == 1 ? "" : "s");
  return problems.empty() ? 0 : 1;
}

int check(const std::string &file) {
  auto loaded = config::load({.path = file, .flags = {}, .read_environment = true});
  check_plugins(loaded.config, loaded.problems);
  const int code = report(loaded.problems);
  if (code == 0) fmt::print("{}: {} model{}, no problems\n", file, loaded.config.models.size(),
                            loaded.config.models.size() == 1 ? "" : "s");
  return code;
}

int print(const std::string &file, bool with_origin) {
  const auto loaded = config::load({.path = file, .flags = {}, .read_environment = true});
  fmt::print("{}", config::print(loaded, with_origin));
  return report(loaded.problems);
}

}  // namespace

void add_config(CLI::App &app, Exit exit) {
  struct Options {
    std::string file;
    bool origin = false;
  };
  auto options = std::make_shared<Options>();
  auto *command = app.add_subcommand("config", "Check or show a configuration");
  command->require_subcommand(1);
  auto *check_command = command->add_subcommand("check", "Report every problem of FILE, and of the plugins it names");
  check_command->add_option("FILE", options->file, "TOML file")->required();
  check_command->callback([=] { exit(check(options->file)); });
  auto *print_command = command->add_subcommand("print", "Show what is in force: flag > environment > file > default");
  print_command->add_option("FILE", options->file, "TOML file; without one, environment and defaults");
  print_command->add_flag("--origin", options->origin, "Say where each value came from");
  print_command->callback([=] { exit(print(options->file, options->origin)); });
  auto *reference_command = command->add_subcommand("reference", "Every key with its default, range and meaning");
  reference_command->callback([=] {
    fmt::print("{}", config::reference());
    exit(0);
  });
}

}  // namespace sluice::app

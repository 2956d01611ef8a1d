#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "core/app/command.hpp"
#include "core/app/plugin_skeletons.hpp"

namespace sluice::app {
namespace {

namespace fs = std::filesystem;

int write_skeleton(const std::string &kind, const std::string &name, const std::string &lang, const std::string &folder) {
  const auto files = plugin_skeleton(kind, name, lang);
  if (!files) return fail(files.error());
  std::error_code error;
  if (fs::exists(folder, error) && !fs::is_empty(folder, error))
    return fail({Code::kInvalidArgument, folder + " exists and is not empty; name another with --dir", {}});
  fs::create_directories(folder, error);
  if (error) return fail({Code::kUnavailable, folder + ": " + error.message(), {}});
  for (const auto &file : *files) {
    const std::string path = (fs::path(folder) / file.name).string();
    std::ofstream out(path, std::ios::binary);
    out << file.content;
    if (!out.flush()) return fail({Code::kUnavailable, path + " cannot be written", {}});
    fmt::print("wrote {}\n", path);
  }
  fmt::print("next: cmake -S {0} -B {0}/build && cmake --build {0}/build && ctest --test-dir {0}/build\n", folder);
  return 0;
}

}  // namespace

void add_plugins_new(CLI::App &plugins, Exit exit) {
  struct Options {
    std::string kind, name, lang = "cpp", folder;
  };
  auto options = std::make_shared<Options>();
  auto *command = plugins.add_subcommand("new", "Write a plugin project that builds and passes the check");
  command->add_option("--kind", options->kind, "backend, engine, scheduler, sampler or decoder")->required();
  command->add_option("--name", options->name, "What TOML will call it")->required();
  command->add_option("--lang", options->lang, "cpp, or c for a sampler (cpp)");
  command->add_option("--dir", options->folder, "Where to; must be empty or new (./NAME)");
  command->callback([=] {
    exit(write_skeleton(options->kind, options->name, options->lang, options->folder.empty() ? options->name : options->folder));
  });
}

}  // namespace sluice::app

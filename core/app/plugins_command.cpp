#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>

#include "core/app/command.hpp"
#include "core/app/plugins.hpp"

namespace sluice::app {
namespace {

std::string abi(const plugin::Metadata &m) {
  return fmt::format("{}.{}, needs {}.{}", m.abi_major, m.abi_minor_built, m.abi_major, m.abi_minor_min);
}

/// Reads metadata only: no plugin code runs.
int list(bool json) {
  auto folders = plugin::search_folders({});
  if (!folders) return fail(folders.error());
  const plugin::Registry registry(*folders);
  if (json) {
    boost::json::array found;
    for (const auto &f : registry.found())
      found.push_back(boost::json::object{{"kind", plugin::kind_names(f.metadata.kinds)},
                                          {"name", f.metadata.name},
                                          {"version", f.metadata.version},
                                          {"abi_major", f.metadata.abi_major},
                                          {"abi_minor_built", f.metadata.abi_minor_built},
                                          {"abi_minor_min", f.metadata.abi_minor_min},
                                          {"needs", f.metadata.needs},
                                          {"path", f.path}});
    boost::json::array rejected;
    for (const auto &r : registry.rejected())
      rejected.push_back(boost::json::object{{"path", r.path}, {"error", r.error.message}});
    fmt::print("{}\n", boost::json::serialize(boost::json::object{{"plugins", found}, {"rejected", rejected}}));
    return 0;
  }
  fmt::print("{:<10} {:<16} {:<10} {:<20} {}\n", "KIND", "NAME", "VERSION", "ABI", "FILE");
  for (const auto &f : registry.found())
    fmt::print("{:<10} {:<16} {:<10} {:<20} {}\n", plugin::kind_names(f.metadata.kinds), f.metadata.name,
               f.metadata.version, abi(f.metadata), f.path);
  for (const auto &r : registry.rejected()) fmt::print("rejected   {}: {}\n", r.path, r.error.message);
  if (registry.found().empty()) fmt::print("no plugins in: {}\n", fmt::join(*folders, ", "));
  return 0;
}

void print_library(const plugin::Library &library) {
  const auto &m = library.metadata;
  fmt::print("{} {}\n  version  {}\n  abi      {}\n  file     {}\n", plugin::kind_names(m.kinds), m.name, m.version,
             abi(m), library.path);
  if (library.desc->license != nullptr) fmt::print("  license  {}\n", library.desc->license);
  if (!m.needs.empty()) fmt::print("  needs    {}\n", m.needs);
  fmt::print("  options{}\n", library.schema->fields().empty() ? "  none" : "");
  for (const auto &field : library.schema->fields())
    fmt::print("    {} = {}\n        {} ({}{})\n", field.key, field.fallback_text.empty() ? "(unset)" : field.fallback_text,
               field.doc, field.expectation(), field.per_request() ? "; a request may set it" : "");
}

/// A table cell: one line, without what Markdown would take for its own.
std::string cell(const std::string &text) {
  std::string out;
  for (const char c : text) {
    if (c == '|' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

void print_markdown(const plugin::Library &library) {
  const auto &m = library.metadata;
  fmt::print("## {} `{}`\n\nVersion {}, plugin ABI {}.{}", plugin::kind_names(m.kinds), m.name, m.version, m.abi_major,
             m.abi_minor_built);
  if (library.desc->license != nullptr) fmt::print(", {}", cell(library.desc->license));
  if (!m.needs.empty()) fmt::print(". Needs {}", cell(m.needs));
  fmt::print(".\n\n");
  if (library.schema->fields().empty()) return fmt::print("It has no options.\n");
  fmt::print("| option | default | values | per request | meaning |\n|---|---|---|---|---|\n");
  for (const auto &field : library.schema->fields())
    fmt::print("| `{}` | {} | {} | {} | {} |\n", field.key,
               field.fallback_text.empty() ? "" : "`" + cell(field.fallback_text) + "`", cell(field.expectation()),
               field.per_request() ? "yes" : "", cell(field.doc));
}

int info(const std::string &name, bool markdown) {
  const SteadyClock clock;
  auto house = PluginHouse::open({}, clock, nullptr);
  if (!house) return fail(house.error());
  auto &registry = (*house)->registry();
  bool any = false;
  for (const auto &found : registry.found()) {
    if (found.metadata.name != name) continue;
    for (uint64_t kind = SLUICE_KIND_BACKEND; kind <= SLUICE_KIND_DECODER; kind <<= 1) {
      if ((found.metadata.kinds & kind) == 0) continue;
      auto library = registry.load(kind, name, *(*house)->host().api());
      if (!library) return fail(library.error());
      markdown ? print_markdown(**library) : print_library(**library);
      any = true;
      break;
    }
  }
  if (any) return 0;
  return fail({Code::kNotFound, fmt::format("no plugin is called '{}'; see `sluice plugins list`", name), {}});
}

}  // namespace

void add_plugins(CLI::App &app, Exit exit) {
  struct Options {
    bool json = false, markdown = false;
    std::string name;
  };
  auto options = std::make_shared<Options>();
  auto *command = app.add_subcommand("plugins", "What is installed, and what it can be told");
  command->require_subcommand(1);
  auto *list_command = command->add_subcommand("list", "Every plugin file, without loading it");
  list_command->add_flag("--json", options->json, "As JSON");
  list_command->callback([=] { exit(list(options->json)); });
  auto *info_command = command->add_subcommand("info", "Load one and show its options");
  info_command->add_option("NAME", options->name, "As in TOML")->required();
  info_command->add_flag("--markdown", options->markdown, "As Markdown");
  info_command->callback([=] { exit(info(options->name, options->markdown)); });
  add_plugins_check(*command, exit);
  add_plugins_bench(*command, exit);
  add_plugins_new(*command, exit);
}

}  // namespace sluice::app

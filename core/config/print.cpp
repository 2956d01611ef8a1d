#include <fmt/format.h>

#include "core/config/check.hpp"
#include "core/config/value.hpp"
#include "core/config/variables.hpp"
#include "core/config/words.hpp"

namespace sluice::config {
namespace {

std::string described(const Origin &origin) {
  switch (origin.kind) {
    case Origin::Kind::kFile:
      return fmt::format("from {}:{}", origin.name, origin.line);
    case Origin::Kind::kEnvironment:
      return "env " + origin.name;
    case Origin::Kind::kFlag:
      return "flag " + origin.name;
    case Origin::Kind::kDefault:
      break;
  }
  return "default";
}

void add_section(std::string &out, const Section &section) {
  out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section.name);
  for (const Field &field : section.fields) {
    const std::string value = rendered(field), variable = variable_name(section, field);
    out += fmt::format("# {}; {}; {}\n", field.doc, expectation(field), variable);
    out += value.empty() ? fmt::format("# {} = \"...\"\n", field.key) : fmt::format("{} = {}\n", field.key, value);
  }
}

}  // namespace

std::string to_string(const Problem &problem) {
  const Origin &o = problem.origin;
  std::string where = printable(o.name);
  if (o.kind == Origin::Kind::kFile && o.line != 0) where += fmt::format(":{}", o.line);
  return where.empty() ? problem.message : fmt::format("{}: {}", where, problem.message);
}

std::string print(const Loaded &loaded, bool with_origin) {
  std::string out, section;
  for (const Loaded::Line &line : loaded.lines) {
    if (line.section != section) out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", line.section);
    section = line.section;
    const bool hidden = line.secret && line.value != "[]" && line.value != "\"\"";
    std::string note = with_origin ? printable(described(line.origin)) : "";
    if (hidden) note += std::string(note.empty() ? "" : ", ") + "secret: put it back before use";
    out += fmt::format("{}{} = {}{}{}\n", hidden ? "# " : "", line.key.substr(section.size() + 1), line.value,
                       note.empty() ? "" : " # ", note);
  }
  return out;
}

std::string reference() {
  Config config;
  config.models.emplace_back().name = "NAME";
  std::string out;
  add_section(out, {"server", fields_of(config.server)});
  add_section(out, {"plugins", fields_of(config.plugins)});
  add_section(out, {section_of(config.models[0]), fields_of(config.models[0])});
  return out +
         "\n# Options of a backend that several models share: they say backend = \"X\".\n"
         "# [backends.X]\n"
         "# use = \"cpu\"\n";
}

}  // namespace sluice::config

#include "core/conformance/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

namespace sluice::conformance {
namespace {

const char *word(Severity severity) {
  switch (severity) {
    case Severity::kFailure: return "failure";
    case Severity::kWarning: return "warning";
    case Severity::kNote: return "note";
  }
  return "?";
}

const char *verdict(const CaseResult &c) { return c.failed() ? "FAILED" : c.skipped ? "skipped" : "ok"; }

}  // namespace

bool CaseResult::failed() const {
  return std::any_of(findings.begin(), findings.end(), [](const Finding &f) { return f.severity == Severity::kFailure; });
}

size_t Report::failures() const {
  return static_cast<size_t>(std::count_if(cases.begin(), cases.end(), [](const CaseResult &c) { return c.failed(); }));
}

int Report::exit_code() const { return !loadable ? 2 : failures() > 0 ? 1 : 0; }

std::string Report::text() const {
  std::string out = fmt::format("{}\n{}\n", path, title);
  for (const auto &c : cases) {
    out += fmt::format("  {} {:<44} {:>7.2f} s  {}\n", c.stage, c.name, c.seconds, verdict(c));
    for (const auto &f : c.findings) {
      const bool plain = f.severity == Severity::kNote;
      out += fmt::format("      {}: {}\n", plain ? "note" : fmt::format("{}: {}", word(f.severity), f.rule), f.message);
      if (!f.fix.empty()) out += fmt::format("        fix: {}\n", f.fix);
    }
  }
  if (!loadable) return out + "could not be loaded\n";
  return out + (failures() == 0 ? "passed\n" : fmt::format("{} check(s) failed\n", failures()));
}

std::string Report::json() const {
  boost::json::array list;
  for (const auto &c : cases) {
    boost::json::array findings;
    for (const auto &f : c.findings)
      findings.push_back(boost::json::object{
          {"severity", word(f.severity)}, {"rule", f.rule}, {"message", f.message}, {"fix", f.fix}});
    list.push_back(boost::json::object{{"stage", std::string(1, c.stage)},
                                       {"name", c.name},
                                       {"verdict", verdict(c)},
                                       {"seconds", c.seconds},
                                       {"findings", findings}});
  }
  const char *outcome = !loadable ? "not loadable" : failures() == 0 ? "passed" : "failed";
  return boost::json::serialize(
      boost::json::object{{"file", path}, {"plugin", title}, {"outcome", outcome}, {"checks", list}});
}

}  // namespace sluice::conformance

#pragma once
#include <string>
#include <vector>

namespace sluice::conformance {

enum class Severity { kFailure, kWarning, kNote };

/// One thing found about a plugin.
/// rule  "A2 no undefined symbols"; message what was seen; fix what the author does about it
struct Finding {
  Severity severity = Severity::kFailure;
  std::string rule, message, fix;
};

/// One check, run in a process of its own.
struct CaseResult {
  char stage = '?';
  std::string name;
  double seconds = 0;
  std::vector<Finding> findings;

  bool failed() const;
  bool skipped = false;  ///< a note says why
};

struct Report {
  std::string path, title;
  bool loadable = true;  ///< false: nothing behind stage B could run
  std::vector<CaseResult> cases;

  size_t failures() const;
  int exit_code() const;  ///< 0 passed, 1 failed, 2 cannot be loaded
  std::string text() const;
  std::string json() const;
};

}  // namespace sluice::conformance

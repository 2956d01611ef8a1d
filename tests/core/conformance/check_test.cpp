// The checker itself: the good fixtures pass, and each rule catches the fixture that breaks it.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <sys/stat.h>

#include "core/conformance/bench.hpp"
#include "core/conformance/check.hpp"

namespace sluice::conformance {
namespace {

std::string fixture(const std::string &kind, const std::string &name) {
  return std::string(SLUICE_FIXTURES) + "/libsluice_" + kind + "_" + name + ".so";
}
Report check(const std::string &path, int timeout_s = 60) {
  CheckOptions options;
  options.path = path;
  options.case_timeout = std::chrono::seconds(timeout_s);
  return check_plugin(options);
}
bool found(const Report &report, char stage, const std::string &rule) {
  for (const auto &c : report.cases)
    for (const auto &f : c.findings)
      if (c.stage == stage && f.severity == Severity::kFailure && f.rule.starts_with(rule)) return !f.message.empty() && !f.fix.empty();
  return false;
}

struct Bad {
  const char *kind, *name;
  char stage;
  const char *rule;
};
void PrintTo(const Bad &bad, std::ostream *out) { *out << bad.kind << " " << bad.name; }

class EachRule : public ::testing::TestWithParam<Bad> {};

TEST_P(EachRule, CatchesTheOneThatBreaksIt) {
  const Bad bad = GetParam();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  if (std::string(bad.name) == "leaks") GTEST_SKIP() << "a sanitizer's heap does not say how large it is";
#endif
  const std::string own = fixture(bad.kind, bad.name);  // where the file itself is wrong
  ::setenv("SLUICE_TEST_WRONG", bad.name, 1);
  ::setenv("SLUICE_PLUGIN_PATH", SLUICE_PLUGIN_DIR, 1);  // where the oracle is
  const Report report = check(std::filesystem::exists(own) ? own : fixture(bad.kind, "bad"), std::string(bad.name) == "never_returns" ? 2 : 60);
  EXPECT_TRUE(found(report, bad.stage, bad.rule)) << "no failure " << bad.rule << " in\n" << report.text();
  EXPECT_NE(report.exit_code(), 0);
}

INSTANTIATE_TEST_SUITE_P(Sampler, EachRule, ::testing::Values(
    Bad{"sampler", "exports_more", 'A', "A1"}, Bad{"sampler", "undefined", 'A', "A2"},
    Bad{"sampler", "undefined", 'B', "B1"}, Bad{"sampler", "takes_any_major", 'B', "B2"},
    Bad{"sampler", "reads_far", 'B', "the process stays alive"}, Bad{"sampler", "equal_sizes", 'B', "B4"},
    Bad{"sampler", "bad_version", 'C', "C2"}, Bad{"sampler", "no_doc", 'C', "C3"}, Bad{"sampler", "leaks", 'D', "D4"},
    Bad{"sampler", "leaks_threads", 'D', "D2"}, Bad{"sampler", "leaks_files", 'D', "D3"},
    Bad{"sampler", "crashes", 'D', "the process stays alive"}, Bad{"sampler", "exits", 'D', "the process stays alive"},
    Bad{"sampler", "never_returns", 'D', "R7"}, Bad{"sampler", "throws", 'E', "R3"},
    Bad{"sampler", "needs_status", 'E', "the process stays alive"}, Bad{"sampler", "any_form", 'E', "E1"},
    Bad{"sampler", "counts_calls", 'G', "G3"}, Bad{"sampler", "knows_rows", 'G', "G4"},
    Bad{"sampler", "shares_forks", 'G', "G5"}, Bad{"sampler", "hides_state", 'G', "G6"},
    Bad{"sampler", "other_lower", 'G', "G7"}, Bad{"sampler", "out_of_range", 'G', "G2"},
    Bad{"sampler", "writes_behind", 'G', "G2"}, Bad{"sampler", "second_best", 'G', "G8"},
    Bad{"sampler", "masks_add", 'G', "G9"}, Bad{"sampler", "masks_path", 'G', "G9"},
    Bad{"sampler", "masks_dead", 'G', "G9"}, Bad{"sampler", "one_thread", 'J', "J1"}));

INSTANTIATE_TEST_SUITE_P(Scheduler, EachRule, ::testing::Values(
    Bad{"scheduler", "empty_fails", 'E', "E2"}, Bad{"scheduler", "too_many_tokens", 'H', "H2"},
    Bad{"scheduler", "closes_files", 'D', "the process stays alive"},
    Bad{"scheduler", "starves", 'H', "H3"}, Bad{"scheduler", "clock", 'H', "H4"}));

INSTANTIATE_TEST_SUITE_P(Backend, EachRule, ::testing::Values(
    Bad{"backend", "chunks", 'F', "F4"}, Bad{"backend", "blocks", 'F', "F5"}, Bad{"backend", "company", 'F', "F6"},
    Bad{"backend", "copies", 'F', "F7"}, Bad{"backend", "siblings", 'F', "F10"}, Bad{"backend", "moves", 'F', "F11"},
    Bad{"backend", "swaps", 'F', "F12"}, Bad{"backend", "other_logits", 'F', "F13"}, Bad{"backend", "nan", 'F', "F2"},
    Bad{"backend", "keeps_pointers", 'F', "F"}, Bad{"backend", "any_flag", 'F', "F8"},
    Bad{"backend", "knows_process", 'K', "K1"}));

INSTANTIATE_TEST_SUITE_P(Engine, EachRule, ::testing::Values(
    Bad{"engine", "leaks_threads", 'D', "D2"}, Bad{"engine", "any_input", 'E', "E1"}, Bad{"engine", "cancels_all", 'E', "E5"},
    Bad{"engine", "one_thread", 'J', "J1"}, Bad{"engine", "knows_process", 'K', "K1"}));

INSTANTIATE_TEST_SUITE_P(Decoder, EachRule, ::testing::Values(
    Bad{"decoder", "no_proposals", 'I', "I1"}, Bad{"decoder", "branch_and_draft", 'I', "I1"},
    Bad{"decoder", "self_parent", 'I', "I2"}, Bad{"decoder", "other_sequence", 'I', "I2"},
    Bad{"decoder", "token_range", 'I', "I2"}, Bad{"decoder", "too_deep", 'I', "I2"}, Bad{"decoder", "nan_score", 'I', "I2"},
    Bad{"decoder", "no_budget", 'I', "I2"}, Bad{"decoder", "no_room", 'I', "I2"},
    Bad{"decoder", "knows_instances", 'I', "I3"}, Bad{"decoder", "counts_drafts", 'I', "I4"},
    Bad{"decoder", "remembers_lost", 'I', "I4"}, Bad{"decoder", "zero_fails", 'I', "I5"},
    Bad{"decoder", "knows_company", 'I', "I6"}, Bad{"decoder", "branch_company", 'I', "I6"},
    Bad{"decoder", "shares_forks", 'I', "I7"}, Bad{"decoder", "branch_backwards", 'I', "I8"},
    Bad{"decoder", "branch_too_many", 'I', "I8"}, Bad{"decoder", "branch_stuck", 'I', "I8"},
    Bad{"decoder", "branch_from", 'I', "I8"}, Bad{"decoder", "branch_token", 'I', "I8"},
    Bad{"decoder", "branch_twice", 'I', "I8"}, Bad{"decoder", "branch_what", 'I', "I8"},
    Bad{"decoder", "late_garbage", 'I', "I9"}));

TEST(Check, GoodPluginsPass) {
  ::unsetenv("SLUICE_TEST_WRONG");
  for (const char *kind : {"sampler", "scheduler", "backend", "decoder", "engine"}) {
    const Report report = check(fixture(kind, "bad"));
    EXPECT_EQ(report.exit_code(), 0) << report.text();
    for (const auto &c : report.cases) EXPECT_FALSE(c.skipped) << kind << ": " << c.name;
  }
}

TEST(Check, ASamplerOfMasksPasses) {
  ::setenv("SLUICE_TEST_WRONG", "masks", 1);
  const Report report = check(fixture("sampler", "bad"));
  EXPECT_EQ(report.exit_code(), 0) << report.text();
  ::unsetenv("SLUICE_TEST_WRONG");
}

TEST(Bench, SaysWhatEachKindCosts) {
  ::unsetenv("SLUICE_TEST_WRONG");
  const std::pair<const char *, const char *> says[] = {{"sampler", "apply, 8 rows of 32000"}, {"scheduler", "plan, with"},
                                                        {"backend", "a decode step of 1"}};
  for (const auto &[kind, what] : says) {
    CheckOptions options;
    options.path = fixture(kind, "bad");
    const Report report = bench_plugin(options);
    EXPECT_EQ(report.exit_code(), 0) << report.text();
    EXPECT_NE(report.text().find(what), std::string::npos) << report.text();
    EXPECT_NE(report.text().find("p99"), std::string::npos) << report.text();
  }
}

TEST(Check, AFileThatIsNoPluginCannotBeLoaded) {
  const auto path = std::filesystem::temp_directory_path() / "sluice_no_plugin.so";
  std::ofstream(path) << "not an ELF file";
  const Report report = check(path);
  std::filesystem::remove(path);
  EXPECT_EQ(report.exit_code(), 2) << report.text();
  EXPECT_TRUE(found(report, 'A', "A0"));
}

TEST(Check, AFileThatAnyoneMayWriteFails) {
  const std::string path = fixture("sampler", "writable");
  std::filesystem::copy_file(fixture("sampler", "bad"), path, std::filesystem::copy_options::overwrite_existing);
  ::chmod(path.c_str(), 0777);
  const Report report = check(path);
  std::filesystem::remove(path);
  EXPECT_TRUE(found(report, 'A', "A9")) << report.text();
}

TEST(Check, TheReportIsJson) {
  const Report report = check(fixture("sampler", "bad_version"));
  const auto json = boost::json::parse(report.json());
  EXPECT_EQ(json.at("outcome").as_string(), "failed");
  size_t failed = 0;
  for (const auto &c : json.at("checks").as_array()) failed += c.at("verdict").as_string() == "FAILED" ? 1 : 0;
  EXPECT_EQ(failed, report.failures());
}

}  // namespace
}  // namespace sluice::conformance

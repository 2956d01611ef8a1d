#include "core/plugin/library.hpp"

#include <gtest/gtest.h>

#include "core/base/clock.hpp"
#include "core/plugin/host.hpp"
#include "tests/core/plugin/temporary_folder.hpp"

namespace sluice::plugin::test {
namespace {

Result<Library> load(const std::string &name, const std::string &kind = "sampler") {
  static const SteadyClock clock;
  static Host host({&clock, nullptr, 1, "1.0.0"});
  const std::string path = fixture(kind, name);
  const auto metadata = read_metadata(path);
  if (!metadata) return metadata.error();
  return load_library(path, *metadata, *host.api());
}

TEST(Library, LoadsAPluginThatIsRight) {
  const auto l = load("fine");
  ASSERT_TRUE(l) << l.error().message;
  EXPECT_EQ(l->title(), "sampler fine");
  EXPECT_NE(l->desc->sampler, nullptr);
  EXPECT_TRUE(l->schema->fields().empty());
}

// Tables grow at the end from version to version, on either side.
TEST(Library, TakesLongerTablesAndThoseWithoutTheYoungestOptionalFunction) {
  const auto longer = load("long_tables");
  EXPECT_TRUE(longer) << longer.error().message;
  const auto shorter = load("optional_absent");
  ASSERT_TRUE(shorter) << shorter.error().message;
  EXPECT_FALSE(SLUICE_HAS_FN(shorter->desc->sampler, sluice_sampler_vtbl, reconfigure));
}

TEST(Library, TablesOfEveryKindMayHaveTheSizeOfAnotherVersion) {
  const std::pair<const char *, const char *> last_required[] = {
      {"backend", "health"}, {"engine", "health"}, {"scheduler", "plan"}, {"decoder", "commit"}};
  for (const auto &[kind, function] : last_required) {
    const auto longer = load("longer", kind), least = load("least", kind), shorter = load("short", kind);
    EXPECT_TRUE(longer) << longer.error().message;
    EXPECT_TRUE(least) << least.error().message;
    ASSERT_FALSE(shorter) << kind;
    EXPECT_NE(shorter.error().message.find(std::string("required function ") + function), std::string::npos)
        << shorter.error().message;
  }
}

struct Case {
  const char *name;
  Code code;
  const char *says;
};
class WrongLibrary : public testing::TestWithParam<Case> {};

TEST_P(WrongLibrary, IsRefusedWithTheReason) {
  const auto l = load(GetParam().name);
  ASSERT_FALSE(l);
  EXPECT_EQ(l.error().code, GetParam().code) << l.error().message;
  EXPECT_NE(l.error().message.find(GetParam().says), std::string::npos) << l.error().message;
  EXPECT_NE(l.error().message.find(GetParam().name), std::string::npos) << "names the plugin: " << l.error().message;
}
INSTANTIATE_TEST_SUITE_P(
    All, WrongLibrary,
    testing::Values(Case{"no_descriptor", Code::kUnsupported, "the driver is too old"},
                    Case{"no_reason", Code::kInternal, "without a reason"},
                    Case{"other_name", Code::kInvalidArgument, "do not say the same"},
                    Case{"other_version", Code::kInvalidArgument, "do not say the same"},
                    Case{"other_kind", Code::kInvalidArgument, "do not say the same"},
                    Case{"no_table", Code::kInvalidArgument, "has no table"},
                    Case{"no_apply", Code::kInvalidArgument, "required function apply"},
                    Case{"no_mask_function", Code::kInvalidArgument, "required function fill_masks"},
                    Case{"short_table", Code::kInvalidArgument, "required function commit"},
                    Case{"unknown_flag", Code::kUnsupported, "0x4000"},
                    Case{"small_descriptor", Code::kInvalidArgument, "too small"},
                    Case{"bad_default", Code::kInvalidArgument, "many"},
                    Case{"other_major", Code::kAbi, "ABI 7.0"},
                    Case{"other_cpu", Code::kUnsupported, "sluice_no_such_feature"},
                    Case{"throwing", Code::kInternal, "threw"}),
    [](const auto &wrong) { return std::string(wrong.param.name); });

TEST(Library, SaysWhatTheLoaderSays) {
  const TemporaryFolder folder;
  const auto metadata = read_metadata(fixture("sampler", "fine"));
  ASSERT_TRUE(metadata);
  write_file(folder / "damaged.so", std::string(3000, 'x'));
  static const SteadyClock clock;
  static Host host({&clock, nullptr, 1, "1.0.0"});
  const auto l = load_library(folder / "damaged.so", *metadata, *host.api());
  ASSERT_FALSE(l);
  EXPECT_NE(l.error().message.find("damaged.so"), std::string::npos) << l.error().message;
}

}  // namespace
}  // namespace sluice::plugin::test

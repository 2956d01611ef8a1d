#include "core/plugin/registry.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

#include "core/base/clock.hpp"
#include "core/plugin/host.hpp"
#include "tests/core/plugin/temporary_folder.hpp"

namespace sluice::plugin::test {
namespace {
namespace fs = std::filesystem;

void copy_fixture(const std::string &name, const std::string &to) {
  fs::copy_file(fixture("sampler", name), to, fs::copy_options::overwrite_existing);
  ::chmod(to.c_str(), 0644);
}

bool mentions(const sluice::Error &e, const std::string &text) { return e.message.find(text) != std::string::npos; }

TEST(Registry, FindsPluginsByKindAndName) {
  const Registry r({SLUICE_FIXTURES});
  const auto found = r.find(SLUICE_KIND_SAMPLER, "toy");
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ((*found)->metadata.name, "toy");
  EXPECT_TRUE(fs::path((*found)->path).is_absolute());
  EXPECT_TRUE(r.find(SLUICE_KIND_BACKEND, "toy")) << "names are per kind";
  const auto scheduler = r.find(SLUICE_KIND_SCHEDULER, "toy");
  ASSERT_FALSE(scheduler);
  EXPECT_EQ(scheduler.error().code, Code::kNotFound);
}

TEST(Registry, SuggestsTheNearestName) {
  const Registry r({SLUICE_FIXTURES});
  const auto found = r.find(SLUICE_KIND_SAMPLER, "tooy");
  ASSERT_FALSE(found);
  EXPECT_TRUE(mentions(found.error(), "did you mean 'toy'?")) << found.error().message;
}

TEST(Registry, KeepsTheReasonWhyAFileIsNoPlugin) {
  const Registry r({SLUICE_FIXTURES});
  ASSERT_EQ(r.rejected().size(), 1u);
  const auto found = r.find(SLUICE_KIND_SAMPLER, "no_metadata");
  EXPECT_TRUE(mentions(found.error(), "SLUICE_PLUGIN_META")) << found.error().message;
}

TEST(Registry, TwoFilesWithOneNameAreAnErrorThatNamesBoth) {
  const TemporaryFolder a, b;
  copy_fixture("fine", a / "libsluice_sampler_fine.so");
  copy_fixture("fine", b / "libsluice_sampler_fine.so");
  const Registry r({a.path(), b.path()});
  const auto found = r.find(SLUICE_KIND_SAMPLER, "fine");
  ASSERT_FALSE(found);
  EXPECT_TRUE(mentions(found.error(), a.path()) && mentions(found.error(), b.path())) << found.error().message;
}

TEST(Registry, AFolderListedTwiceOrLinkedIsNoDuplicate) {
  const TemporaryFolder a, b;
  copy_fixture("fine", a / "libsluice_sampler_fine.so");
  fs::create_symlink(a / "libsluice_sampler_fine.so", b / "libsluice_sampler_fine.so");
  const Registry r({a.path(), a.path(), b.path(), a / "absent"});
  EXPECT_TRUE(r.find(SLUICE_KIND_SAMPLER, "fine"));
  EXPECT_EQ(r.found().size(), 1u);
}

TEST(Registry, RefusesWhatOthersMayWrite) {
  const TemporaryFolder a;
  const std::string file = a / "libsluice_sampler_fine.so";
  copy_fixture("fine", file);
  ::chmod(file.c_str(), 0666);
  const auto found = Registry({a.path()}).find(SLUICE_KIND_SAMPLER, "fine");
  ASSERT_FALSE(found);
  EXPECT_TRUE(mentions(found.error(), "may be written by others")) << found.error().message;
  EXPECT_TRUE(Registry({a.path()}, true).find(SLUICE_KIND_SAMPLER, "fine")) << "plugins.insecure";

  ::chmod(file.c_str(), 0644);
  ::chmod(a.path().c_str(), 0777);
  EXPECT_FALSE(Registry({a.path()}).find(SLUICE_KIND_SAMPLER, "fine")) << "a folder in which it can be replaced";
  ::chmod(a.path().c_str(), 01777);
  EXPECT_TRUE(Registry({a.path()}).find(SLUICE_KIND_SAMPLER, "fine")) << "sticky, like /tmp";
}

TEST(Registry, RefusesWhatBelongsToAnotherUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to give a file away";
  const TemporaryFolder a;
  const std::string file = a / "libsluice_sampler_fine.so";
  copy_fixture("fine", file);
  ASSERT_EQ(::chown(file.c_str(), 12345, 0), 0);
  const auto found = Registry({a.path()}).find(SLUICE_KIND_SAMPLER, "fine");
  ASSERT_FALSE(found);
  EXPECT_TRUE(mentions(found.error(), "belongs to another user")) << found.error().message;
}

TEST(SearchFolders, AreTheConfiguredThenTheEnvironmentThenTheInstalled) {
  ::setenv("SLUICE_PLUGIN_PATH", "/b:/c:", 1);
  const auto folders = search_folders({"/a"});
  ASSERT_TRUE(folders);
  ASSERT_EQ(folders->size(), 4u);
  EXPECT_EQ((*folders)[0], "/a");
  EXPECT_EQ((*folders)[2], "/c");
  EXPECT_TRUE((*folders)[3].ends_with("/lib/sluice/plugins"));
  ::setenv("SLUICE_PLUGIN_PATH", "plugins", 1);
  EXPECT_FALSE(search_folders({})) << "relative to the working folder";
  ::unsetenv("SLUICE_PLUGIN_PATH");
  EXPECT_FALSE(search_folders({"./plugins"}));
}

TEST(Registry, LoadsOnceAndShutsDown) {
  const SteadyClock clock;
  Host host({&clock, nullptr, 1, "1.0.0"});
  Registry r({SLUICE_FIXTURES});
  const auto first = r.load(SLUICE_KIND_SAMPLER, "toy", *host.api());
  ASSERT_TRUE(first) << first.error().message;
  const auto second = r.load(SLUICE_KIND_SAMPLER, "toy", *host.api());
  ASSERT_TRUE(second);
  EXPECT_EQ(*first, *second);
  EXPECT_EQ((*first)->schema->fields().size(), 3u);
  r.shutdown();
}

}  // namespace
}  // namespace sluice::plugin::test

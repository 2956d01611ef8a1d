// The same plugin in this process and in a child: equal answers, and what a child's death, silence and crash cost.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "core/isolation/isolated_plugin.hpp"
#include "tests/core/isolation/mock_steps.hpp"

namespace sluice::isolation::testing {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

const std::string kMock = std::string(SLUICE_PLUGIN_DIR) + "/libsluice_backend_mock.so";

plugin::Library isolated(std::chrono::milliseconds call_time = 10s) {
  IsolationOptions options;
  options.program = SLUICE_PLUGIN_HOST;
  options.times.call = call_time;
  auto library = load_isolated(kMock, *plugin::read_metadata(kMock), options);
  if (!library) throw std::runtime_error(library.error().message);
  return *library;
}

const TestConfig kHash = {{"script", "hash"}, {"eos_token", "-1"}, {"vocab_size", "512"}};

TestConfig with(const char *key, const char *value) {
  TestConfig config = kHash;
  config[key] = value;
  return config;
}

/// Children of this process by name.
std::vector<pid_t> hosts() {
  std::vector<pid_t> found;
  for (const auto &entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream in(entry.path() / "stat");
    std::string stat((std::istreambuf_iterator<char>(in)), {});
    if (stat.find("(sluice-plugin-h)") == std::string::npos) continue;
    std::istringstream rest(stat.substr(stat.rfind(')') + 2));
    char state = 0;
    pid_t parent = 0;
    rest >> state >> parent;
    if (parent == getpid() && state != 'Z') found.push_back(std::stoi(name));
  }
  return found;
}

TEST(Isolation, TheOptionsOfAPluginAreKnownWithoutLoadingIt) {
  const auto library = isolated();
  EXPECT_EQ(library.metadata.name, "mock");
  EXPECT_TRUE(library.schema->find("hash_tokens").has_value());
  EXPECT_EQ(library.desc->kinds, SLUICE_KIND_BACKEND);
  EXPECT_TRUE(hosts().empty()) << "the child that was asked has ended";
}

TEST(Isolation, EqualAnswersInBothProcesses) {
  TestHost host;
  auto here = plugin::load_library(kMock, *plugin::read_metadata(kMock), *host.api());
  ASSERT_TRUE(here) << here.error().message;
  const auto there = isolated();
  MockSteps a(host, here->desc->backend, kHash), b(host, there.desc->backend, kHash);
  ASSERT_TRUE(a.ready()) << a.why();
  ASSERT_TRUE(b.ready()) << b.why();
  for (int i = 0; i < 60; ++i) {
    const Answered x = a.step(), y = b.step();
    ASSERT_EQ(x.code, SLUICE_OK) << x.message;
    ASSERT_EQ(x.logits.size(), MockSteps::kVocab);
    ASSERT_EQ(x.top_ids.size(), MockSteps::kTop);
    ASSERT_TRUE(x == y) << "step " << i << ": " << y.code << ' ' << y.message;
  }
}

TEST(Isolation, TheChildIsBareAndEndsWithItsInstance) {
  TestHost host;
  const auto library = isolated();
  ::setenv("SLUICE_TEST_SECRET", "key", 1);
  auto steps = std::make_unique<MockSteps>(host, library.desc->backend, kHash);
  ASSERT_TRUE(steps->ready()) << steps->why();
  const auto children = hosts();
  ASSERT_EQ(children.size(), 1u);
  const fs::path proc = "/proc/" + std::to_string(children[0]);
  std::ifstream environ(proc / "environ");
  const std::string environment((std::istreambuf_iterator<char>(environ)), {});
  EXPECT_EQ(environment.find("SECRET"), std::string::npos) << environment;
  EXPECT_EQ(std::distance(fs::directory_iterator(proc / "fd"), fs::directory_iterator()), 6) << "three standard ones, the ring and two bells";
  std::ifstream status(proc / "status");
  const std::string text((std::istreambuf_iterator<char>(status)), {});
  EXPECT_NE(text.find("NoNewPrivs:\t1"), std::string::npos) << text;
  steps.reset();
  EXPECT_TRUE(hosts().empty());
}

TEST(Isolation, ACrashCostsAnErrorAndANewInstanceGoesOn) {
  TestHost host;
  const auto library = isolated();
  {
    MockSteps steps(host, library.desc->backend, with("crash_at", "3"));
    ASSERT_TRUE(steps.ready()) << steps.why();
    EXPECT_EQ(steps.step().code, SLUICE_OK);
    EXPECT_EQ(steps.step().code, SLUICE_OK);
    const Answered crashed = steps.step();
    EXPECT_EQ(crashed.code, SLUICE_E_DEVICE_LOST);
#ifndef __SANITIZE_ADDRESS__  // which makes an exit of the signal
    EXPECT_NE(crashed.message.find("signal 11"), std::string::npos) << crashed.message;
#endif
    EXPECT_EQ(steps.step().code, SLUICE_E_DEVICE_LOST) << "and so it stays";
    sluice_status st{};
    st.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
    EXPECT_EQ(library.desc->backend->health(steps.backend(), &st), SLUICE_E_DEVICE_LOST);
    EXPECT_NE(st.flags & SLUICE_STF_POISONED, 0u);
  }
  MockSteps next(host, library.desc->backend, kHash);
  EXPECT_EQ(next.step().code, SLUICE_OK);
}

TEST(Isolation, ACallThatDoesNotReturnCostsItsDeadline) {
  TestHost host;
  const auto library = isolated(2s);
  MockSteps steps(host, library.desc->backend, with("block_at", "2"));
  ASSERT_TRUE(steps.ready()) << steps.why();
  EXPECT_EQ(steps.step().code, SLUICE_OK);
  const auto begin = std::chrono::steady_clock::now();
  const Answered late = steps.step();
  EXPECT_EQ(late.code, SLUICE_E_DEVICE_LOST);
  EXPECT_NE(late.message.find("in time"), std::string::npos) << late.message;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
  for (int i = 0; i < 200 && !hosts().empty(); ++i) std::this_thread::sleep_for(10ms);
  EXPECT_TRUE(hosts().empty()) << "it is killed";
}

TEST(Isolation, AKilledChildIsNoticedWhileIdle) {
  TestHost host;
  const auto library = isolated();
  MockSteps steps(host, library.desc->backend, kHash);
  ASSERT_EQ(steps.step().code, SLUICE_OK);
  ASSERT_EQ(hosts().size(), 1u);
  ::kill(hosts()[0], SIGKILL);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(library.desc->backend->health(steps.backend(), nullptr), SLUICE_E_DEVICE_LOST);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
}

TEST(Isolation, WhatThePluginRefusesIsPassedOnWithItsWords) {
  TestHost host;
  const auto library = isolated();
  MockSteps steps(host, library.desc->backend, with("eos_token", "600"));
  EXPECT_FALSE(steps.ready());
  EXPECT_NE(steps.why().find("eos_token is 600"), std::string::npos) << steps.why();
}

TEST(Isolation, APluginThatCannotLiveThereIsRefused) {
  const std::string sampler = std::string(SLUICE_PLUGIN_DIR) + "/libsluice_sampler_greedy.so";
  IsolationOptions options;
  options.program = SLUICE_PLUGIN_HOST;
  const auto refused = load_isolated(sampler, *plugin::read_metadata(sampler), options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kUnsupported);
  options.program = "/nowhere/sluice-plugin-host";
  const auto nowhere = load_isolated(kMock, *plugin::read_metadata(kMock), options);
  ASSERT_FALSE(nowhere);
  EXPECT_NE(nowhere.error().message.find("/nowhere/sluice-plugin-host"), std::string::npos);
}

}  // namespace
}  // namespace sluice::isolation::testing

// A damaged model is opened anew with growing pauses, stays down after too many attempts, and says so meanwhile.
#include "core/engine/supervisor.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace sluice::engine::testing {
namespace {

using namespace std::chrono_literals;

class FakeGenerator final : public request::Generator {
 public:
  explicit FakeGenerator(uint64_t tokens) : tokens_(tokens) {}
  request::GeneratorLimits limits() const override { return {.max_context = 77}; }
  Result<> submit(std::shared_ptr<const request::Request>) override { return {}; }
  void cancel(uint64_t, request::CancelCause) override {}
  request::GeneratorStats stats() const override {
    request::GeneratorStats s;
    s.output_tokens = tokens_;
    s.healthy = !damaged, s.damaged = damaged;
    if (damaged) s.trouble = "backend x: threw", s.culprit = "backend x";
    return s;
  }
  void stop() override { stopped = true; }
  bool stuck() const override { return is_stuck; }
  std::atomic<bool> damaged{false}, stopped{false}, is_stuck{false};

 private:
  const uint64_t tokens_;
};

template <class F> bool comes_true(F done) {
  const auto end = std::chrono::steady_clock::now() + 10s;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

ReopenPolicy quick(uint32_t attempts) {
  ReopenPolicy policy;
  policy.first_delay = 20ms, policy.longest_delay = 80ms, policy.max_attempts = attempts;
  return policy;
}

TEST(Supervisor, ReplacesADamagedGeneratorAndKeepsItsCounters) {
  auto first = std::make_shared<FakeGenerator>(10);
  auto second = std::make_shared<FakeGenerator>(5);
  std::atomic<int> opened{0};
  Supervisor supervisor("m", first, [&](const request::GeneratorStats &last, const auto &) {
    EXPECT_EQ(last.culprit, "backend x");
    EXPECT_TRUE(first->stopped) << "the old one is stopped before the new one is made";
    ++opened;
    return Result<std::shared_ptr<request::Generator>>(second);
  }, quick(3));
  EXPECT_TRUE(supervisor.stats().healthy);
  EXPECT_TRUE(supervisor.submit(nullptr));
  first->damaged = true;
  ASSERT_TRUE(comes_true([&] { return opened == 1; }));
  ASSERT_TRUE(comes_true([&] { return supervisor.stats().healthy; }));
  EXPECT_EQ(supervisor.stats().output_tokens, 15u);
  EXPECT_EQ(supervisor.stats().reopens, 1u);
  EXPECT_TRUE(supervisor.submit(nullptr));
  supervisor.stop();
  EXPECT_TRUE(second->stopped);
}

TEST(Supervisor, WhileDownItRefusesAndSaysWhenToAskAgain) {
  auto first = std::make_shared<FakeGenerator>(0);
  ReopenPolicy slow;
  slow.first_delay = 30s;
  Supervisor supervisor("m", first, [](const auto &, const auto &) {
    return Result<std::shared_ptr<request::Generator>>(Error{});
  }, slow);
  first->damaged = true;
  ASSERT_TRUE(comes_true([&] { return first->stopped.load(); }));
  ASSERT_TRUE(comes_true([&] { return !supervisor.submit(nullptr); }));
  EXPECT_EQ(supervisor.submit(nullptr).error().code, Code::kUnavailable);
  ASSERT_TRUE(comes_true([&] { return supervisor.stats().retry_after_s.value_or(0) > 10; }));
  EXPECT_LE(*supervisor.stats().retry_after_s, 37u) << "30 s and a fifth of jitter";
  EXPECT_FALSE(supervisor.stats().healthy);
  EXPECT_EQ(supervisor.limits().max_context, 77u);
  const auto begin = std::chrono::steady_clock::now();
  supervisor.stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s) << "a pause does not hold up the end";
}

TEST(Supervisor, GivesUpAfterSoManyAttemptsAndPausesGrow) {
  auto first = std::make_shared<FakeGenerator>(0);
  std::vector<std::chrono::steady_clock::time_point> at;
  std::atomic<size_t> n{0};
  Supervisor supervisor("m", first, [&](const auto &, const auto &) {
    at.push_back(std::chrono::steady_clock::now());
    ++n;
    return Result<std::shared_ptr<request::Generator>>(Error{Code::kUnavailable, "still broken", {}});
  }, quick(4));
  first->damaged = true;
  ASSERT_TRUE(comes_true([&] { return n == 4; }));
  ASSERT_TRUE(comes_true([&] { return !supervisor.stats().retry_after_s.has_value(); }));
  EXPECT_EQ(supervisor.stats().trouble, "still broken");
  std::this_thread::sleep_for(150ms);
  EXPECT_EQ(n, 4u) << "no more attempts";
  EXPECT_GE(at[1] - at[0], 31ms) << "40 ms less a fifth";
  EXPECT_GE(at[2] - at[1], 63ms) << "80 ms less a fifth";
}

TEST(Supervisor, AModelThatBreaksAgainAtOnceUsesUpItsAttempts) {
  std::atomic<int> opened{0};
  const auto broken = [] {
    auto g = std::make_shared<FakeGenerator>(0);
    g->damaged = true;
    return g;
  };
  Supervisor supervisor("m", broken(), [&](const auto &, const auto &) {
    ++opened;
    return Result<std::shared_ptr<request::Generator>>(broken());
  }, quick(2));
  ASSERT_TRUE(comes_true([&] { return opened == 2 && !supervisor.stats().retry_after_s.has_value(); }));
  EXPECT_EQ(supervisor.stats().reopens, 2u);
}

TEST(Supervisor, WhatIsStuckIsNotOpenedAnew) {
  auto first = std::make_shared<FakeGenerator>(0);
  first->is_stuck = true;
  Supervisor supervisor("m", first, [](const auto &, const auto &) {
    ADD_FAILURE() << "its instance is still in use";
    return Result<std::shared_ptr<request::Generator>>(Error{});
  }, quick(2));
  first->damaged = true;
  ASSERT_TRUE(comes_true([&] { return first->stopped && !supervisor.stats().healthy && supervisor.stuck(); }));
  EXPECT_FALSE(supervisor.stats().retry_after_s.has_value());
}

}  // namespace
}  // namespace sluice::engine::testing

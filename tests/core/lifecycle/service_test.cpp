#include "core/lifecycle/service.hpp"

#include <gtest/gtest.h>

#include "tests/core/lifecycle/world.hpp"

namespace sluice::lifecycle {
namespace {

using test::World;

TEST(Service, FindsModelsByNameAliasAndDefault) {
  World w;
  auto second = std::make_shared<ServedModel>();
  second->name = "big";
  second->aliases = {"gpt-4"};
  second->generator = w.generator;
  second->tokenizer = test::tiny_tokenizer();
  second->state.ready();
  ASSERT_TRUE(w.service.add(second));
  EXPECT_EQ((*w.service.find_ready(""))->name, "tiny");
  EXPECT_EQ((*w.service.find_ready("gpt-4"))->name, "big");
  const auto unknown = w.service.find_ready("other");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(static_cast<int>(unknown.error().kind), static_cast<int>(FailureKind::kModelNotFound));
  EXPECT_NE(unknown.error().message.find("tiny, big"), std::string::npos);
}

TEST(Service, RefusesTwoModelsOfOneName) {
  World w;
  auto again = std::make_shared<ServedModel>();
  again->name = "other";
  again->aliases = {"tiny"};
  EXPECT_FALSE(w.service.add(again));
}

TEST(Service, LoadingAndFailedModelsSaySo) {
  World w;
  auto model = std::make_shared<ServedModel>();
  model->name = "m";
  model->state.loading("weights", 1, 2);
  ASSERT_TRUE(w.service.add(model));
  auto found = w.service.find_ready("m");
  ASSERT_FALSE(found);
  EXPECT_EQ(static_cast<int>(found.error().kind), static_cast<int>(FailureKind::kModelLoading));
  EXPECT_TRUE(found.error().retry_after_s);
  model->state.failed("/secret/path is missing");
  found = w.service.find_ready("m");
  ASSERT_FALSE(found);
  EXPECT_EQ(static_cast<int>(found.error().kind), static_cast<int>(FailureKind::kModelFailed));
  EXPECT_EQ(found.error().message.find("secret"), std::string::npos) << "paths are for the log";
}

TEST(Service, DrainOfNothingIsImmediate) {
  World w;
  EXPECT_TRUE(w.service.drain(std::chrono::seconds(10)));
  EXPECT_TRUE(w.service.draining());
  EXPECT_FALSE(w.service.find_ready(""));
  EXPECT_TRUE(w.service.drain(std::chrono::seconds(10)));
  w.start(w.spec());
  ASSERT_TRUE(w.recorder->outcome.failure);
  EXPECT_EQ(static_cast<int>(w.recorder->outcome.failure->kind), static_cast<int>(FailureKind::kShuttingDown));
}

TEST(Service, DrainLetsWhatIsInFlightFinish) {
  World w;
  const auto g = w.start(w.spec("hi", 3));
  bool clean = false;
  std::thread drainer([&] { clean = w.service.drain(std::chrono::seconds(20)); });
  while (!w.service.draining()) std::this_thread::yield();
  w.step(3);
  drainer.join();
  EXPECT_TRUE(clean);
  EXPECT_EQ(w.recorder->texts[0], "abc");
}

TEST(Service, DrainCancelsWhatDoesNotFinish) {
  World w;
  auto g = w.start(w.spec("hi", 3000));
  bool clean = true;
  std::thread drainer([&] { clean = w.service.drain(std::chrono::milliseconds(20)); });
  w.wait_posted();
  w.run_posted();
  drainer.join();
  EXPECT_FALSE(clean);
  EXPECT_EQ(w.recorder->n_ends, 1);
  ASSERT_TRUE(w.recorder->outcome.failure);
  EXPECT_EQ(static_cast<int>(w.recorder->outcome.failure->kind), static_cast<int>(FailureKind::kShuttingDown));
  EXPECT_EQ(w.generator->cancelled().at(0).second, request::CancelCause::kDrain);
}

TEST(Service, HurryEndsADrain) {
  World w;
  auto g = w.start(w.spec("hi", 3000));
  bool clean = true;
  std::thread drainer([&] { clean = w.service.drain(std::chrono::minutes(10)); });
  while (!w.service.draining()) std::this_thread::yield();
  w.service.hurry();
  w.wait_posted();
  w.run_posted();
  drainer.join();
  EXPECT_FALSE(clean);
}

}  // namespace
}  // namespace sluice::lifecycle

// A model behind an engine plugin: what it sends is checked, and limits hold whatever it does.
#include <gtest/gtest.h>

#include <boost/json/object.hpp>
#include <thread>

#include "core/engine/foreign_engine.hpp"

namespace sluice::engine {
namespace {

using request::CancelCause;
using request::FinishReason;

constexpr uint32_t kForeignVocab = 100, kMaxNew = 6;

struct Ended {
  std::vector<int32_t> tokens;
  std::string text;
  FinishReason finish = FinishReason::kNone;
  std::string error;
  int n_finishes = 0;
};

class ForeignEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path = SLUICE_FIXTURES "/libsluice_engine_rude.so";
    const auto metadata = plugin::read_metadata(path);
    ASSERT_TRUE(metadata) << metadata.error().message;
    auto library = plugin::load_library(path, *metadata, *host_.api());
    ASSERT_TRUE(library) << library.error().message;
    library_ = std::move(*library);
    auto options = plugin::Options::defaults(library_.schema);
    ASSERT_TRUE(options);
    options_ = *options;
    auto engine = ForeignEngine::open(library_, options_, host_, clock_, "test", "/dev/null");
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = std::move(*engine);
    engine_->start({.vocab_size = kForeignVocab, .max_context = 0, .max_live = 4});
  }

  std::shared_ptr<request::Request> make(const std::string &how) {
    auto request = std::make_shared<request::Request>();
    request->id = ++next_id_;
    request->prompt = {1, 2, 3};
    request->max_new = kMaxNew;
    request->events = std::make_shared<request::EventChannel>(nullptr);
    auto own = plugin::Options::from_json(*options_, boost::json::object{{"how", how}});
    EXPECT_TRUE(own);
    request->sampler_options = {*own};
    return request;
  }
  Result<> submit(const std::shared_ptr<request::Request> &request) { return engine_->submit(request); }

  static Ended wait(const request::Request &request) {
    Ended ended;
    std::vector<request::Event> events;
    for (int i = 0; i < 1000 && ended.n_finishes == 0; ++i) {
      request.events->drain(events);
      for (const auto &event : events) {
        if (event.token >= 0) ended.tokens.push_back(event.token);
        if (event.text) ended.text += *event.text;
        if (event.finish == FinishReason::kNone) continue;
        ++ended.n_finishes, ended.finish = event.finish;
        if (event.error) ended.error = event.error->message;
      }
      if (ended.n_finishes == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return ended;
  }
  Ended run(const std::string &how) {
    const auto request = make(how);
    const auto taken = submit(request);
    EXPECT_TRUE(taken) << taken.error().message;
    return wait(*request);
  }

  SteadyClock clock_;
  plugin::Host host_{{.clock = &clock_, .metrics = nullptr, .n_workers = 1, .version = "0.0.0"}};
  plugin::Library library_;
  std::shared_ptr<const plugin::Options> options_;
  std::unique_ptr<ForeignEngine> engine_;
  uint64_t next_id_ = 0;
};

TEST_F(ForeignEngineTest, TokensAndTextArrive) {
  const Ended nice = run("nice");
  EXPECT_EQ(nice.tokens, (std::vector<int32_t>{3, 4, 5, 6}));
  EXPECT_EQ(nice.finish, FinishReason::kStop);
  EXPECT_EQ(run("text").text, "\xC3\xA4");
  EXPECT_EQ(engine_->stats().plugin_errors, 0u);
  EXPECT_EQ(engine_->stats().running, 0u);
}

TEST_F(ForeignEngineTest, GarbageEndsItsRequestAndNoOther) {
  const std::pair<const char *, const char *> cases[] = {
      {"finish", "finish is 77"},       {"token", "tokens[1] is 100"},       {"negative", "tokens[0] is -1"},
      {"null", "tokens is NULL"},       {"both", "tokens and text"},         {"utf8", "not UTF-8"},
      {"too_many", "max_new leaves 6"}, {"cached", "cached_tokens is 1000"}};
  uint64_t faults = 0;
  for (const auto &[how, says] : cases) {
    const Ended ended = run(how);
    EXPECT_EQ(ended.finish, FinishReason::kError) << how;
    EXPECT_NE(ended.error.find(says), std::string::npos) << how << ": " << ended.error;
    EXPECT_EQ(engine_->stats().plugin_errors, ++faults) << how;
    EXPECT_EQ(run("nice").finish, FinishReason::kStop) << "after " << how;
  }
}

TEST_F(ForeignEngineTest, AWrongLogprobIsGarbageOnlyWhereOneWasAskedFor) {
  auto request = make("logprob");
  request->want_logprobs = true;
  ASSERT_TRUE(submit(request));
  EXPECT_NE(wait(*request).error.find("logprobs[0]"), std::string::npos);
}

TEST_F(ForeignEngineTest, ItsOwnErrorReachesTheClientAsText) {
  const Ended ended = run("error");
  EXPECT_EQ(ended.finish, FinishReason::kError);
  EXPECT_EQ(ended.error, "the \xEF\xBF\xBD broke");
}

TEST_F(ForeignEngineTest, ASecondFinishAndAnUnknownRequestChangeNothing) {
  const Ended twice = run("twice");
  EXPECT_EQ(twice.n_finishes, 1);
  EXPECT_EQ(engine_->stats().plugin_errors, 1u);
  EXPECT_EQ(run("unknown").finish, FinishReason::kStop);
  EXPECT_EQ(engine_->stats().plugin_errors, 1u);
}

TEST_F(ForeignEngineTest, TheLengthLimitAndStopTokensHold) {
  const Ended endless = run("endless");
  EXPECT_EQ(endless.finish, FinishReason::kLength);
  EXPECT_EQ(endless.tokens.size(), kMaxNew);
  auto request = make("nice");
  request->stop_tokens = {5};
  ASSERT_TRUE(submit(request));
  const Ended stopped = wait(*request);
  EXPECT_EQ(stopped.tokens, (std::vector<int32_t>{3, 4, 5}));
  EXPECT_EQ(stopped.finish, FinishReason::kStop);
}

TEST_F(ForeignEngineTest, ASilentPluginKeepsNobodyWaiting) {
  auto late = make("silent");
  late->deadline_ns = clock_.now_ns() + 30'000'000;
  ASSERT_TRUE(submit(late));
  EXPECT_EQ(wait(*late).finish, FinishReason::kCancelled);
  EXPECT_GE(clock_.now_ns(), late->deadline_ns);
  const auto cancelled = make("silent");
  ASSERT_TRUE(submit(cancelled));
  engine_->cancel(cancelled->id, CancelCause::kClient);
  engine_->cancel(cancelled->id, CancelCause::kClient);
  EXPECT_EQ(wait(*cancelled).finish, FinishReason::kCancelled);
  const auto open = make("silent");
  ASSERT_TRUE(submit(open));
  engine_->stop();
  EXPECT_EQ(wait(*open).finish, FinishReason::kCancelled);
  EXPECT_EQ(submit(make("nice")).error().code, Code::kUnavailable);
}

TEST_F(ForeignEngineTest, NoMoreThanTheLimitAreInFlight) {
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(submit(make("silent")));
  EXPECT_EQ(submit(make("silent")).error().code, Code::kResourceExhausted);
}

TEST_F(ForeignEngineTest, AnExceptionPoisonsIt) {
  const auto open = make("silent");
  ASSERT_TRUE(submit(open));
  EXPECT_EQ(submit(make("throws")).error().code, Code::kInternal);
  EXPECT_EQ(wait(*open).finish, FinishReason::kError) << "what runs in a broken plugin must not wait for ever";
  EXPECT_FALSE(engine_->stats().healthy);
  EXPECT_EQ(submit(make("nice")).error().code, Code::kUnavailable);
}

}  // namespace
}  // namespace sluice::engine

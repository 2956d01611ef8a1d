#include "core/lifecycle/generation.hpp"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/core/lifecycle/world.hpp"

namespace sluice::lifecycle {
namespace {

using request::CancelCause;
using test::byte_token;
using test::World;

/// Makes the generator spell `text`, one byte a token, then end the sequence.
void spell(World &w, std::string text) {
  w.generator->token_of = [text](const request::Request &, uint32_t i) { return i < text.size() ? byte_token(text[i]) : test::kEos; };
}

TEST(Generation, DeliversTextUsageAndEnd) {
  World w;
  const auto g = w.start(w.spec("hi", 5));
  EXPECT_TRUE(w.recorder->admitted);
  EXPECT_EQ(w.service.inflight(), 1u);
  w.step(5);
  EXPECT_EQ(w.recorder->texts[0], "abcde");
  ASSERT_EQ(w.recorder->ends.size(), 1u);
  EXPECT_EQ(w.recorder->ends[0].second, AnswerEnd::kLength);
  EXPECT_EQ(w.recorder->n_ends, 1);
  EXPECT_EQ(w.recorder->outcome.usage.prompt_tokens, 2u);
  EXPECT_EQ(w.recorder->outcome.usage.completion_tokens, 5u);
  EXPECT_FALSE(w.recorder->outcome.failure);
  EXPECT_EQ(w.service.inflight(), 0u);
  const auto request = w.generator->submitted().at(0);
  EXPECT_EQ(request->prompt, (std::vector<int32_t>{byte_token('h'), byte_token('i')}));
  EXPECT_EQ(request->max_new, 5u);
  EXPECT_EQ(request->stop_tokens, std::vector<int32_t>{test::kEos});
}

TEST(Generation, EndOfSequenceStopsWithoutText) {
  World w;
  spell(w, "ab");
  w.start(w.spec("hi", 9));
  w.step(3);
  EXPECT_EQ(w.recorder->texts[0], "ab");
  EXPECT_EQ(w.recorder->ends.at(0).second, AnswerEnd::kStop);
  EXPECT_EQ(w.recorder->outcome.usage.completion_tokens, 3u);
}

TEST(Generation, IgnoreEosGoesOn) {
  World w;
  spell(w, "a");
  auto s = w.spec("hi", 4);
  s.ignore_eos = true;
  w.start(std::move(s));
  w.step(4);
  EXPECT_EQ(w.recorder->ends.at(0).second, AnswerEnd::kLength);
  EXPECT_EQ(w.recorder->outcome.usage.completion_tokens, 4u);
  EXPECT_TRUE(w.generator->submitted().at(0)->stop_tokens.empty());
}

TEST(Generation, HalfCharactersWait) {
  World w;
  spell(w, "x\xe2\x82\xacy\xf0\x9f");
  w.start(w.spec("hi", 7));
  w.step(3);
  EXPECT_EQ(w.recorder->texts[0], "x");
  w.step(2);
  EXPECT_EQ(w.recorder->texts[0], "x\xe2\x82\xacy");
  w.step(2);
  EXPECT_EQ(w.recorder->texts[0], "x\xe2\x82\xacy\xef\xbf\xbd") << "an unfinished character is repaired at the end";
}

// ---- stop strings -----------------------------------------------------------------------------------------------

TEST(Generation, StopStringEndsTextUsageAndLogprobsAtItsLastToken) {
  World w;
  auto s = w.spec("hi", 50);
  s.stop = {"ef"};
  s.logprobs = true;
  const auto g = w.start(std::move(s));
  w.generator->steps(20);  // the engine runs ahead
  w.run_posted();
  EXPECT_EQ(w.recorder->texts[0], "abcd");
  EXPECT_EQ(w.recorder->ends.at(0).second, AnswerEnd::kStop);
  EXPECT_EQ(w.recorder->outcome.usage.completion_tokens, 6u);
  EXPECT_EQ(w.recorder->token_text, "abcdef");
  ASSERT_EQ(w.generator->cancelled().size(), 1u);
  EXPECT_EQ(w.generator->cancelled()[0].second, CancelCause::kStopString);
  w.step(3);
  EXPECT_EQ(w.generator->open(), 0u);
  EXPECT_EQ(w.recorder->n_ends, 1);
}

TEST(Generation, PartialStopIsHeldBackAndGivenAtTheEnd) {
  World w;
  auto s = w.spec("hi", 5);
  s.stop = {"dez"};
  w.start(std::move(s));
  w.step(4);
  EXPECT_EQ(w.recorder->texts[0], "abc");
  w.step(1);
  EXPECT_EQ(w.recorder->texts[0], "abcde");
  EXPECT_EQ(w.recorder->ends.at(0).second, AnswerEnd::kLength);
}

TEST(Generation, OneAnswerStopsAndTheOthersGoOn) {
  World w;
  w.generator->token_of = [](const request::Request &r, uint32_t i) {
    return byte_token(static_cast<char>((r.seed == 8 ? 'p' : 'a') + i % 26));
  };
  auto s = w.spec("hi", 6);
  s.n = 3;
  s.seed = 7;
  s.stop = {"qr"};
  w.start(std::move(s));
  w.step(6);
  EXPECT_EQ(w.recorder->texts, (std::vector<std::string>{"abcdef", "p", "abcdef"}));
  EXPECT_EQ(w.recorder->outcome.usage.completion_tokens, 15u);
  EXPECT_EQ(w.recorder->outcome.usage.prompt_tokens, 2u) << "the prompt counts once";
  EXPECT_EQ(w.recorder->n_ends, 1);
}

TEST(Generation, AnswersDrawWithTheirOwnSeeds) {
  World w;
  auto s = w.spec("hi", 1);
  s.n = 3;
  s.seed = 41;
  w.start(std::move(s));
  std::vector<uint64_t> seeds;
  for (const auto &r : w.generator->submitted()) seeds.push_back(r->seed);
  EXPECT_EQ(seeds, (std::vector<uint64_t>{41, 42, 43}));
}

TEST(Generation, SeveralPromptsHaveSeveralAnswers) {
  World w;
  auto s = w.spec("one", 2);
  s.prompts.emplace_back(std::in_place_type<TokenPrompt>, std::vector<int32_t>{test::kHello});
  s.n = 2;
  w.start(std::move(s));
  w.step(2);
  EXPECT_EQ(w.recorder->texts.size(), 4u);
  EXPECT_EQ(w.recorder->outcome.usage.prompt_tokens, 4u);
  EXPECT_EQ(w.recorder->outcome.usage.completion_tokens, 8u);
}

// ---- refusals ---------------------------------------------------------------------------------------------------

void expect_refused(World &w, FailureKind kind, const std::string &param) {
  EXPECT_EQ(w.recorder->n_ends, 1);
  EXPECT_FALSE(w.recorder->admitted);
  ASSERT_TRUE(w.recorder->outcome.failure);
  EXPECT_EQ(static_cast<int>(w.recorder->outcome.failure->kind), static_cast<int>(kind));
  EXPECT_EQ(w.recorder->outcome.failure->param, param);
  EXPECT_EQ(w.service.inflight(), 0u);
}

TEST(Generation, ContextOverflowNamesBothNumbers) {
  World w;
  w.generator->limits_.max_context = 10;
  w.start(w.spec("abcdefgh", 3));
  expect_refused(w, FailureKind::kContextLength, "max_tokens");
  const auto &message = w.recorder->outcome.failure->message;
  for (const char *number : {"8 tokens", "is 3", "together 11", "10 tokens", "at most 2"}) {
    EXPECT_NE(message.find(number), std::string::npos) << number << " in: " << message;
  }
  EXPECT_TRUE(w.generator->submitted().empty());
}

TEST(Generation, APromptThatFillsTheContextIsRefused) {
  World w;
  w.generator->limits_.max_context = 8;
  auto s = w.spec("abcdefgh");
  s.max_tokens.reset();
  w.start(std::move(s));
  expect_refused(w, FailureKind::kContextLength, "prompt");
}

TEST(Generation, APromptThatCannotFitTheKvIsRefused) {
  World w;
  w.generator->limits_.max_kv_tokens = 6;
  w.start(w.spec("abcdefgh"));
  expect_refused(w, FailureKind::kContextLength, "prompt");
  EXPECT_NE(w.recorder->outcome.failure->message.find("KV memory"), std::string::npos);
}

TEST(Generation, WithoutALimitTheAnswerMayFillTheContext) {
  World w;
  w.generator->limits_.max_context = 10;
  auto s = w.spec("abc");
  s.max_tokens.reset();
  w.start(std::move(s));
  EXPECT_EQ(w.generator->submitted().at(0)->max_new, 7u);
}

TEST(Generation, TokenIdsOutsideTheVocabularyAreRefused) {
  for (const int32_t bad : {-1, test::kVocabSize, INT32_MAX}) {
    World w;
    auto s = w.spec();
    s.prompts = {TokenPrompt{{test::kHello, bad}}};
    w.start(std::move(s));
    expect_refused(w, FailureKind::kBadRequest, "prompt");
  }
}

TEST(Generation, AnEmptyPromptIsRefused) {
  World w;
  w.start(w.spec(""));
  expect_refused(w, FailureKind::kBadRequest, "prompt");
}

TEST(Generation, ChatWithoutATemplateIsRefused) {
  World w;
  auto s = w.spec();
  auto messages = std::make_shared<boost::json::array>();
  messages->push_back({{"role", "user"}, {"content", "hi"}});
  s.prompts.clear();
  s.prompts.emplace_back(std::in_place_type<ChatPrompt>, messages);
  w.start(std::move(s));
  expect_refused(w, FailureKind::kBadRequest, "messages");
}

TEST(Generation, MapsWhatTheGeneratorRefuses) {
  struct Case {
    Error error;
    FailureKind kind;
    std::string param;
  };
  const Case cases[] = {
      {{Code::kResourceExhausted, "full", ""}, FailureKind::kQueueFull, ""},
      {{Code::kResourceExhausted, "never", "prompt"}, FailureKind::kContextLength, "prompt"},
      {{Code::kUnavailable, "stopping", ""}, FailureKind::kShuttingDown, ""},
      {{Code::kInvalidArgument, "bad", "top_k"}, FailureKind::kBadRequest, "top_k"},
      {{Code::kInternal, "broken", ""}, FailureKind::kEngine, ""},
  };
  for (const auto &c : cases) {
    World w;
    w.generator->refuse_with(c.error);
    w.start(w.spec());
    expect_refused(w, c.kind, c.param);
  }
}

TEST(Generation, ARefusedAnswerTakesItsSiblingsAlong) {
  World w;
  int n = 0;
  struct Second final : request::Generator {
    explicit Second(std::shared_ptr<test::FakeGenerator> g, int &count) : inner(std::move(g)), n(count) {}
    request::GeneratorLimits limits() const override { return inner->limits(); }
    Result<> submit(std::shared_ptr<const request::Request> r) override {
      if (++n == 2) return Error{Code::kResourceExhausted, "full", ""};
      return inner->submit(std::move(r));
    }
    void cancel(uint64_t id, CancelCause cause) override { inner->cancel(id, cause); }
    request::GeneratorStats stats() const override { return {}; }
    void stop() override {}
    std::shared_ptr<test::FakeGenerator> inner;
    int &n;
  };
  w.model->generator = std::make_shared<Second>(w.generator, n);
  auto s = w.spec();
  s.n = 3;
  w.start(std::move(s));
  expect_refused(w, FailureKind::kQueueFull, "");
  EXPECT_EQ(w.generator->cancelled().size(), 1u);
  w.step();
  EXPECT_EQ(w.generator->open(), 0u);
}

TEST(Generation, TooManyAnswersAreRefusedAtTheDoor) {
  ServiceOptions options;
  options.max_inflight = 2;
  World w(options);
  const auto first = w.start(w.spec("hi", 9));
  const auto kept = std::exchange(w.recorder, std::make_shared<test::Recorder>());
  auto s = w.spec();
  s.n = 2;
  w.start(std::move(s));
  ASSERT_TRUE(w.recorder->outcome.failure);
  EXPECT_EQ(w.recorder->outcome.failure->retry_after_s, 1u);
  EXPECT_EQ(w.service.inflight(), 1u);
  w.step(9);
  EXPECT_EQ(w.service.inflight(), 0u);
}

// ---- ends before the end ----------------------------------------------------------------------------------------

TEST(Generation, DetachCancelsAndStaysSilent) {
  World w;
  const auto g = w.start(w.spec("hi", 50));
  w.step(3);
  g->detach(CancelCause::kDisconnect);
  g->detach(CancelCause::kDisconnect);
  EXPECT_EQ(w.service.inflight(), 0u);
  const int deltas = w.recorder->deltas;
  w.step(5);
  EXPECT_EQ(w.recorder->deltas, deltas);
  EXPECT_EQ(w.recorder->n_ends, 0);
  EXPECT_EQ(w.generator->open(), 0u);
  EXPECT_EQ(w.generator->cancelled().size(), 1u);
  EXPECT_NE(w.registry.text().find("sluice_cancelled_total{cause=\"disconnect\",model=\"tiny\"} 1"), std::string::npos);
}

TEST(Generation, CancelByTheClientEndsAfterTheEngineLetGo) {
  World w;
  const auto g = w.start(w.spec("hi", 50));
  w.step(3);
  w.generator->step();  // in the channel, not yet delivered
  g->cancel(CancelCause::kClient);
  g->cancel(CancelCause::kClient);
  w.run_posted();
  EXPECT_EQ(w.recorder->n_ends, 0);
  w.step(1);
  EXPECT_EQ(w.recorder->n_ends, 1);
  EXPECT_TRUE(w.recorder->outcome.cancelled);
  EXPECT_EQ(w.recorder->texts[0], "abc") << "nothing after the cancel";
  EXPECT_EQ(w.recorder->outcome.usage.completion_tokens, 3u);
}

TEST(Generation, CancelWhileTheConsumerIsFullStillEnds) {
  World w;
  w.recorder->open = false;
  const auto g = w.start(w.spec("hi", 50));
  w.step(3);
  g->cancel(CancelCause::kClient);
  w.step(1);
  EXPECT_EQ(w.recorder->n_ends, 1);
}

TEST(Generation, LongPromptsAreTokenisedElsewhereAndCanBeCancelledThere) {
  World w;
  const auto g = w.start(w.spec(std::string(3000, 'x') + std::string(2000, 'y'), 5));
  EXPECT_FALSE(w.recorder->admitted) << "nothing happens on the strand but waiting";
  g->detach(CancelCause::kDisconnect);
  EXPECT_EQ(w.service.inflight(), 0u);
  w.wait_posted();
  w.run_posted();
  EXPECT_TRUE(w.generator->submitted().empty());
}

TEST(Generation, LongPromptsArrive) {
  World w;
  w.generator->limits_.max_context = 10'000;
  const auto g = w.start(w.spec(std::string(5000, 'x'), 2));
  w.wait_posted();
  w.run_posted();
  EXPECT_TRUE(w.recorder->admitted);
  EXPECT_EQ(w.generator->submitted().at(0)->prompt.size(), 5000u);
  w.step(2);
  EXPECT_EQ(w.recorder->texts[0], "ab");
}

TEST(Generation, EngineErrorEndsEveryAnswer) {
  World w;
  auto s = w.spec("hi", 50);
  s.n = 2;
  w.start(std::move(s));
  w.step(2);
  w.generator->fail_next_step({Code::kInternal, "the backend broke", ""});
  w.step(1);
  EXPECT_EQ(w.recorder->n_ends, 1);
  ASSERT_TRUE(w.recorder->outcome.failure);
  EXPECT_EQ(w.recorder->outcome.failure->message, "the backend broke");
  EXPECT_EQ(w.service.inflight(), 0u);
  w.step(2);
  EXPECT_EQ(w.recorder->n_ends, 1);
}

TEST(Generation, DeadlineIsATimeout) {
  ServiceOptions options;
  options.request_timeout = std::chrono::milliseconds(10);
  World w(options);
  const auto g = w.start(w.spec("hi", 50));
  const auto request = w.generator->submitted().at(0);
  EXPECT_EQ(request->deadline_ns, request->arrival_ns + 10'000'000);
  w.step(1);
  w.clock->advance_ns(20'000'000);
  w.generator->cancel(request->id, CancelCause::kDeadline);  // as an engine does by itself
  w.step(1);
  ASSERT_TRUE(w.recorder->outcome.failure);
  EXPECT_EQ(static_cast<int>(w.recorder->outcome.failure->kind), static_cast<int>(FailureKind::kTimeout));
}

// ---- backpressure -----------------------------------------------------------------------------------------------

TEST(Generation, LeavesTheChannelFullWhileTheConsumerIs) {
  ServiceOptions options;
  options.channel_events = 8;
  World w(options);
  const auto g = w.start(w.spec("hi", 50));
  w.recorder->open = false;
  w.step(30);
  EXPECT_EQ(w.recorder->deltas, 0);
  EXPECT_TRUE(w.generator->submitted().at(0)->events->full());
  w.recorder->open = true;
  g->resume();
  EXPECT_EQ(w.recorder->deltas, 8) << "the engine had paused the answer";
  w.step(42);
  EXPECT_EQ(w.recorder->texts[0].size(), 50u);
  EXPECT_EQ(w.recorder->n_ends, 1);
}

// ---- log-probabilities ------------------------------------------------------------------------------------------

TEST(Generation, LogprobTokensJoinToTheContent) {
  World w;
  w.generator->token_of = [](const request::Request &, uint32_t i) {
    const int32_t script[] = {test::kHello, test::kWorld, byte_token('!'), test::kEos};
    return script[i];
  };
  auto s = w.spec("hi", 9);
  s.logprobs = true;
  s.top_logprobs = 2;
  w.start(std::move(s));
  w.step(4);
  EXPECT_EQ(w.recorder->texts[0], "hello world!");
  EXPECT_EQ(w.recorder->token_text, "hello world!");
  EXPECT_EQ(w.recorder->tokens.size(), 3u);
}

TEST(Generation, MeasuresLatenciesOnItsClock) {
  World w;
  w.start(w.spec("hi", 3));
  w.clock->advance_ns(30'000'000);
  w.step(1);
  w.clock->advance_ns(1'000'000);
  w.step(2);
  const auto text = w.registry.text();
  EXPECT_NE(text.find("sluice_time_to_first_token_seconds_bucket{model=\"tiny\",le=\"0.02\"} 0"), std::string::npos) << text;
  EXPECT_NE(text.find("sluice_time_to_first_token_seconds_bucket{model=\"tiny\",le=\"0.04\"} 1"), std::string::npos);
  EXPECT_NE(text.find("sluice_inter_token_latency_seconds_count{model=\"tiny\"} 2"), std::string::npos);
  EXPECT_NE(text.find("sluice_generation_tokens_total{model=\"tiny\"} 3"), std::string::npos);
}

}  // namespace
}  // namespace sluice::lifecycle

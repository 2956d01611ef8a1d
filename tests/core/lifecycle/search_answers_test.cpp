// The answers of a search: one request, one channel, several answers in it.
#include <gtest/gtest.h>

#include "tests/core/lifecycle/world.hpp"

namespace sluice::lifecycle {
namespace {

using request::CancelCause;
using request::FinishReason;
using test::byte_token;
using test::World;

struct SearchWorld : World {
  explicit SearchWorld(uint32_t answers, std::vector<std::string> stop = {}) {
    generator->limits_.max_branches = 8;
    auto s = spec("hi", 9);
    s.n = answers;
    s.beams = 4;
    s.stop = std::move(stop);
    generation = start(std::move(s));
    request = generator->submitted().at(0);
  }
  void answer(uint32_t index, const std::string &text, FinishReason finish) {
    for (size_t i = 0; i < text.size(); ++i) {
      request::Event event;
      event.answer = index;
      event.token = byte_token(text[i]);
      if (i + 1 == text.size()) event.finish = finish;
      request->events->push(std::move(event));
    }
  }
  std::shared_ptr<Generation> generation;
  std::shared_ptr<const request::Request> request;
};

TEST(SearchAnswers, AreOneRequest) {
  SearchWorld w(3);
  ASSERT_EQ(w.generator->submitted().size(), 1u);
  EXPECT_EQ(w.request->n_answers, 3u);
  EXPECT_EQ(w.request->n_branches, 4u);
  EXPECT_EQ(w.service.inflight(), 3u);
  w.answer(0, "best", FinishReason::kLength);
  w.answer(1, "second", FinishReason::kStop);
  w.run_posted();
  EXPECT_EQ(w.recorder->n_ends, 0) << "one is still to come";
  w.answer(2, "third", FinishReason::kLength);
  w.run_posted();
  EXPECT_EQ(w.recorder->texts, (std::vector<std::string>{"best", "second", "third"}));
  EXPECT_EQ(w.recorder->ends, (std::vector<std::pair<uint32_t, AnswerEnd>>{
                                  {0, AnswerEnd::kLength}, {1, AnswerEnd::kStop}, {2, AnswerEnd::kLength}}));
  EXPECT_EQ(w.recorder->n_ends, 1);
  EXPECT_EQ(w.recorder->outcome.usage.completion_tokens, 15u);
  EXPECT_EQ(w.recorder->outcome.usage.prompt_tokens, 2u);
  EXPECT_EQ(w.service.inflight(), 0u);
}

TEST(SearchAnswers, AStopStringCutsOneAndNotTheOthers) {
  SearchWorld w(2, {"XY"});
  w.answer(0, "abXYcd", FinishReason::kLength);
  w.answer(1, "efghij", FinishReason::kLength);
  w.run_posted();
  EXPECT_EQ(w.recorder->texts, (std::vector<std::string>{"ab", "efghij"}));
  EXPECT_EQ(w.recorder->ends.at(0).second, AnswerEnd::kStop);
  EXPECT_EQ(w.recorder->ends.at(1).second, AnswerEnd::kLength);
  EXPECT_FALSE(w.recorder->outcome.failure);
  EXPECT_TRUE(w.generator->cancelled().empty()) << "the search is over";
}

TEST(SearchAnswers, EndTogetherWhenCancelled) {
  SearchWorld w(2);
  w.generation->cancel(CancelCause::kClient);
  EXPECT_EQ(w.generator->cancelled().at(0).first, w.request->id);
  for (uint32_t k = 0; k < 2; ++k) {
    request::Event event;
    event.answer = k;
    event.finish = FinishReason::kCancelled;
    w.request->events->push(std::move(event));
  }
  w.run_posted();
  EXPECT_EQ(w.recorder->ends.size(), 2u);
  EXPECT_TRUE(w.recorder->outcome.cancelled);
}

}  // namespace
}  // namespace sluice::lifecycle

#include "core/text/stop_matcher.hpp"

#include <gtest/gtest.h>
#include <random>

namespace sluice::text {
namespace {

struct Outcome {
  std::string text;
  bool stopped = false;
};

/// By definition: grow the text byte by byte until it ends with a stop; the longest of those goes.
Outcome brute_force(const std::string &text, const std::vector<std::string> &stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string &stop : stops)
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0)
        longest = std::max(longest, stop.size());
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

/// What could still become a stop: the longest tail that begins one.
size_t longest_begun(const std::string &text, const std::vector<std::string> &stops) {
  for (size_t n = text.size(); n > 0; --n)
    for (const std::string &stop : stops)
      if (n < stop.size() && stop.compare(0, n, text, text.size() - n, n) == 0) return n;
  return 0;
}

TEST(StopMatcher, EndsBeforeAStopAcrossPieces) {
  const std::vector<std::string> stops = {"\n\n", "END"};
  StopMatcher m(stops);
  std::string out;
  EXPECT_FALSE(m.push("one E", out));
  EXPECT_EQ(out, "one ");
  EXPECT_FALSE(m.push("N", out));
  EXPECT_EQ(out, "one ");
  EXPECT_FALSE(m.push("E", out));
  EXPECT_EQ(out, "one EN");
  EXPECT_TRUE(m.push("ND and more", out));
  EXPECT_EQ(out, "one EN");
  EXPECT_EQ(m.matched(), 1u);
  EXPECT_TRUE(m.push("later", out));
  m.flush(out);
  EXPECT_EQ(out, "one EN");
}

TEST(StopMatcher, FlushGivesBackWhatWasHeld) {
  const std::vector<std::string> stops = {"STOP"};
  StopMatcher m(stops);
  std::string out;
  EXPECT_FALSE(m.push("do not ST", out));
  m.flush(out);
  EXPECT_EQ(out, "do not ST");
  EXPECT_FALSE(m.stopped());
}

TEST(StopMatcher, WithoutStopsEverythingPasses) {
  StopMatcher m({});
  std::string out;
  EXPECT_FALSE(m.push("anything", out));
  EXPECT_EQ(out, "anything");
}

TEST(StopMatcher, TheFirstCompleteStopWinsAndOfThoseTheLonger) {
  for (const auto &[stops, text, want] :
       {std::tuple<std::vector<std::string>, std::string, std::string>{{"b", "abc"}, "xabc", "xa"},
        {{"c", "abc"}, "xabc", "x"},
        {{"abc", "bc"}, "xabc", "x"}}) {
    StopMatcher m(stops);
    std::string out;
    EXPECT_TRUE(m.push(text, out));
    EXPECT_EQ(out, want);
  }
}

TEST(StopMatcher, AgreesWithTheDefinition) {
  std::mt19937 random(11);
  const auto word = [&](size_t longest) {
    std::string out;
    for (size_t n = 1 + random() % longest; n > 0; --n) out += "ab\n"[random() % 3];
    return out;
  };
  int stopped = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (size_t n = 1 + random() % 4; n > 0; --n) stops.push_back(word(6));
    const std::string text = word(30);
    StopMatcher m(stops);
    std::string out;
    size_t at = 0;
    while (at < text.size() && !m.stopped()) {
      const size_t n = std::min<size_t>(1 + random() % 5, text.size() - at);
      m.push(text.substr(at, n), out);
      at += n;
      if (!m.stopped()) {
        const std::string so_far = text.substr(0, at);
        ASSERT_EQ(out, so_far.substr(0, at - longest_begun(so_far, stops)));
      }
    }
    const Outcome want = brute_force(text, stops);
    if (!m.stopped()) m.flush(out);
    ASSERT_EQ(m.stopped(), want.stopped);
    ASSERT_EQ(out, want.text);
    stopped += want.stopped;
  }
  EXPECT_GT(stopped, 5000);
  EXPECT_LT(stopped, 19999);
}

TEST(StopMatcher, AHostileStopIsLinear) {
  const std::vector<std::string> stops = {std::string(1000, 'a') + "b"};
  StopMatcher m(stops);
  std::string out;
  for (int i = 0; i < 100000; ++i)
    m.push("aaaaaaaaaaaaaaaaaaaa", out);  // two million bytes; quadratic would be 2e9 steps
  m.flush(out);
  EXPECT_EQ(out.size(), 2'000'000u);
}

}  // namespace
}  // namespace sluice::text

#include "backends/mock/step_time.hpp"

#include <gtest/gtest.h>

namespace sluice::mock {
namespace {

TEST(StepTable, InterpolatesBetweenPointsAndStopsAtTheEdges) {
  const StepTable t = StepTable::parse("n_tokens,context,us\n# two rows\n1,0,100\n1,1000,200\n\n 17 , 0 , 500\n", "t");
  EXPECT_DOUBLE_EQ(t.us(1, 0), 100);
  EXPECT_DOUBLE_EQ(t.us(1, 500), 150);
  EXPECT_DOUBLE_EQ(t.us(1, 9000), 200);
  EXPECT_DOUBLE_EQ(t.us(17, 400), 500);
  EXPECT_DOUBLE_EQ(t.us(9, 0), 300);
  EXPECT_DOUBLE_EQ(t.us(0, 0), 100);
  EXPECT_DOUBLE_EQ(t.us(99, 0), 500);
}

TEST(StepTable, NamesTheLineThatIsWrong) {
  const auto said = [](const std::string &text) -> std::string {
    try {
      StepTable::parse(text, "steps.csv");
    } catch (const std::runtime_error &e) {
      return e.what();
    }
    return "nothing";
  };
  EXPECT_EQ(said(""), "steps.csv has no line n_tokens,context_tokens,us");
  EXPECT_EQ(said("1,2,3\n4,5\n"), "steps.csv:2: '4,5' is not n_tokens,context_tokens,us with numbers from 0 on");
  EXPECT_EQ(said("1,2,-3\n").substr(0, 22), "steps.csv:1: '1,2,-3' ");
  EXPECT_NE(said("1,2,3,4\n"), "nothing");
  EXPECT_NE(said("1,nan,3\n"), "nothing");
}

TEST(StepTime, AddsConstantTokensAndTable) {
  StepTime t;
  EXPECT_TRUE(t.instant());
  EXPECT_EQ(t.ns(1, 100, 1000), 0u);
  t.step_us = 10, t.token_us = 2, t.table = StepTable::parse("1,0,5\n", "t");
  EXPECT_EQ(t.ns(1, 3, 0), 21'000u);
}

}  // namespace
}  // namespace sluice::mock

#include "core/net/refusal_log.hpp"

#include <gtest/gtest.h>

namespace sluice::net {
namespace {

TEST(RefusalLog, NamesWhatWasRefusedAndEscapesIt) {
  RefusalLog log;
  const auto line = log.line({"id-1", "GET", "/v1/models", 404, "127.0.0.1"}, 1);
  EXPECT_NE(line.find(R"("event":"refused","status":404,"request_id":"id-1","method":"GET","route":"/v1/models","peer":"127.0.0.1"})"),
            std::string::npos) << line;
  EXPECT_NE(log.line({"a\"b\n", "", "none", 400, ""}, 1).find(R"("request_id":"a\"b\n","route":"none"})"), std::string::npos);
}

TEST(RefusalLog, AFloodCostsBoundedLinesAndIsCounted) {
  RefusalLog log;
  size_t lines = 0;
  for (int i = 0; i < 1000; ++i) lines += log.line({"r", "POST", "none", 400, ""}, 7).empty() ? 0 : 1;
  EXPECT_EQ(lines, RefusalLog::kLinesPerS);
  const auto next = log.line({"r", "POST", "none", 400, ""}, 8);
  EXPECT_NE(next.find(R"("not_logged":950})"), std::string::npos) << next;
  EXPECT_EQ(log.line({"r", "POST", "none", 400, ""}, 8).find("not_logged"), std::string::npos);
}

}  // namespace
}  // namespace sluice::net

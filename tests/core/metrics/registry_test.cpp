#include "core/metrics/registry.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "core/metrics/model_metrics.hpp"

namespace sluice::metrics {
namespace {

bool has_line(const std::string &text, const std::string &line) { return ("\n" + text).find("\n" + line + "\n") != std::string::npos; }

TEST(Registry, WritesCountersGaugesAndHistograms) {
  Registry r;
  r.counter("a_total", "help of a", {{"k", "v"}}).add(3);
  r.gauge("b", "help of b").set(-1.5);
  r.histogram("c_seconds", "help of c", {}, {1, 2}).observe(1.5);
  const auto text = r.text();
  EXPECT_TRUE(has_line(text, "# HELP a_total help of a"));
  EXPECT_TRUE(has_line(text, "# TYPE a_total counter"));
  EXPECT_TRUE(has_line(text, "a_total{k=\"v\"} 3"));
  EXPECT_TRUE(has_line(text, "b -1.5"));
  EXPECT_TRUE(has_line(text, "c_seconds_bucket{le=\"1\"} 0"));
  EXPECT_TRUE(has_line(text, "c_seconds_bucket{le=\"2\"} 1"));
  EXPECT_TRUE(has_line(text, "c_seconds_count 1"));
}

TEST(Registry, SameNameAndLabelsIsTheSameMetric) {
  Registry r;
  r.counter("a_total", "a").add(1);
  r.counter("a_total", "a").add(1);
  EXPECT_EQ(r.counter("a_total", "a").value(), 2);
}

TEST(Registry, EscapesLabelValues) {
  Registry r;
  r.gauge("a", "a", {{"k", "quote\" slash\\ line\n"}}).set(1);
  EXPECT_TRUE(has_line(r.text(), R"(a{k="quote\" slash\\ line\n"} 1)"));
}

TEST(Registry, DefaultHandlesDoNothing) {
  Counter{}.add();
  Gauge{}.set(1);
  Histogram{}.observe(1);
  EXPECT_EQ(Counter{}.value(), 0);
}

TEST(Registry, RaiseToNeverLowers) {
  Registry r;
  const auto c = r.counter("a_total", "a");
  c.raise_to(5);
  c.raise_to(3);
  EXPECT_EQ(c.value(), 5);
}

TEST(Registry, RefreshesBeforeEveryScrape) {
  Registry r;
  const auto g = r.gauge("a", "a");
  int n = 0;
  r.on_scrape([&] { g.set(++n); });
  r.text();
  EXPECT_TRUE(has_line(r.text(), "a 2"));
}

TEST(Registry, KnowsWhichNamesAreValid) {
  for (const char *good : {"a", "a_total", "x9_seconds"}) EXPECT_TRUE(Registry::valid_name(good)) << good;
  for (const char *bad : {"", "9a", "A", "a-b", "a b", "a:b", "a\n"}) EXPECT_FALSE(Registry::valid_name(bad)) << bad;
}

TEST(ModelMetrics, HasTheServingSetAndItsAliases) {
  Registry r(true);
  const ModelMetrics m(r, "tiny");
  m.running.set(2);
  m.prompt_tokens.add(7);
  m.finished("stop");
  m.finished("nonsense");
  m.cancelled("disconnect");
  const auto text = r.text();
  EXPECT_TRUE(has_line(text, "sluice_requests_running{model=\"tiny\"} 2"));
  EXPECT_TRUE(has_line(text, "vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 2"));
  EXPECT_TRUE(has_line(text, "vllm:prompt_tokens_total{engine=\"0\",model_name=\"tiny\"} 7"));
  EXPECT_TRUE(has_line(text, "sluice_requests_finished_total{model=\"tiny\",reason=\"stop\"} 1"));
  EXPECT_TRUE(has_line(text, "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"tiny\"} 1"));
  EXPECT_TRUE(has_line(text, "sluice_cancelled_total{cause=\"disconnect\",model=\"tiny\"} 1"));
}

TEST(ModelMetrics, AliasesAreOptional) {
  Registry r;
  const ModelMetrics m(r, "tiny");
  EXPECT_EQ(r.text().find("vllm:"), std::string::npos);
}

}  // namespace
}  // namespace sluice::metrics

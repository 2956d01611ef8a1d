#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include "core/sim/chart.hpp"
#include "tests/core/sim/laboratory.hpp"

namespace sluice::sim::testing {
namespace {

Comparison example(const std::string &name) {
  Comparison comparison;
  comparison.step_model = "max(1 us, 2 us x tokens)";
  comparison.saturation_per_s = 2;
  LoadResult load{0.9, 1.8, 0.9, {}};
  for (const auto &policy : {std::string("fcfs"), name}) {
    PolicyResult result;
    result.name = policy;
    result.mean.jct = {2, 1, 3, 4, 5};
    result.mean.ttft = {policy == "fcfs" ? 1.0 : 0.25, 0.1, 0.2, 0.3, 0.4};
    result.jct_cdf = result.ttft_cdf = {{0.1, 0.5}, {1, 0.9}, {10, 1}};
    result.moments = {{0, 1, 2, 0.5}, {1, 2, 0, 0.75}};
    result.runs = {result.mean};
    result.hashes = {0xabcULL};
    load.policies.push_back(result);
  }
  comparison.loads.push_back(load);
  return comparison;
}

TEST(Report, JsonHasEveryFigure) {
  const auto report = boost::json::parse(to_json(shipped("setup_s.toml"), example("mlfq"))).as_object();
  const auto &policy = report.at("loads").at(0).at("policies").at(1);
  EXPECT_EQ(policy.at("name").as_string(), "mlfq");
  EXPECT_EQ(policy.at("mean").at("ttft_s").at("mean").as_double(), 0.25);
  EXPECT_EQ(policy.at("finish_time_hashes").at(0).as_string(), "0000000000000abc");
  EXPECT_EQ(report.at("loads").at(0).at("rho").as_double(), 0.9);
}

TEST(Report, HtmlIsOnePageThatNeedsNothingElseAndTrustsNoName) {
  const std::string page = to_html(shipped("setup_s.toml"), example("<script>alert(1)</script>"));
  for (const char *outside : {"http:", "https:", "src=", "href=", "<script", "@import", "url("})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  for (const char *part : {"Job completion time", "Time to first token", "By output length", "Waiting requests",
                           "KV blocks in use", "<polyline", "</html>", ">4.00</td>"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
}

TEST(Report, ChartsBearAnything) {
  for (const Points &points : {Points{}, Points{{0, 0}}, Points{{1, 1}, {1, 1}}, Points{{0, 5}, {-3, 2}}}) {
    const std::string svg = draw_curves({"t", "x", "y", true, {{"a", points}}});
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
  }
}

TEST(Measures, CountTheMiddleOnly) {
  sim::Setup setup;
  setup.device.bytes_per_token = 1000;
  std::vector<Arrival> arrivals(100);
  Outcome outcome;
  outcome.end_ns = 100'000'000'000;
  for (size_t i = 0; i < 100; ++i) {
    arrivals[i] = {i * 1'000'000'000, 10, static_cast<uint32_t>(i % 10 + 1)};
    const uint64_t jct = i < 10 || i >= 90 ? 1'000'000'000'000 : (i % 10 + 1) * 100'000'000;
    outcome.served.push_back({arrivals[i].at_ns + 50'000'000, 0, arrivals[i].at_ns + jct, 7'000'000, arrivals[i].output});
  }
  const auto m = measure(outcome, arrivals, 0.8, setup);
  EXPECT_NEAR(m.jct.mean, 0.55, 1e-9);
  EXPECT_NEAR(m.jct.max, 1.0, 1e-9);
  EXPECT_NEAR(m.ttft.mean, 0.05, 1e-9);
  EXPECT_NEAR(m.normalized.mean, 0.1, 1e-9);
  EXPECT_NEAR(m.longest_pause.max, 0.007, 1e-9);
  EXPECT_NEAR(m.deciles[0].output_tokens, 1, 1e-9);
  EXPECT_NEAR(m.deciles[9].jct_s, 1.0, 1e-9);
  EXPECT_NEAR(m.throughput_of_arrivals, 1, 0.03);
}

}  // namespace
}  // namespace sluice::sim::testing

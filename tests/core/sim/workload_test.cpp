#include <cmath>
#include <fstream>

#include "core/sim/bench_fit.hpp"
#include "tests/core/sim/laboratory.hpp"

namespace sluice::sim::testing {
namespace {

struct Moments {
  double mean = 0, cv = 0;
};
template <class Of> Moments moments(size_t n, const Of &of) {
  double sum = 0, squares = 0;
  for (size_t i = 0; i < n; ++i) sum += of(i), squares += of(i) * of(i);
  const double mean = sum / static_cast<double>(n);
  return {mean, std::sqrt(squares / static_cast<double>(n) - mean * mean) / mean};
}
Moments gaps(const std::vector<Arrival> &a) {
  return moments(a.size() - 1, [&](size_t i) { return static_cast<double>(a[i + 1].at_ns - a[i].at_ns) * 1e-9; });
}
Moments outputs(const std::vector<Arrival> &a) {
  return moments(a.size(), [&](size_t i) { return double(a[i].output); });
}

TEST(Workload, IsAFunctionOfItsSeedAndAnotherRateHasTheSameLengths) {
  auto setup = shipped("setup_s.toml");
  setup.requests = 1000;
  const auto a = workload(setup, 3, 1.0), b = workload(setup, 3, 2.0), c = workload(setup, 4, 1.0);
  uint64_t hash = 0xcbf29ce484222325;
  size_t differ = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].input, b[i].input);
    EXPECT_EQ(a[i].output, b[i].output);
    EXPECT_NEAR(static_cast<double>(a[i].at_ns), 2.0 * static_cast<double>(b[i].at_ns), 1e4);
    differ += a[i].output != c[i].output;
    for (const uint64_t v : {a[i].at_ns, uint64_t{a[i].input}, uint64_t{a[i].output}}) hash = (hash ^ v) * 0x100000001b3;
  }
  EXPECT_GT(differ, 900U);
  EXPECT_EQ(hash, 5237164178991230268ULL);
}

TEST(Workload, HasTheMomentsThatWereAskedFor) {
  sim::Setup setup;
  setup.requests = 40'000;
  setup.device.kv_tokens = 1'000'000;
  setup.lengths.input = {{1, 50, 0.5}};
  setup.lengths.output = {{1, 300, 1.0}};
  auto load = workload(setup, 1, 4.0);
  EXPECT_NEAR(outputs(load).mean, 300, 6);
  EXPECT_NEAR(outputs(load).cv, 1.0, 0.05);
  EXPECT_NEAR(gaps(load).mean, 0.25, 0.005);
  EXPECT_NEAR(gaps(load).cv, 1.0, 0.02);

  setup.lengths.output = {{0.1, 4000, 0}, {0.9, 100, 0}};
  EXPECT_NEAR(outputs(workload(setup, 1, 4.0)).mean, 490, 20);
  for (const double cv : {0.5, 2.0, 4.0}) {
    setup.load.arrivals = Arrivals::kGamma;
    setup.load.gamma_cv = cv;
    load = workload(setup, 1, 4.0);
    EXPECT_NEAR(gaps(load).mean, 0.25, 0.05 * cv * 0.25) << cv;
    EXPECT_NEAR(gaps(load).cv, cv, 0.06 * cv) << cv;
  }
  setup.load.arrivals = Arrivals::kOnOff;
  setup.load.on_s = 1, setup.load.off_s = 3;
  load = workload(setup, 1, 4.0);
  EXPECT_NEAR(gaps(load).mean, 0.25, 0.01);
  for (const auto &a : load) ASSERT_LE(std::fmod(static_cast<double>(a.at_ns) * 1e-9, 4.0), 1.0 + 1e-6);
}

TEST(Workload, LimitsHold) {
  auto setup = shipped("setup_s.toml");
  double sum = 0;
  for (const auto &a : workload(setup, 1, 1.0)) {
    ASSERT_GE(a.input, 1U);
    ASSERT_GE(a.output, 1U);
    ASSERT_LE(a.input, 1024U);
    ASSERT_LE(a.input + a.output, 2048U);
    sum += a.output;
  }
  EXPECT_NEAR(sum / setup.requests, 320.7, 10) << "338 before the limits";
  EXPECT_NEAR(output_cv(workload(setup, 1, 1.0)), 0.889, 0.03) << "of this setup after truncation";
  setup.lengths.max_input = 10, setup.lengths.max_total = 12;
  setup.lengths.input = {{1, 1000, 0}};
  EXPECT_NE(make_workload(setup, 1, 1.0).error().message.find("raise the limits"), std::string::npos);
}

class Trace : public ::testing::Test {
 protected:
  std::string error_of(const std::string &text) {
    std::ofstream(path_) << text;
    sim::Setup setup;
    setup.device.kv_tokens = 1600;
    setup.load.arrivals = Arrivals::kTrace;
    setup.load.trace = path_;
    auto arrivals = make_workload(setup, 1, 0);
    return arrivals ? std::to_string(arrivals->size()) + " requests" : arrivals.error().message;
  }
  ~Trace() override { std::remove(path_.c_str()); }
  const std::string path_ = ::testing::TempDir() + "sim_trace_" + std::to_string(::getpid()) + ".csv";
};

TEST_F(Trace, IsReadAndWhatIsWrongIsToldByLine) {
  EXPECT_EQ(error_of("arrival_s,input_tokens,output_tokens\n0,10,20\n\n1.5,3,4\r\n# end"), "2 requests");
  EXPECT_NE(error_of("0,10,20\n1,2\n").find(path_ + ":2: not arrival_s"), std::string::npos);
  EXPECT_NE(error_of("0,10,0\n").find(":1:"), std::string::npos);
  EXPECT_NE(error_of("-1,10,1\n").find(":1:"), std::string::npos);
  EXPECT_NE(error_of("nan,10,1\n0,1,1\n").find("1 requests"), std::string::npos) << "words are headings";
  EXPECT_NE(error_of("2,1,1\n1,1,1\n").find("sort the trace"), std::string::npos);
  EXPECT_NE(error_of("0,1000,1000\n").find("1000 + 1000 tokens"), std::string::npos);
  EXPECT_NE(error_of("").find("no line"), std::string::npos);
}

TEST(BenchFit, FindsTheConstantsBehindExactMeasurements) {
  std::vector<StepPoint> points;
  const auto us = [](double n, double c) { return std::max(5700.0, 32 * n) + 1500 + 0.047 * c; };
  for (const double n : {1.0, 16.0, 64.0, 200.0, 512.0, 2048.0})
    for (const double c : {0.0, 5000.0, 40'000.0}) points.push_back({n, c, us(n, c)});
  const auto fit = fit_points(points);
  EXPECT_LT(fit.largest_error, 0.03);
  EXPECT_NEAR(static_cast<double>(fit.constants.token_ps) * 1e-6, 32, 1);
  EXPECT_NEAR(static_cast<double>(fit.constants.context_ps) * 1e-6, 0.047, 0.002);
  points.push_back({16, 0, 2 * us(16, 0)});
  EXPECT_GT(fit_points(points).largest_error, 0.1) << "and says how well they are met";
}

}  // namespace
}  // namespace sluice::sim::testing

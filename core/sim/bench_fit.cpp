#include "core/sim/bench_fit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <cmath>

#include "core/config/document.hpp"

namespace sluice::sim {
namespace {

constexpr uint64_t kMaxBenchBytes = 4 << 20;

struct Candidate {
  double floor = 0, token = 0, base = 0, context = 0, error = INFINITY;  // us
};

double us(const Candidate &c, const StepPoint &p) {
  return std::max(c.floor, c.token * p.tokens) + c.base + c.context * p.context_tokens;
}

double squared_error(const Candidate &c, const std::vector<StepPoint> &points) {
  double sum = 0;
  for (const auto &p : points) {
    const double relative = us(c, p) / p.us - 1;
    sum += relative * relative;
  }
  return sum;
}

/// The best base and context, neither below 0, for a given floor and price of a token: least squares in two unknowns.
void solve_rest(Candidate &c, const std::vector<StepPoint> &points) {
  double bb = 0, bx = 0, xx = 0, by = 0, xy = 0;
  for (const auto &p : points) {
    const double b = 1 / p.us, x = p.context_tokens / p.us, y = 1 - std::max(c.floor, c.token * p.tokens) / p.us;
    bb += b * b, bx += b * x, xx += x * x, by += b * y, xy += x * y;
  }
  const double det = bb * xx - bx * bx;
  const std::array<std::array<double, 2>, 4> tries = {{
      {det > 1e-12 * bb * xx ? (by * xx - xy * bx) / det : -1, det > 1e-12 * bb * xx ? (xy * bb - by * bx) / det : -1},
      {by / bb, 0},
      {0, xx > 0 ? xy / xx : 0},
      {0, 0},
  }};
  Candidate best = c;
  for (const auto &[base, context] : tries) {
    if (base < 0 || context < 0) continue;
    Candidate t = c;
    t.base = base, t.context = context, t.error = squared_error(t, points);
    if (t.error < best.error) best = t;
  }
  c = best;
}

}  // namespace

BenchFit fit_points(const std::vector<StepPoint> &points) {
  double shortest = INFINITY, steepest = 0;
  for (const auto &p : points) {
    shortest = std::min(shortest, p.us);
    if (p.tokens > 0) steepest = std::max(steepest, p.us / p.tokens);
  }
  // Two of the four are searched on a grid that closes in on the best; the other two follow.
  Candidate best;
  double floor_low = 0, floor_high = shortest, token_low = steepest * 1e-6, token_high = steepest;
  for (int round = 0; round < 8; ++round) {
    constexpr int kGrid = 60;
    const double floor_step = (floor_high - floor_low) / kGrid, token_factor = std::pow(token_high / token_low, 1.0 / kGrid);
    for (int i = 0; i <= kGrid; ++i)
      for (int k = 0; k <= kGrid; ++k) {
        Candidate c;
        c.floor = floor_low + i * floor_step, c.token = token_low * std::pow(token_factor, k);
        solve_rest(c, points);
        if (c.error < best.error) best = c;
      }
    floor_low = std::max(0.0, best.floor - 4 * floor_step), floor_high = best.floor + 4 * floor_step;
    token_low = best.token * std::pow(token_factor, -4), token_high = best.token * std::pow(token_factor, 4);
  }
  BenchFit fit;
  const auto ps = [](double value) { return static_cast<uint64_t>(std::llround(value * 1e6)); };
  fit.constants = {ps(best.floor), ps(best.token), ps(best.base), ps(best.context)};
  fit.n_points = points.size();
  for (const auto &p : points) {
    const double error = std::abs(us(best, p) / p.us - 1);
    fit.mean_error += error / static_cast<double>(points.size());
    fit.largest_error = std::max(fit.largest_error, error);
  }
  return fit;
}

Result<BenchFit> fit_bench(const std::vector<std::string> &paths) {
  std::vector<StepPoint> points;
  for (const auto &path : paths) {
    const auto file = config::read_small_file(path, kMaxBenchBytes);
    if (!file.wrong.empty()) return invalid_argument(fmt::format("device.bench: {} {}", path, file.wrong));
    boost::system::error_code failed;
    const auto json = boost::json::parse(file.text, failed);
    const auto number = [](const boost::json::value &in, const char *key) {
      const auto *object = in.if_object();
      const auto *value = object == nullptr ? nullptr : object->if_contains(key);
      if (value == nullptr || !value->is_number()) return -1.0;
      return value->to_number<double>();
    };
    const auto *object = json.if_object();
    const auto *rows = object == nullptr ? nullptr : object->if_contains("results");
    const double prompt = number(json, "prompt_tokens"), generated = number(json, "gen_tokens");
    const double budget = number(json, "token_budget");
    const auto wrong = [&] { return invalid_argument(path + " is not what `sluice bench --json` prints"); };
    if (failed || rows == nullptr || !rows->is_array() || prompt < 1 || generated < 1 || budget < 1) return wrong();
    for (const auto &row : rows->as_array()) {
      const double batch = number(row, "batch"), decode = number(row, "decode_tokens_per_s"),
                   prefill = number(row, "prefill_tokens_per_s");
      if (batch < 1 || !(decode > 0) || !(prefill > 0)) return wrong();
      // A step of decodes over caches that are on average half grown; a step of a whole budget of prompt tokens.
      points.push_back({batch, batch * (prompt + generated / 2), 1e6 * batch / decode});
      const double tokens = std::min(budget, batch * prompt);
      points.push_back({tokens, std::max(0.0, prompt - budget) / 2, 1e6 * tokens / prefill});
    }
  }
  if (points.size() < 4)
    return invalid_argument(fmt::format("device.bench: {} measurements; at least 4 are needed, so run `sluice bench` "
                                        "with two batch sizes or more", points.size()));
  return fit_points(points);
}

}  // namespace sluice::sim

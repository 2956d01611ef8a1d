#include "core/sim/step_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/config/document.hpp"
#include "core/sim/bench_fit.hpp"

namespace sluice::sim {
namespace {

constexpr uint64_t kMaxTableBytes = 16 << 20;

std::string formula(const StepConstants &c) {
  const auto us = [](uint64_t ps) { return static_cast<double>(ps) * 1e-6; };
  return fmt::format("max({} us, {} us x tokens) + {} us + {} us x context tokens", us(c.floor_ps), us(c.token_ps),
                     us(c.base_ps), us(c.context_ps));
}

double between(double x, double x0, double y0, double x1, double y1) { return y0 + (x - x0) / (x1 - x0) * (y1 - y0); }

}  // namespace

Result<StepModel> StepModel::create(const Device &device) {
  StepModel model;
  model.between_steps_ns_ = device.between_steps_ps / 1000;
  if (!device.step_table.empty()) {
    if (auto r = model.read_table(device.step_table); !r) return r.error();
    model.description_ = "table " + device.step_table;
    return model;
  }
  model.constants_ = device.step;
  if (!device.bench.empty()) {
    auto fit = fit_bench(device.bench);
    if (!fit) return fit.error();
    model.constants_ = fit->constants;
    model.description_ = fmt::format("{}, fitted to {} measurements: error {:.1f} % on average, {:.1f} % at most",
                                     formula(fit->constants), fit->n_points, 100 * fit->mean_error,
                                     100 * fit->largest_error);
    return model;
  }
  model.description_ = formula(device.step);
  return model;
}

uint64_t StepModel::ns(uint32_t tokens, uint64_t context_tokens) const {
  if (!rows_.empty()) return static_cast<uint64_t>(table_us(tokens, static_cast<double>(context_tokens)) * 1000) + between_steps_ns_;
  const uint64_t ps = std::max(constants_.floor_ps, constants_.token_ps * tokens) + constants_.base_ps +
                      constants_.context_ps * context_tokens;
  return ps / 1000 + between_steps_ns_;
}

Result<> StepModel::read_table(const std::string &path) {
  const auto file = config::read_small_file(path, kMaxTableBytes);
  if (!file.wrong.empty()) return invalid_argument(fmt::format("device.step_table: {} {}", path, file.wrong));
  std::vector<StepPoint> points;
  const char *at = file.text.data(), *const end = at + file.text.size();
  for (uint32_t line = 1; at < end; ++line) {
    const char *const stop = std::find(at, end, '\n');
    const char *p = at;
    at = stop == end ? end : stop + 1;
    while (p < stop && (*p == ' ' || *p == '\t' || *p == '\r')) ++p;
    if (p == stop || *p == '#' || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')) continue;
    double number[3] = {-1, -1, -1};
    for (int i = 0; i < 3; ++i) {
      const auto parsed = std::from_chars(p, stop, number[i]);
      if (parsed.ec != std::errc() || (i < 2 && (parsed.ptr == stop || *parsed.ptr != ','))) break;
      p = parsed.ptr + (i < 2 ? 1 : 0);
    }
    const bool ok = std::all_of(number, number + 3, [](double x) { return std::isfinite(x) && x >= 0 && x < 1e12; });
    if (!ok)
      return invalid_argument(fmt::format("{}:{}: not n_tokens,context_tokens,us with numbers from 0 on", path, line));
    points.push_back({number[0], number[1], number[2]});
  }
  if (points.empty()) return invalid_argument(path + " has no line n_tokens,context_tokens,us");
  std::stable_sort(points.begin(), points.end(), [](const StepPoint &a, const StepPoint &b) {
    return a.tokens != b.tokens ? a.tokens < b.tokens : a.context_tokens < b.context_tokens;
  });
  for (const auto &point : points) {
    if (rows_.empty() || rows_.back().tokens != point.tokens) rows_.push_back({point.tokens, {}});
    auto &row = rows_.back().points;
    if (!row.empty() && row.back().context_tokens == point.context_tokens) row.back() = point;
    else row.push_back(point);
  }
  return {};
}

/// Between points along context, then along tokens; outside it is the nearest point's. As the mock backend reads it.
double StepModel::table_us(double tokens, double context_tokens) const {
  const auto along = [&](const Row &row) {
    const auto above = std::find_if(row.points.begin(), row.points.end(),
                                    [&](const StepPoint &p) { return p.context_tokens >= context_tokens; });
    if (above == row.points.begin()) return row.points.front().us;
    if (above == row.points.end()) return row.points.back().us;
    const auto &low = *(above - 1);
    return between(context_tokens, low.context_tokens, low.us, above->context_tokens, above->us);
  };
  const auto above = std::find_if(rows_.begin(), rows_.end(), [&](const Row &r) { return r.tokens >= tokens; });
  if (above == rows_.begin()) return along(rows_.front());
  if (above == rows_.end()) return along(rows_.back());
  const auto &low = *(above - 1);
  return between(tokens, low.tokens, along(low), above->tokens, along(*above));
}

}  // namespace sluice::sim

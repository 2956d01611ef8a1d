#include "step_time.hpp"

#include "script.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>

namespace sluice::mock {
namespace {

/// Interpolates between the two entries of an ascending list that enclose x.
template <class T, class X, class Y>
double between(const std::vector<T> &list, double x, const X &x_of, const Y &y_of) {
  const auto above = std::find_if(list.begin(), list.end(), [&](const T &e) { return x_of(e) >= x; });
  if (above == list.begin()) return y_of(list.front());
  if (above == list.end()) return y_of(list.back());
  const T &low = *(above - 1), &high = *above;
  const double part = (x - x_of(low)) / (x_of(high) - x_of(low));
  return y_of(low) + part * (y_of(high) - y_of(low));
}

}  // namespace

StepTable StepTable::read(const std::string &path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("step_table '" + path + "' cannot be read; give a CSV file n_tokens,context,us");
  std::ostringstream text;
  text << file.rdbuf();
  return parse(text.str(), path);
}

StepTable StepTable::parse(const std::string &text, const std::string &name) {
  std::map<double, std::map<double, double>> points;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string::npos || line[begin] == '#' || std::isalpha(static_cast<unsigned char>(line[begin])) != 0)
      continue;
    double n_tokens = 0, context = 0, us = 0;
    char rest = 0;
    const int n = std::sscanf(line.c_str() + begin, "%lf ,%lf ,%lf %c", &n_tokens, &context, &us, &rest);
    const bool finite = std::isfinite(n_tokens) && std::isfinite(context) && std::isfinite(us);
    if (n != 3 || !finite || n_tokens < 0 || context < 0 || us < 0 || us > 1e12)
      throw std::runtime_error(name + ":" + std::to_string(number) + ": '" + line.substr(0, 80) +
                               "' is not n_tokens,context_tokens,us with numbers from 0 on");
    points[n_tokens][context] = us;
  }
  if (points.empty()) throw std::runtime_error(name + " has no line n_tokens,context_tokens,us");
  StepTable table;
  for (const auto &[n_tokens, by_context] : points) {
    table.rows_.push_back({n_tokens, {}});
    for (const auto &[context, us] : by_context) table.rows_.back().points.push_back({context, us});
  }
  return table;
}

double StepTable::along(const Row &row, double context_tokens) {
  return between(
      row.points, context_tokens, [](const Point &p) { return p.context_tokens; }, [](const Point &p) { return p.us; });
}

double StepTable::us(double n_tokens, double context_tokens) const {
  return between(
      rows_, n_tokens, [](const Row &r) { return r.n_tokens; }, [&](const Row &r) { return along(r, context_tokens); });
}

uint64_t StepTime::ns(uint64_t n_submit, uint32_t n_tokens, uint64_t context_tokens) const {
  if (instant()) return 0;
  double us = step_us + token_us * n_tokens;
  if (!table.empty()) us += table.us(n_tokens, static_cast<double>(context_tokens));
  if (jitter > 0) us *= 1 + jitter * static_cast<double>(mix(seed ^ mix(n_submit)) >> 11) * 0x1.0p-53;
  return static_cast<uint64_t>(us * 1000);
}

}  // namespace sluice::mock

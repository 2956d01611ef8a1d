#include "core/sim/chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace sluice::sim {
namespace {

constexpr double kWidth = 520, kHeight = 300, kLeft = 58, kRight = 14, kTop = 34, kBottom = 46;

/// Where a value lies between two ends of an axis, in pixels.
struct Axis {
  double low, high, from, to;
  bool log = false;
  double at(double v) const {
    const double a = log ? std::log10(low) : low, b = log ? std::log10(high) : high;
    const double x = log ? std::log10(std::max(v, low)) : v;
    return from + (to - from) * (b > a ? (x - a) / (b - a) : 0);
  }
};

std::string number(double v) {
  if (v == 0) return "0";
  const double size = std::abs(v);
  if (size >= 1e6 || size < 1e-3) return fmt::format("{:.0e}", v);
  return fmt::format("{:.{}f}", v, size >= 10 || v == std::floor(v) ? 0 : size >= 1 ? 1 : size >= 0.1 ? 2 : 3);
}

std::vector<double> ticks(const Axis &axis) {
  std::vector<double> at;
  if (axis.log) {
    for (double v = std::pow(10, std::ceil(std::log10(axis.low) - 1e-9)); v <= axis.high * 1.0001; v *= 10) at.push_back(v);
    return at;
  }
  const double rough = (axis.high - axis.low) / 5, power = std::pow(10, std::floor(std::log10(std::max(rough, 1e-300))));
  const double step = power * (rough / power > 5 ? 10 : rough / power > 2 ? 5 : rough / power > 1 ? 2 : 1);
  for (double v = std::ceil(axis.low / step) * step; v <= axis.high + step * 1e-6; v += step) at.push_back(v);
  return at;
}

std::string frame(const Chart &chart, const Axis &x, const Axis &y, bool x_ticks) {
  std::string out = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\"><text class=\"title\" x=\"{}\" y=\"14\">{}</text>", kWidth,
      kHeight, html_text(chart.title), kLeft, html_text(chart.title));
  for (const double v : ticks(y))
    out += fmt::format("<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>"
                       "<text class=\"y\" x=\"{}\" y=\"{:.1f}\">{}</text>",
                       kLeft, kWidth - kRight, y.at(v), y.at(v), kLeft - 6, y.at(v) + 4, number(v));
  if (x_ticks)
    for (const double v : ticks(x))
      out += fmt::format("<line class=\"grid\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{}\" y2=\"{}\"/>"
                         "<text class=\"x\" x=\"{:.1f}\" y=\"{}\">{}</text>",
                         x.at(v), x.at(v), kTop, kHeight - kBottom, x.at(v), kHeight - kBottom + 16, number(v));
  out += fmt::format("<text class=\"x\" x=\"{}\" y=\"{}\">{}</text>", (kLeft + kWidth - kRight) / 2, kHeight - 10,
                     html_text(chart.x_label));
  out += fmt::format("<text class=\"unit\" x=\"{}\" y=\"{}\">{}</text>", kLeft, kTop - 6, html_text(chart.y_label));
  double at = kWidth - kRight;
  for (size_t i = chart.curves.size(); i-- > 0;) {
    at -= 7.0 * static_cast<double>(chart.curves[i].name.size()) + 22;
    out += fmt::format("<rect class=\"c{} fill\" x=\"{}\" y=\"6\" width=\"10\" height=\"10\"/>"
                       "<text class=\"key\" x=\"{}\" y=\"15\">{}</text>",
                       i % 6, at, at + 14, html_text(chart.curves[i].name));
  }
  return out;
}

}  // namespace

std::string html_text(const std::string &text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string draw_curves(const Chart &chart) {
  double x_low = INFINITY, x_high = -INFINITY, y_high = 0;
  for (const auto &curve : chart.curves)
    for (const auto &[x, y] : curve.points) {
      if (!chart.log_x || x > 0) x_low = std::min(x_low, x);
      x_high = std::max(x_high, x), y_high = std::max(y_high, y);
    }
  if (!(x_high > x_low)) x_low = 1, x_high = 2;
  const Axis x{x_low, x_high, kLeft, kWidth - kRight, chart.log_x};
  const Axis y{0, y_high > 0 ? y_high : 1, kHeight - kBottom, kTop};
  std::string out = frame(chart, x, y, true);
  for (size_t i = 0; i < chart.curves.size(); ++i) {
    out += fmt::format("<polyline class=\"c{}\" points=\"", i % 6);
    for (const auto &[px, py] : chart.curves[i].points) out += fmt::format("{:.1f},{:.1f} ", x.at(px), y.at(py));
    out += "\"/>";
  }
  return out + "</svg>\n";
}

std::string draw_bars(const Chart &chart, const std::vector<std::string> &groups) {
  double y_high = 0;
  for (const auto &curve : chart.curves)
    for (const auto &point : curve.points) y_high = std::max(y_high, point.second);
  const Axis x{0, static_cast<double>(groups.size()), kLeft, kWidth - kRight};
  const Axis y{0, y_high > 0 ? y_high : 1, kHeight - kBottom, kTop};
  std::string out = frame(chart, x, y, false);
  const double slot = (x.to - x.from) / static_cast<double>(std::max<size_t>(1, groups.size()));
  const double width = slot * 0.8 / static_cast<double>(std::max<size_t>(1, chart.curves.size()));
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t i = 0; i < chart.curves.size(); ++i) {
      const double top = y.at(chart.curves[i].points[g].second);
      out += fmt::format("<rect class=\"c{} fill\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>", i % 6,
                         x.at(static_cast<double>(g)) + slot * 0.1 + width * static_cast<double>(i), top, width,
                         y.from - top);
    }
    out += fmt::format("<text class=\"x\" x=\"{:.1f}\" y=\"{}\">{}</text>", x.at(static_cast<double>(g) + 0.5),
                       kHeight - kBottom + 16, html_text(groups[g]));
  }
  return out + "</svg>\n";
}

}  // namespace sluice::sim

#pragma once
#include <string>
#include <utility>
#include <vector>

namespace sluice::sim {

using Points = std::vector<std::pair<double, double>>;

struct Curve {
  std::string name;
  Points points;
};

/// A chart as an inline SVG element. Curves take the colours of the page's classes c0, c1, ... in order.
struct Chart {
  std::string title, x_label, y_label;
  bool log_x = false;
  std::vector<Curve> curves;
};

std::string draw_curves(const Chart &chart);

/// Groups of bars, one bar per curve: `points` hold (any, height), all curves have as many, `groups` names them.
std::string draw_bars(const Chart &chart, const std::vector<std::string> &groups);

/// Text for HTML: &, <, > and quotes replaced.
std::string html_text(const std::string &text);

}  // namespace sluice::sim

#include <fmt/format.h>

#include "core/sim/chart.hpp"
#include "core/sim/comparison.hpp"

namespace sluice::sim {
namespace {

constexpr const char *kHead = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{}</title><style>
:root {{ --ink: #1b1f24; --paper: #fff; --grid: #d9dde2 }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6e8eb; --paper: #16191d; --grid: #343a42 }} }}
body {{ font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1120px;
  margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
td, th {{ padding: .25em .8em; text-align: right; border-bottom: 1px solid var(--grid) }}
td:first-child, th:first-child {{ text-align: left }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 1em }}
svg {{ width: 100%; height: auto }} svg text {{ font-size: 12px; fill: var(--ink) }}
.title {{ font-weight: 600 }} .x {{ text-anchor: middle }} .y {{ text-anchor: end }}
.grid {{ stroke: var(--grid) }} polyline {{ fill: none; stroke-width: 2 }}
.c0 {{ stroke: #2f6fdb }} .c1 {{ stroke: #d1603d }} .c2 {{ stroke: #2e9e6b }} .c3 {{ stroke: #9a5cc6 }}
.c4 {{ stroke: #b58900 }} .c5 {{ stroke: #6b7280 }}
.c0.fill {{ fill: #2f6fdb }} .c1.fill {{ fill: #d1603d }} .c2.fill {{ fill: #2e9e6b }} .c3.fill {{ fill: #9a5cc6 }}
.c4.fill {{ fill: #b58900 }} .c5.fill {{ fill: #6b7280 }}
</style></head><body>
)";

std::string cell(double value) {
  return fmt::format("<td>{:.{}f}</td>", value, value >= 100 ? 1 : value >= 1 ? 2 : 4);
}

std::string ratio_cell(double first, double other) {
  return other > 0 ? fmt::format("<td>{:.2f}</td>", first / other) : "<td>-</td>";
}

std::string table(const LoadResult &load) {
  std::string out =
      "<table><tr><th>policy</th><th>mean JCT s</th><th>p99 JCT s</th><th>JCT s/token</th><th>mean TTFT s</th>"
      "<th>p99 TTFT s</th><th>p99 pause s</th><th>longest pause s</th><th>finished / arrived</th><th>preempted</th>"
      "<th>swapped out GB</th></tr>";
  for (const auto &p : load.policies) {
    const auto &m = p.mean;
    out += "<tr><td>" + html_text(p.name) + "</td>" + cell(m.jct.mean) + cell(m.jct.p99) + cell(m.normalized.mean) +
           cell(m.ttft.mean) + cell(m.ttft.p99) + cell(m.longest_pause.p99) + cell(m.longest_pause.max) +
           cell(m.throughput_of_arrivals) + cell(m.preemptions) + cell(m.swaps_out_gb) + "</tr>";
  }
  const auto &first = load.policies.front();
  for (size_t i = 1; i < load.policies.size(); ++i) {
    const auto &a = first.mean, &b = load.policies[i].mean;
    out += fmt::format("<tr><td>{} / {}</td>", html_text(first.name), html_text(load.policies[i].name)) +
           ratio_cell(a.jct.mean, b.jct.mean) + ratio_cell(a.jct.p99, b.jct.p99) +
           ratio_cell(a.normalized.mean, b.normalized.mean) + ratio_cell(a.ttft.mean, b.ttft.mean) +
           ratio_cell(a.ttft.p99, b.ttft.p99) + ratio_cell(a.longest_pause.p99, b.longest_pause.p99) +
           ratio_cell(a.longest_pause.max, b.longest_pause.max) +
           ratio_cell(a.throughput_of_arrivals, b.throughput_of_arrivals) + "<td></td><td></td></tr>";
  }
  return out + "</table>\n";
}

std::string charts(const LoadResult &load) {
  Chart jct{"Job completion time", "seconds", "fraction of requests", true, {}};
  Chart ttft{"Time to first token", "seconds", "fraction of requests", true, {}};
  Chart decile{"By output length", "decile of output length", "JCT per token, ms", false, {}};
  Chart queue{"Waiting requests", "seconds", "requests", false, {}};
  Chart kv{"KV blocks in use", "seconds", "fraction", false, {}};
  for (const auto &p : load.policies) {
    jct.curves.push_back({p.name, p.jct_cdf});
    ttft.curves.push_back({p.name, p.ttft_cdf});
    Points heights, waiting, used;
    for (const auto &d : p.mean.deciles) heights.emplace_back(0, 1000 * d.jct_per_token_s);
    for (const auto &m : p.moments) waiting.emplace_back(m.at_s, m.waiting), used.emplace_back(m.at_s, m.kv_used);
    decile.curves.push_back({p.name, heights});
    queue.curves.push_back({p.name, waiting});
    kv.curves.push_back({p.name, used});
  }
  std::vector<std::string> groups;
  for (const auto &d : load.policies.front().mean.deciles) groups.push_back(fmt::format("{:.0f}", d.output_tokens));
  return "<div class=\"charts\">" + draw_curves(jct) + draw_curves(ttft) + draw_bars(decile, groups) +
         draw_curves(queue) + draw_curves(kv) + "</div>\n";
}

}  // namespace

std::string to_html(const Setup &setup, const Comparison &comparison) {
  std::string out = fmt::format(fmt::runtime(kHead), html_text(setup.title));
  out += fmt::format("<h1>{}</h1><p>{} requests, the middle {:.0f} % counted, means over {} seed{}. Step: {}.",
                     html_text(setup.title), setup.requests, 100 * setup.counted, setup.seeds.size(),
                     setup.seeds.size() == 1 ? "" : "s", html_text(comparison.step_model));
  if (comparison.saturation_per_s > 0)
    out += fmt::format(" {} saturates at {:.3f} requests/s{}.", html_text(setup.policies.front().name),
                       comparison.saturation_per_s, comparison.saturation_measured ? ", as measured" : "");
  out += " Curves over time and distributions are of the first seed.</p>\n";
  for (const auto &load : comparison.loads) {
    const std::string rate = load.rate_per_s > 0 ? fmt::format("{:.3f} requests/s", load.rate_per_s) : "trace";
    out += fmt::format("<h2>{}{}, output length CV {:.2f}</h2>\n",
                       load.rho > 0 ? fmt::format("rho {}, ", load.rho) : std::string(), rate, load.output_cv);
    out += table(load) + charts(load);
  }
  return out + "</body></html>\n";
}

}  // namespace sluice::sim

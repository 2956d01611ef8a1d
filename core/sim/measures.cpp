#include "core/sim/measures.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sluice::sim {
namespace {

struct Range {
  size_t begin, end;
};

Range counted_range(size_t n, double counted) {
  const auto cut = static_cast<size_t>(std::llround(static_cast<double>(n) * (1 - counted) / 2));
  return {cut, n - cut};
}

Spread spread(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double part) {
    return values[std::min(values.size() - 1, static_cast<size_t>(part * static_cast<double>(values.size())))];
  };
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {sum / static_cast<double>(values.size()), at(0.5), at(0.95), at(0.99), values.back()};
}

double seconds(uint64_t ns) { return static_cast<double>(ns) * 1e-9; }

template <class Of> std::vector<double> values_of(const Outcome &outcome, const std::vector<Arrival> &arrivals,
                                                  double counted, const Of &of) {
  const auto [begin, end] = counted_range(arrivals.size(), counted);
  std::vector<double> values;
  values.reserve(end - begin);
  for (size_t i = begin; i < end; ++i) values.push_back(of(outcome.served[i], arrivals[i]));
  return values;
}

double jct(const Served &s, const Arrival &a) { return seconds(s.finish_ns - a.at_ns); }
double ttft(const Served &s, const Arrival &a) { return seconds(s.first_ns - a.at_ns); }

std::array<Decile, 10> deciles_of(const Outcome &outcome, const std::vector<Arrival> &arrivals, double counted) {
  const auto [begin, end] = counted_range(arrivals.size(), counted);
  std::vector<size_t> order(end - begin);
  std::iota(order.begin(), order.end(), begin);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return arrivals[a].output < arrivals[b].output; });
  std::array<Decile, 10> deciles;
  for (size_t d = 0; d < 10; ++d) {
    const size_t from = order.size() * d / 10, to = order.size() * (d + 1) / 10;
    const auto n = static_cast<double>(std::max<size_t>(1, to - from));
    for (size_t k = from; k < to; ++k) {
      const double time = jct(outcome.served[order[k]], arrivals[order[k]]);
      deciles[d].output_tokens += arrivals[order[k]].output / n;
      deciles[d].jct_s += time / n;
      deciles[d].jct_per_token_s += time / arrivals[order[k]].output / n;
    }
  }
  return deciles;
}

double throughput(const Outcome &outcome, const std::vector<Arrival> &arrivals, double counted) {
  const auto [begin, end] = counted_range(arrivals.size(), counted);
  if (end - begin < 2) return 1;
  const uint64_t from = arrivals[begin].at_ns, to = arrivals[end - 1].at_ns;
  const auto finished = std::count_if(outcome.served.begin(), outcome.served.end(),
                                      [&](const Served &s) { return s.finish_ns >= from && s.finish_ns < to; });
  return static_cast<double>(finished) / static_cast<double>(end - 1 - begin);
}

}  // namespace

std::vector<double> counted_jct_s(const Outcome &outcome, const std::vector<Arrival> &arrivals, double counted) {
  return values_of(outcome, arrivals, counted, jct);
}

std::vector<double> counted_ttft_s(const Outcome &outcome, const std::vector<Arrival> &arrivals, double counted) {
  return values_of(outcome, arrivals, counted, ttft);
}

Measures measure(const Outcome &outcome, const std::vector<Arrival> &arrivals, double counted, const Setup &setup) {
  Measures m;
  m.jct = spread(values_of(outcome, arrivals, counted, jct));
  m.ttft = spread(values_of(outcome, arrivals, counted, ttft));
  m.normalized = spread(values_of(outcome, arrivals, counted,
                                  [](const Served &s, const Arrival &a) { return jct(s, a) / a.output; }));
  m.longest_pause = spread(values_of(outcome, arrivals, counted,
                                     [](const Served &s, const Arrival &) { return seconds(s.longest_gap_ns); }));
  m.deciles = deciles_of(outcome, arrivals, counted);
  m.throughput_of_arrivals = throughput(outcome, arrivals, counted);
  m.preemptions = static_cast<double>(outcome.stats.preemptions);
  const double gb_per_block =
      static_cast<double>(setup.device.bytes_per_token) * setup.device.block_size * 1e-9;
  m.swaps_out_gb = static_cast<double>(outcome.swapped_out_blocks) * gb_per_block;
  m.swaps_in_gb = static_cast<double>(outcome.swapped_in_blocks) * gb_per_block;
  // What must be computed: every prompt, and every output token but the last.
  double needed = 0;
  for (const auto &a : arrivals) needed += static_cast<double>(a.input) + a.output - 1;
  const auto computed = static_cast<double>(outcome.computed_tokens);
  m.recompute_tax = computed > 0 ? std::max(0.0, 1 - needed / computed) : 0;
  m.end_s = seconds(outcome.end_ns);
  m.device_busy = seconds(outcome.busy_ns) / seconds(std::max<uint64_t>(1, outcome.end_ns));
  for (const auto &moment : outcome.moments) m.kv_used += moment.kv_used / static_cast<double>(outcome.moments.size());
  return m;
}

Measures average(std::span<const Measures> runs) {
  Measures mean;
  const auto n = static_cast<double>(runs.size());
  const auto add = [&](Spread &to, const Spread &from) {
    to.mean += from.mean / n, to.p50 += from.p50 / n, to.p95 += from.p95 / n, to.p99 += from.p99 / n;
    to.max += from.max / n;
  };
  double longest = 0;
  for (const auto &m : runs) {
    add(mean.jct, m.jct), add(mean.ttft, m.ttft), add(mean.normalized, m.normalized);
    add(mean.longest_pause, m.longest_pause);
    longest = std::max(longest, m.longest_pause.max);
    for (size_t d = 0; d < mean.deciles.size(); ++d) {
      mean.deciles[d].output_tokens += m.deciles[d].output_tokens / n;
      mean.deciles[d].jct_s += m.deciles[d].jct_s / n;
      mean.deciles[d].jct_per_token_s += m.deciles[d].jct_per_token_s / n;
    }
    mean.throughput_of_arrivals += m.throughput_of_arrivals / n;
    mean.preemptions += m.preemptions / n;
    mean.swaps_out_gb += m.swaps_out_gb / n, mean.swaps_in_gb += m.swaps_in_gb / n;
    mean.recompute_tax += m.recompute_tax / n;
    mean.end_s += m.end_s / n;
    mean.device_busy += m.device_busy / n, mean.kv_used += m.kv_used / n;
  }
  mean.longest_pause.max = longest;
  return mean;
}

std::vector<std::pair<double, double>> distribution(std::vector<double> values, size_t n) {
  std::sort(values.begin(), values.end());
  std::vector<std::pair<double, double>> points;
  n = std::min(n, values.size());
  for (size_t i = 0; i < n; ++i) {
    const size_t at = n == 1 ? 0 : i * (values.size() - 1) / (n - 1);
    points.emplace_back(values[at], static_cast<double>(at + 1) / static_cast<double>(values.size()));
  }
  return points;
}

}  // namespace sluice::sim

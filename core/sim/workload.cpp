#include "core/sim/workload.hpp"

#include <fmt/format.h>
#include <sluice/abi/rng.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/config/document.hpp"

namespace sluice::sim {
namespace {

constexpr uint64_t kMaxTraceBytes = 1ull << 31;
constexpr uint32_t kMaxTries = 10'000;

/// Purposes of random numbers, apart from those of the ABI.
enum Stream : uint32_t { kGap = 0x51000000, kInputLength, kOutputLength };

/// Uniform in (0, 1), by request, purpose and how many were drawn before.
class Draws {
 public:
  Draws(uint64_t seed, uint32_t request, Stream stream) : seed_(seed), request_(request), stream_(stream) {}
  double unit() {
    uint32_t word[4];
    sluice_rng(seed_, request_, stream_, n_++, word);
    const uint64_t bits = (uint64_t{word[0]} << 32 | word[1]) >> 11;
    return (static_cast<double>(bits) + 0.5) * 0x1.0p-53;
  }
  /// Box and Muller 1958; the second of the pair is not used, so that a draw has a fixed place.
  double normal() {
    const double u = unit(), v = unit();
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * 3.14159265358979323846 * v);
  }

 private:
  const uint64_t seed_;
  const uint32_t request_;
  const Stream stream_;
  uint32_t n_ = 0;
};

uint32_t draw_length(const std::vector<LengthPart> &parts, Draws &draws) {
  double total = 0;
  for (const auto &part : parts) total += part.weight;
  const LengthPart *part = &parts.back();
  if (parts.size() > 1) {
    double at = draws.unit() * total;
    for (const auto &candidate : parts) {
      if (at < candidate.weight) {
        part = &candidate;
        break;
      }
      at -= candidate.weight;
    }
  }
  const double variance = std::log(1 + part->cv * part->cv);
  const double length =
      part->cv == 0 ? part->mean : std::exp(std::log(part->mean) - variance / 2 + std::sqrt(variance) * draws.normal());
  return static_cast<uint32_t>(std::clamp(std::llround(length), 1LL, 1LL << 30));
}

/// Marsaglia and Tsang 2000, with the boost for shapes below 1. Mean 1.
double draw_gamma_gap(double cv, Draws &draws) {
  const double shape = 1 / (cv * cv);
  const double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = draws.normal(), v = 1 + c * x;
    const double u = draws.unit();
    if (v <= 0) continue;
    const double v3 = v * v * v;
    if (std::log(u) >= x * x / 2 + d - d * v3 + d * std::log(v3)) continue;
    const double boost = shape < 1 ? std::pow(draws.unit(), 1 / shape) : 1;
    return d * v3 * boost / shape;
  }
}

/// Arrival times one after the other.
class Times {
 public:
  Times(const Load &load, double rate_per_s, uint64_t seed) : load_(load), rate_per_s_(rate_per_s), seed_(seed) {}

  uint64_t next(uint32_t request) {
    Draws draws(seed_, request, kGap);
    const double gap = load_.arrivals == Arrivals::kGamma ? draw_gamma_gap(load_.gamma_cv, draws) : -std::log(draws.unit());
    if (load_.arrivals != Arrivals::kOnOff) {
      now_s_ += gap / rate_per_s_;
    } else {  // time stands still for arrivals while they are off
      const double period = load_.on_s + load_.off_s;
      on_s_ += gap / (rate_per_s_ * period / load_.on_s);
      now_s_ = std::floor(on_s_ / load_.on_s) * period + std::fmod(on_s_, load_.on_s);
    }
    return static_cast<uint64_t>(now_s_ * 1e9);
  }

 private:
  const Load &load_;
  const double rate_per_s_;
  const uint64_t seed_;
  double now_s_ = 0, on_s_ = 0;
};

Result<std::vector<Arrival>> read_trace(const std::string &path, uint32_t at_most) {
  const auto file = config::read_small_file(path, kMaxTraceBytes);
  if (!file.wrong.empty()) return invalid_argument(fmt::format("load.trace: {} {}", path, file.wrong));
  std::vector<Arrival> arrivals;
  const char *at = file.text.data(), *const end = at + file.text.size();
  for (uint32_t line = 1; at < end && arrivals.size() < at_most; ++line) {
    const char *const stop = std::find(at, end, '\n');
    const char *p = at;
    at = stop == end ? end : stop + 1;
    while (p < stop && (*p == ' ' || *p == '\t' || *p == '\r')) ++p;
    const bool is_heading = p < stop && ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '#');
    if (p == stop || is_heading) continue;
    double seconds = -1;
    uint32_t lengths[2] = {0, 0};
    auto parsed = std::from_chars(p, stop, seconds);
    for (auto &length : lengths) {
      if (parsed.ec != std::errc() || parsed.ptr == stop || *parsed.ptr != ',') break;
      parsed = std::from_chars(parsed.ptr + 1, stop, length);
    }
    const bool ok = parsed.ec == std::errc() && seconds >= 0 && seconds < 1e9 && lengths[0] > 0 && lengths[1] > 0;
    if (!ok)
      return invalid_argument(fmt::format(
          "{}:{}: not arrival_s,input_tokens,output_tokens with a time from 0 on and lengths from 1 on", path, line));
    arrivals.push_back({static_cast<uint64_t>(seconds * 1e9), lengths[0], lengths[1]});
    if (arrivals.size() > 1 && arrivals.back().at_ns < arrivals[arrivals.size() - 2].at_ns)
      return invalid_argument(fmt::format("{}:{}: earlier than the line before; sort the trace by time", path, line));
  }
  if (arrivals.empty()) return invalid_argument(path + " has no line arrival_s,input_tokens,output_tokens");
  return arrivals;
}

}  // namespace

Result<std::vector<Arrival>> make_workload(const Setup &setup, uint64_t seed, double rate_per_s) {
  const uint64_t kv_tokens = uint64_t{kv_blocks(setup)} * setup.device.block_size;
  const uint64_t max_total = setup.lengths.max_total != 0 ? setup.lengths.max_total : kv_tokens;
  const uint64_t max_input = setup.lengths.max_input != 0 ? setup.lengths.max_input : max_total - 1;
  if (setup.load.arrivals == Arrivals::kTrace) {
    auto arrivals = read_trace(setup.load.trace, setup.requests);
    if (!arrivals) return arrivals;
    for (const auto &a : *arrivals)
      if (a.input > max_input || uint64_t{a.input} + a.output > max_total)
        return invalid_argument(fmt::format("{}: a request of {} + {} tokens; lengths allow {} in and {} in all",
                                            setup.load.trace, a.input, a.output, max_input, max_total));
    return arrivals;
  }
  Times times(setup.load, rate_per_s, seed);
  std::vector<Arrival> arrivals(setup.requests);
  for (uint32_t i = 0; i < setup.requests; ++i) {
    arrivals[i].at_ns = times.next(i);
    Draws input(seed, i, kInputLength), output(seed, i, kOutputLength);
    uint32_t tries = 0;
    do {
      if (++tries > kMaxTries)
        return invalid_argument(fmt::format("lengths: none of {} pairs has at most {} tokens in and {} in all; raise "
                                            "the limits or lower the means", kMaxTries, max_input, max_total));
      arrivals[i].input = draw_length(setup.lengths.input, input);
      arrivals[i].output = draw_length(setup.lengths.output, output);
    } while (arrivals[i].input > max_input || uint64_t{arrivals[i].input} + arrivals[i].output > max_total);
  }
  return arrivals;
}

double output_cv(const std::vector<Arrival> &arrivals) {
  double sum = 0, squares = 0;
  for (const auto &a : arrivals) sum += a.output, squares += static_cast<double>(a.output) * a.output;
  const auto n = static_cast<double>(arrivals.size());
  return sum == 0 ? 0 : std::sqrt(std::max(0.0, squares / n - sum / n * (sum / n))) / (sum / n);
}

}  // namespace sluice::sim

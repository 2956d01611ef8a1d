#include "core/config/units.hpp"

#include <charconv>
#include <span>

namespace sluice::config {
namespace {

struct Unit {
  std::string_view name;
  uint64_t factor;
};

// Largest first; where two fit, the earlier one is printed.
constexpr Unit kDurations[] = {{"h", 3'600'000}, {"m", 60'000}, {"s", 1000}, {"ms", 1}};
constexpr Unit kSizes[] = {{"TiB", 1ull << 40},
                           {"GiB", 1ull << 30},
                           {"MiB", 1ull << 20},
                           {"KiB", 1ull << 10},
                           {"TB", 1'000'000'000'000},
                           {"GB", 1'000'000'000},
                           {"MB", 1'000'000},
                           {"KB", 1000},
                           {"B", 1}};

std::optional<uint64_t> parse(std::string_view text, std::span<const Unit> units) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return {};
  const std::string_view name(end, static_cast<size_t>(text.data() + text.size() - end));
  for (const Unit &unit : units) {
    if (unit.name != name) continue;
    // Both kinds end up in signed 64-bit numbers somewhere.
    if (number > static_cast<uint64_t>(INT64_MAX) / unit.factor) return {};
    return number * unit.factor;
  }
  return {};
}

std::string format(uint64_t value, std::span<const Unit> units) {
  const Unit *unit = &units.back();
  for (const Unit &u : units)
    if (value != 0 && value % u.factor == 0) {
      unit = &u;
      break;
    }
  return std::to_string(value / unit->factor) + std::string(unit->name);
}

}  // namespace

std::optional<std::chrono::milliseconds> parse_duration(std::string_view text) {
  if (const auto ms = parse(text, kDurations)) return std::chrono::milliseconds(*ms);
  return {};
}

std::string format_duration(std::chrono::milliseconds duration) {
  return format(static_cast<uint64_t>(duration.count()), kDurations);
}

std::optional<uint64_t> parse_size(std::string_view text) { return parse(text, kSizes); }

std::string format_size(uint64_t bytes) { return format(bytes, kSizes); }

}  // namespace sluice::config

#include "core/app/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "core/base/log.hpp"

namespace sluice::app {

using std::chrono::steady_clock;

std::string format_bytes(uint64_t bytes) {
  const char *units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(units)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, units[unit]);
}

Progress::Progress() : terminal_(isatty(STDERR_FILENO) == 1) {}

void Progress::phase(std::string name, uint64_t total_bytes) {
  if (!name_.empty()) done();
  name_ = std::move(name);
  total_bytes_ = total_bytes;
  shown_tenths_ = 0;
  began_ = drawn_ = steady_clock::now();
}

void Progress::advance(uint64_t done_bytes) {
  if (total_bytes_ == 0) return;
  const double part = std::min(1.0, static_cast<double>(done_bytes) / static_cast<double>(total_bytes_));
  const auto now = steady_clock::now();
  if (terminal_) {
    if (now - drawn_ < std::chrono::milliseconds(50)) return;
    drawn_ = now;
    const auto filled = static_cast<size_t>(part * 30);
    fmt::print(stderr, "\r{} [{}{}] {:3.0f} % of {}", name_, std::string(filled, '#'), std::string(30 - filled, '.'),
               part * 100, format_bytes(total_bytes_));
    std::fflush(stderr);
    return;
  }
  // A short phase needs no news before its end.
  const int tenths = static_cast<int>(part * 10);
  if (tenths <= shown_tenths_ || now - began_ < std::chrono::seconds(1)) return;
  shown_tenths_ = tenths;
  log::info("load", "{}: {} % of {}", name_, tenths * 10, format_bytes(total_bytes_));
}

void Progress::done(std::string_view detail) {
  if (name_.empty()) return;
  const double seconds = std::chrono::duration<double>(steady_clock::now() - began_).count();
  clear_bar();
  std::string line = name_;
  if (total_bytes_ != 0) line += fmt::format(" ({})", format_bytes(total_bytes_));
  if (!detail.empty()) line += fmt::format(": {}", detail);
  log::info("load", "{}, {:.2f} s", line, seconds);
  name_.clear();
}

void Progress::clear_bar() const {
  if (terminal_) fmt::print(stderr, "\r\033[K");
}

}  // namespace sluice::app

#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::config {

/// "250ms", "5s", "2m", "1h": digits and a unit, no sign, no blank. Empty when it is not that or overflows.
std::optional<std::chrono::milliseconds> parse_duration(std::string_view text);
/// In the largest unit that keeps it whole.
std::string format_duration(std::chrono::milliseconds duration);

/// Bytes of "512B", "4MiB", "2GiB", "1GB": binary and decimal units up to T. Empty when it is not that or overflows.
std::optional<uint64_t> parse_size(std::string_view text);
/// In the largest unit that keeps it whole.
std::string format_size(uint64_t bytes);

}  // namespace sluice::config

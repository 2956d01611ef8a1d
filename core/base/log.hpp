#pragma once
#include <fmt/format.h>
#include <string_view>

namespace sluice::log {

enum class Level { kTrace, kDebug, kInfo, kWarn, kError };
enum class Format { kAuto, kText, kJson };  ///< kAuto: text on a terminal, else JSON

/// Sets the process's sink (stderr), once, before other threads. Until then kInfo text goes to stderr.
void configure(Level level, Format format);

bool enabled(Level level);

/// One line, control characters escaped. [any]
/// component  who speaks: "net", "engine", "plugin.mlfq"
void write(Level level, std::string_view component, std::string_view message);

/// One line whose body is a JSON object already serialised, written as it is in either format. [any]
void write_json(std::string_view json_object);

template <class... A> void debug(std::string_view component, fmt::format_string<A...> f, A &&...a) {
  if (enabled(Level::kDebug)) write(Level::kDebug, component, fmt::format(f, std::forward<A>(a)...));
}
template <class... A> void info(std::string_view component, fmt::format_string<A...> f, A &&...a) {
  if (enabled(Level::kInfo)) write(Level::kInfo, component, fmt::format(f, std::forward<A>(a)...));
}
template <class... A> void warn(std::string_view component, fmt::format_string<A...> f, A &&...a) {
  if (enabled(Level::kWarn)) write(Level::kWarn, component, fmt::format(f, std::forward<A>(a)...));
}
template <class... A> void error(std::string_view component, fmt::format_string<A...> f, A &&...a) {
  if (enabled(Level::kError)) write(Level::kError, component, fmt::format(f, std::forward<A>(a)...));
}

}  // namespace sluice::log

#include "core/base/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>

namespace sluice::log {
namespace {

std::atomic<bool> g_json{false};

// Bytes below space would let a request forge log lines; UTF-8 passes through.
void append_escaped(std::string &out, std::string_view text, bool json) {
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (json && (c == '"' || c == '\\')) {
      out += '\\';
      out += c;
    } else if (u < 0x20 || u == 0x7f) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", u);
    } else {
      out += c;
    }
  }
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kTrace: return spdlog::level::trace;
    case Level::kDebug: return spdlog::level::debug;
    case Level::kInfo: return spdlog::level::info;
    case Level::kWarn: return spdlog::level::warn;
    case Level::kError: return spdlog::level::err;
  }
  return spdlog::level::info;
}

spdlog::logger &logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = spdlog::stderr_logger_mt("sluice");
    made->set_pattern("%Y-%m-%d %H:%M:%S.%e %L %v");
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  return *instance;
}

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

void configure(Level level, Format format) {
  const bool json = format == Format::kJson || (format == Format::kAuto && isatty(STDERR_FILENO) == 0);
  g_json = json;
  logger().set_level(to_spdlog(level));
  logger().set_pattern(json ? "%v" : "%Y-%m-%d %H:%M:%S.%e %L %v");
}

bool enabled(Level level) { return logger().should_log(to_spdlog(level)); }

void write(Level level, std::string_view component, std::string_view message) {
  std::string line;
  if (g_json) {
    const auto name = spdlog::level::to_string_view(to_spdlog(level));
    line = fmt::format(R"({{"ts":{:.3f},"level":"{}","component":")", unix_seconds(),
                       std::string_view(name.data(), name.size()));
    append_escaped(line, component, true);
    line += R"(","msg":")";
    append_escaped(line, message, true);
    line += "\"}";
  } else {
    line.append(component).append(": ");
    append_escaped(line, message, false);
  }
  logger().log(to_spdlog(level), "{}", line);
}

void write_json(std::string_view json_object) { logger().log(spdlog::level::info, "{}", json_object); }

}  // namespace sluice::log

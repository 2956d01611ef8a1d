#include "core/net/refusal_log.hpp"

#include <fmt/format.h>

#include <chrono>

#include "core/base/log.hpp"
#include "core/net/error_reply.hpp"

namespace sluice::net {

std::string RefusalLog::line(const Refusal &refusal, int64_t now_s) {
  uint32_t dropped = 0;
  {
    const std::lock_guard lock(mutex_);
    if (now_s != second_) {
      second_ = now_s;
      written_ = 0;
    }
    if (written_ == kLinesPerS) {
      ++dropped_;
      return {};
    }
    ++written_;
    std::swap(dropped, dropped_);
  }
  const std::chrono::duration<double> since_1970 = std::chrono::system_clock::now().time_since_epoch();
  std::string out = fmt::format(R"({{"ts":{:.3f},"event":"refused","status":{})", since_1970.count(), refusal.status);
  const auto add = [&](const char *key, std::string_view value) {
    if (value.empty()) return;
    out.append(",\"").append(key).append("\":\"");
    append_json_escaped(out, value);
    out += '"';
  };
  add("request_id", refusal.request_id);
  add("method", refusal.method);
  add("route", refusal.route);
  add("peer", refusal.peer);
  if (dropped > 0) fmt::format_to(std::back_inserter(out), R"(,"not_logged":{})", dropped);
  return out + '}';
}

void RefusalLog::write(const Refusal &refusal) {
  if (!log::enabled(log::Level::kInfo)) return;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const std::string text = line(refusal, std::chrono::duration_cast<std::chrono::seconds>(now).count());
  if (!text.empty()) log::write_json(text);
}

}  // namespace sluice::net

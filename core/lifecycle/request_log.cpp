#include "core/lifecycle/request_log.hpp"

#include <fmt/format.h>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <string>

#include "core/base/log.hpp"

namespace sluice::lifecycle {
namespace {

const char *status_of(const RequestLine &line) {
  if (line.outcome.failure) {
    switch (line.outcome.failure->kind) {
      case FailureKind::kQueueFull: return "queue_full";
      case FailureKind::kShuttingDown: return "shutting_down";
      case FailureKind::kTimeout: return "timeout";
      case FailureKind::kContextLength: return "context_length_exceeded";
      case FailureKind::kEngine: return "engine_error";
      default: return "refused";
    }
  }
  return line.cancelled ? "cancelled" : "ok";
}

double milliseconds(uint64_t ns) { return static_cast<double>(ns) * 1e-6; }

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string_view cancel_cause_name(request::CancelCause cause) {
  switch (cause) {
    case request::CancelCause::kDisconnect: return "disconnect";
    case request::CancelCause::kClient: return "client";
    case request::CancelCause::kStopString: return "stop_string";
    case request::CancelCause::kSlowConsumer: return "slow";
    case request::CancelCause::kDeadline: return "deadline";
    case request::CancelCause::kDrain: return "drain";
  }
  return "unknown";
}

void log_request(const RequestLine &line) {
  if (!log::enabled(log::Level::kInfo)) return;
  const Usage &usage = line.outcome.usage;
  boost::json::object o;
  o["event"] = "request";
  o["request_id"] = line.spec.request_id;
  o["client"] = line.spec.client;
  o["route"] = line.spec.route;
  o["model"] = line.spec.model->name;
  o["status"] = status_of(line);
  if (!line.finish_reasons.empty()) o["finish_reason"] = line.finish_reasons;
  if (line.cancelled) o["cancel_cause"] = cancel_cause_name(*line.cancelled);
  o["prompt_tokens"] = usage.prompt_tokens;
  o["cached_tokens"] = usage.cached_tokens;
  o["completion_tokens"] = usage.completion_tokens;
  // Fractions are written here: Boost.JSON would give 9.88E1 for them.
  std::string text = fmt::format("{{\"ts\":{:.3f},", unix_seconds()) + boost::json::serialize(o).substr(1);
  text.pop_back();
  if (line.ttft_ns != 0) text += fmt::format(",\"ttft_ms\":{:.3f}", milliseconds(line.ttft_ns));
  log::write_json(text + fmt::format(",\"e2e_ms\":{:.3f}}}", milliseconds(line.e2e_ns)));
}

}  // namespace sluice::lifecycle

#include "core/lifecycle/request_log.hpp"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>

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

double milliseconds(uint64_t ns) { return std::round(static_cast<double>(ns) * 1e-3) * 1e-3; }

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
  if (line.ttft_ns != 0) o["ttft_ms"] = milliseconds(line.ttft_ns);
  o["e2e_ms"] = milliseconds(line.e2e_ns);
  log::write_json(boost::json::serialize(o));
}

}  // namespace sluice::lifecycle

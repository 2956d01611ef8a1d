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

std::string_view drafts_off_name(request::DraftsOff reason) {
  switch (reason) {
    case request::DraftsOff::kNotMeasured: return "not_measured";
    case request::DraftsOff::kAcceptance: return "acceptance";
    case request::DraftsOff::kCost: return "cost";
    case request::DraftsOff::kSequence: return "sequence";
    case request::DraftsOff::kDamaged: return "damaged";
    case request::DraftsOff::kNone: break;
  }
  return "none";
}

std::string json_text(std::string_view text) { return boost::json::serialize(boost::json::string_view(text)); }

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
  const std::chrono::duration<double> since_1970 = std::chrono::system_clock::now().time_since_epoch();
  std::string out = fmt::format(R"({{"ts":{:.3f},"event":"request","request_id":{},"client":{},"route":{},"model":{},)"
                                R"("status":"{}")",
                                since_1970.count(), json_text(line.spec.request_id), line.spec.client, json_text(line.spec.route),
                                json_text(line.spec.model->name), status_of(line));
  const auto add = [&]<class... A>(fmt::format_string<A...> format, A &&...args) {
    fmt::format_to(std::back_inserter(out), format, std::forward<A>(args)...);
  };
  if (!line.finish_reasons.empty()) add(R"(,"finish_reason":"{}")", line.finish_reasons);
  if (line.cancelled) add(R"(,"cancel_cause":"{}")", cancel_cause_name(*line.cancelled));
  add(R"(,"prompt_tokens":{},"cached_tokens":{},"completion_tokens":{})", usage.prompt_tokens, usage.cached_tokens,
      usage.completion_tokens);
  if (usage.draft_tokens > 0)
    add(R"(,"draft_tokens":{},"draft_accepted_tokens":{},"draft_rounds":{},"draft_verify_ms":{:.3f})", usage.draft_tokens,
        usage.draft_accepted_tokens, usage.draft_rounds, static_cast<double>(usage.draft_verify_ns) * 1e-6);
  if (usage.drafts_off != request::DraftsOff::kNone) add(R"(,"drafts_off":"{}")", drafts_off_name(usage.drafts_off));
  if (line.ttft_ns != 0) add(R"(,"ttft_ms":{:.3f})", static_cast<double>(line.ttft_ns) * 1e-6);
  add(R"(,"e2e_ms":{:.3f}}})", static_cast<double>(line.e2e_ns) * 1e-6);
  log::write_json(out);
}

}  // namespace sluice::lifecycle

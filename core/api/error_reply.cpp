#include "core/api/error_reply.hpp"

namespace sluice::api {

using lifecycle::Failure;
using lifecycle::FailureKind;

net::ErrorReply to_reply(const Failure &failure) {
  struct Mapped {
    int status;
    const char *code;
  };
  const auto mapped = [&]() -> Mapped {
    switch (failure.kind) {
      case FailureKind::kBadRequest: return {400, ""};
      case FailureKind::kUnsupportedParameter: return {400, "unsupported_parameter"};
      case FailureKind::kContextLength: return {400, "context_length_exceeded"};
      case FailureKind::kModelNotFound: return {404, "model_not_found"};
      case FailureKind::kModelLoading: return {503, "model_loading"};
      case FailureKind::kModelFailed: return {503, "model_failed"};
      case FailureKind::kQueueFull: return {429, "queue_full"};
      case FailureKind::kShuttingDown: return {503, "shutting_down"};
      case FailureKind::kTimeout: return {504, "timeout"};
      case FailureKind::kSlowConsumer: return {408, "slow_consumer"};
      case FailureKind::kEngine: return {500, "engine_error"};
    }
    return {500, ""};
  }();
  return {mapped.status, failure.message, mapped.code, failure.param, failure.retry_after_s};
}

void respond_error(net::Exchange &exchange, const Failure &failure) {
  const auto reply = to_reply(failure);
  net::Response response{reply.status, "application/json", net::error_body(reply), {}};
  if (reply.retry_after_s) response.headers.emplace_back("retry-after", std::to_string(*reply.retry_after_s));
  exchange.respond(std::move(response));
}

Failure bad_request(std::string message, std::string param) {
  return {FailureKind::kBadRequest, std::move(message), std::move(param), {}};
}

Failure unsupported(std::string message, std::string param) {
  return {FailureKind::kUnsupportedParameter, std::move(message), std::move(param), {}};
}

}  // namespace sluice::api

#pragma once
#include "core/lifecycle/failure.hpp"
#include "core/net/error_reply.hpp"
#include "core/net/exchange.hpp"

namespace sluice::api {

/// The only mapping from what went wrong to status and code.
net::ErrorReply to_reply(const lifecycle::Failure &failure);

void respond_error(net::Exchange &exchange, const lifecycle::Failure &failure);

lifecycle::Failure bad_request(std::string message, std::string param);
lifecycle::Failure unsupported(std::string message, std::string param);

}  // namespace sluice::api

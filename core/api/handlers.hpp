#pragma once
#include <memory>

#include "core/api/api.hpp"
#include "core/net/exchange.hpp"

/// The handlers behind the route table; each answers its exchange, now or later. [io]
namespace sluice::api {

using ExchangePtr = std::shared_ptr<net::Exchange>;

void get_health(Context &context, const ExchangePtr &exchange);
void get_ready(Context &context, const ExchangePtr &exchange);
void get_models(Context &context, const ExchangePtr &exchange);
void get_model(Context &context, const ExchangePtr &exchange);
void get_metrics(Context &context, const ExchangePtr &exchange);
void get_version(Context &context, const ExchangePtr &exchange);
void post_chat_completions(Context &context, const ExchangePtr &exchange);
void post_completions(Context &context, const ExchangePtr &exchange);
void post_tokenize(Context &context, const ExchangePtr &exchange);
void post_detokenize(Context &context, const ExchangePtr &exchange);

/// Speaks subprotocol sluice.v1: many requests over one socket.
std::shared_ptr<net::WsProtocol> make_ws_protocol(std::shared_ptr<Context> context);

}  // namespace sluice::api

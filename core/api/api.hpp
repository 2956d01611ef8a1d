#pragma once
#include <chrono>
#include <memory>
#include <string>

#include "core/lifecycle/service.hpp"
#include "core/metrics/registry.hpp"
#include "core/net/limits.hpp"
#include "core/net/router.hpp"

namespace sluice::api {

struct ApiOptions {
  std::string version = "0";       ///< of the server, for /version and hello
  std::string commit;              ///< may be empty
  net::Limits limits;              ///< those of the server: a WebSocket's hello announces them
  std::chrono::milliseconds drain_timeout{30'000};  ///< announced in goaway
  size_t inline_body_bytes = 64 * 1024;  ///< larger bodies are parsed by the workers
};

/// What every handler works on. Service and metrics outlive the server.
struct Context {
  Context(lifecycle::Service &s, metrics::Registry &m, ApiOptions o);

  lifecycle::Service &service;
  metrics::Registry &metrics;
  const ApiOptions options;
  const std::string fingerprint;  ///< `system_fingerprint`
  metrics::Gauge ws_streams;
};

/// Everything the server answers, one line per route.
net::Router make_router(std::shared_ptr<Context> context);

}  // namespace sluice::api

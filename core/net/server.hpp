#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "core/base/error.hpp"
#include "core/metrics/registry.hpp"
#include "core/net/access.hpp"
#include "core/net/limits.hpp"
#include "core/net/router.hpp"

namespace sluice::net {

struct ServerOptions {
  std::string host = "127.0.0.1";  ///< address or name; other than loopback needs an API key
  uint16_t port = 8000;            ///< 0 = any free one, see Server::port()
  uint32_t io_threads = 2;
  bool allow_unauthenticated = false;  ///< a public bind without a key, on the operator's word
  Limits limits;
  AccessOptions access;
};

/// Listens and serves the router's table. One connection lives on one I/O thread, so nothing of it is locked.
class Server {
 public:
  Server(ServerOptions options, Router router, metrics::Registry &metrics);
  ~Server();  ///< stop()
  Server(const Server &) = delete;
  Server &operator=(const Server &) = delete;

  /// [init] Binds and starts the threads. errors: InvalidArgument (param "server.host"), Unavailable (port taken)
  Result<> start();
  uint16_t port() const;  ///< after start()

  /// [any] Idle connections close, answers carry `connection: close`, WebSockets get on_drain(). Still accepts, so
  /// that a load balancer reads "not ready" rather than a refused connection. Idempotent.
  void drain();
  /// [any, not an I/O thread] Closes the listener and every connection (on_gone(kShutdown)), joins. Idempotent.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::net

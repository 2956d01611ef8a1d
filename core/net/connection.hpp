#pragma once
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>

#include "core/net/refusal_log.hpp"
#include "core/net/server.hpp"

namespace sluice::net {

using tcp = boost::asio::ip::tcp;

/// One accepted socket, whatever it speaks. [io]
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  virtual ~Connection() = default;
  virtual void on_drain() = 0;
  virtual void shut_down() = 0;
};

/// An I/O thread and the connections that live on it.
struct IoThread : std::enable_shared_from_this<IoThread> {
  boost::asio::io_context context{1};
  std::unordered_map<Connection *, std::weak_ptr<Connection>> connections;  ///< touched on this thread only
  std::thread thread;

  void add(Connection &connection) { connections.emplace(&connection, connection.weak_from_this()); }
  void remove(Connection &connection) { connections.erase(&connection); }

  /// A weak hold: what is posted after the server is gone is dropped, and nothing posted keeps the thread alive.
  Post post() {
    return [weak = weak_from_this()](std::function<void()> callback) {
      if (const auto self = weak.lock()) boost::asio::post(self->context, std::move(callback));
    };
  }
};

/// What all connections of a server share. Constant but for the atomics and what locks itself.
struct ServerState {
  ServerState(ServerOptions o, Router r, metrics::Registry &m)
      : options(std::move(o)), router(std::move(r)), access(options.access, options.host), metrics(m) {}

  const ServerOptions options;
  const Router router;
  const Access access;
  metrics::Registry &metrics;
  RefusalLog refusals;
  std::atomic<bool> draining{false};
  std::atomic<bool> stopping{false};  ///< set before the connections are told; one accepted meanwhile does not begin
  std::atomic<size_t> n_connections{0}, n_websockets{0};

  const Limits &limits() const { return options.limits; }
  void count_request(const std::string &route, int code) {
    metrics
        .counter("sluice_http_requests_total", "Answered requests; 499: the client went away first",
                 {{"route", route}, {"code", std::to_string(code)}})
        .add();
  }
};

/// The client's x-request-id when it is short and plain, else a fresh random one.
std::string choose_request_id(const RequestHead &head);

/// Takes over the socket after an upgrade that was checked. The handshake's answer is sent here.
void start_ws_session(tcp::socket socket, std::shared_ptr<IoThread> io, std::shared_ptr<ServerState> server,
                      const Route &route, const RequestHead &head, std::string request_id, uint32_t client);

}  // namespace sluice::net

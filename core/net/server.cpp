#include "core/net/server.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <csignal>
#include <mutex>

#include "core/base/log.hpp"
#include "core/net/connection.hpp"
#include "core/net/listener.hpp"

namespace sluice::net {

class Server::Impl {
 public:
  Impl(ServerOptions options, Router router, metrics::Registry &metrics)
      : state_(std::make_shared<ServerState>(std::move(options), std::move(router), metrics)) {
    const uint32_t n = std::max(state_->options.io_threads, 1u);
    for (uint32_t i = 0; i < n; ++i) threads_.push_back(std::make_shared<IoThread>());
    const auto state = state_;
    const auto connections = metrics.gauge("sluice_http_connections", "Open HTTP connections");
    const auto websockets = metrics.gauge("sluice_ws_connections", "Open WebSockets");
    metrics.on_scrape([state = std::weak_ptr(state_), connections, websockets] {
      const auto s = state.lock();
      connections.set(s ? static_cast<double>(s->n_connections.load()) : 0);
      websockets.set(s ? static_cast<double>(s->n_websockets.load()) : 0);
    });
  }

  Result<> start() {
    const auto &options = state_->options;
    boost::system::error_code ec;
    tcp::resolver resolver(threads_.front()->context);
    const auto found = resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, ec);
    if (ec || found.empty()) {
      return invalid_argument("server.host is '" + options.host + "', which is no address of this machine: " + ec.message(),
                              "server.host");
    }
    for (const auto &entry : found) {
      if (!entry.endpoint().address().is_loopback() && options.access.api_keys.empty() && !options.allow_unauthenticated) {
        return invalid_argument("server.host is '" + options.host +
                                    "', reachable from other machines, and no API key is set; set server.api_keys, or "
                                    "listen on 127.0.0.1",
                                "server.host");
      }
    }
    for (const auto &entry : found) {
      auto listener = std::make_shared<Listener>(threads_, state_);
      // "localhost" may name two addresses; the second must share the port the first was given.
      tcp::endpoint endpoint = entry.endpoint();
      if (!listeners_.empty()) endpoint.port(listeners_.front()->port());
      if (auto opened = listener->open(endpoint); !opened) {
        if (listeners_.empty()) return opened;
        log::warn("net", "{}", opened.error().message);
        continue;
      }
      listeners_.push_back(std::move(listener));
    }
    std::signal(SIGPIPE, SIG_IGN);  // a peer that goes away is an error code, not a signal
    for (const auto &listener : listeners_) listener->start();
    for (const auto &thread : threads_) {
      work_.emplace_back(boost::asio::make_work_guard(thread->context));
      thread->thread = std::thread([context = &thread->context] { run(*context); });
    }
    return {};
  }

  uint16_t port() const { return listeners_.empty() ? 0 : listeners_.front()->port(); }

  void drain() {
    if (state_->draining.exchange(true)) return;
    for (const auto &thread : threads_) {
      boost::asio::post(thread->context, [t = thread.get()] { for_each(*t, &Connection::on_drain); });
    }
  }

  void stop() {
    const std::lock_guard lock(stop_mutex_);
    if (stopped_) return;
    stopped_ = true;
    state_->draining = state_->stopping = true;
    for (const auto &listener : listeners_) {
      boost::asio::post(threads_.front()->context, [listener] { listener->close(); });
    }
    for (const auto &thread : threads_) {
      boost::asio::post(thread->context, [t = thread.get()] { for_each(*t, &Connection::shut_down); });
    }
    work_.clear();  // run() returns when the last handler is done
    for (const auto &thread : threads_) {
      if (thread->thread.joinable()) thread->thread.join();
    }
    listeners_.clear();
  }

 private:
  static void run(boost::asio::io_context &context) {
    for (;;) {
      try {
        context.run();
        return;
      } catch (const std::exception &e) {  // of one handler; the other connections go on
        log::error("net", "a handler threw: {}", e.what());
      }
    }
  }

  static void for_each(IoThread &thread, void (Connection::*call)()) {
    std::vector<std::shared_ptr<Connection>> open;
    for (const auto &[raw, weak] : thread.connections) {
      if (auto connection = weak.lock()) open.push_back(std::move(connection));
    }
    for (const auto &connection : open) (connection.get()->*call)();
  }

  const std::shared_ptr<ServerState> state_;
  std::vector<std::shared_ptr<IoThread>> threads_;
  std::vector<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work_;
  std::vector<std::shared_ptr<Listener>> listeners_;
  std::mutex stop_mutex_;
  bool stopped_ = false;
};

Server::Server(ServerOptions options, Router router, metrics::Registry &metrics)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(router), metrics)) {}
Server::~Server() { stop(); }
Result<> Server::start() { return impl_->start(); }
uint16_t Server::port() const { return impl_->port(); }
void Server::drain() { impl_->drain(); }
void Server::stop() { impl_->stop(); }

}  // namespace sluice::net

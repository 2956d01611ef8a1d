#include "core/net/listener.hpp"

#include <sys/socket.h>

#include <boost/asio/ip/v6_only.hpp>

#include "core/base/log.hpp"
#include "core/net/error_reply.hpp"
#include "core/net/http_session.hpp"

namespace sluice::net {
namespace {
constexpr std::chrono::milliseconds kAcceptBackoff{50};
}

Listener::Listener(std::vector<std::shared_ptr<IoThread>> threads, std::shared_ptr<ServerState> server)
    : threads_(std::move(threads)),
      server_(std::move(server)),
      acceptor_(threads_.front()->context),
      backoff_(threads_.front()->context) {}

Result<> Listener::open(const tcp::endpoint &endpoint) {
  boost::system::error_code ec;
  acceptor_.open(endpoint.protocol(), ec);
  if (!ec) acceptor_.set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec && endpoint.address().is_v6()) acceptor_.set_option(boost::asio::ip::v6_only(true), ec);
  if (!ec) acceptor_.bind(endpoint, ec);
  if (!ec) acceptor_.listen(boost::asio::socket_base::max_listen_connections, ec);
  if (ec) {
    return Error{Code::kUnavailable,
                 "cannot listen on " + endpoint.address().to_string() + " port " + std::to_string(endpoint.port()) + ": " +
                     ec.message() + "; choose another server.port",
                 "server.port"};
  }
  port_ = acceptor_.local_endpoint(ec).port();
  return {};
}

void Listener::start() { accept(); }

void Listener::close() {
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  backoff_.cancel();
}

void Listener::accept() {
  const auto thread = threads_[next_++ % threads_.size()];
  acceptor_.async_accept(thread->context,
                         [self = shared_from_this(), thread](boost::system::error_code ec, tcp::socket socket) {
                           self->on_accept(ec, std::move(socket), thread);
                         });
}

void Listener::on_accept(boost::system::error_code ec, tcp::socket socket, std::shared_ptr<IoThread> thread) {
  if (!acceptor_.is_open()) return;
  if (ec) {  // out of descriptors, most likely: accepting again at once would spin
    log::warn("net", "accept failed: {}", ec.message());
    backoff_.expires_after(kAcceptBackoff);
    backoff_.async_wait([self = shared_from_this()](boost::system::error_code cancelled) {
      if (!cancelled && self->acceptor_.is_open()) self->accept();
    });
    return;
  }
  if (server_->n_connections.load(std::memory_order_relaxed) >= server_->limits().max_connections) {
    turn_away(std::move(socket));
    return accept();
  }
  server_->n_connections.fetch_add(1, std::memory_order_relaxed);
  auto session = std::make_shared<HttpSession>(std::move(socket), thread, server_);
  boost::asio::post(thread->context, [session = std::move(session)] { session->start(); });
  accept();
}

void Listener::turn_away(tcp::socket socket) {
  const std::string body = error_body({503, "too many connections", "queue_full", "", 1});
  const std::string answer = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n"
                             "content-type: application/json\r\ncontent-length: " +
                             std::to_string(body.size()) + "\r\n\r\n" + body;
  if (::send(socket.native_handle(), answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return;
  boost::system::error_code ignored;
  socket.shutdown(tcp::socket::shutdown_send, ignored);
}

}  // namespace sluice::net

#pragma once
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "core/net/connection.hpp"

namespace sluice::net {

/// Accepts on one address and deals the sockets out to the I/O threads in turn. [io]
class Listener : public std::enable_shared_from_this<Listener> {
 public:
  Listener(std::vector<std::shared_ptr<IoThread>> threads, std::shared_ptr<ServerState> server);

  /// [init] errors: Unavailable (the address is taken or not ours)
  Result<> open(const tcp::endpoint &endpoint);
  uint16_t port() const { return port_; }
  void start();
  void close();

 private:
  void accept();
  void on_accept(boost::system::error_code ec, tcp::socket socket, std::shared_ptr<IoThread> thread);
  void turn_away(tcp::socket socket);

  const std::vector<std::shared_ptr<IoThread>> threads_;
  const std::shared_ptr<ServerState> server_;
  tcp::acceptor acceptor_;
  boost::asio::steady_timer backoff_;
  uint16_t port_ = 0;
  size_t next_ = 0;
};

}  // namespace sluice::net

#pragma once
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/metrics/registry.hpp"
#include "core/net/server.hpp"
#include "tests/core/net/raw_client.hpp"

namespace sluice::test {

inline net::ServerOptions one_thread() {
  net::ServerOptions options;
  options.io_threads = 1;
  return options;
}

/// A server on a free loopback port with a few routes that answer without a model.
class TestServer {
 public:
  /// Routes: GET /ok "ok"; POST /echo the body; GET /pending and /stream: the exchange is kept for the test;
  /// GET /public without key; GET /item/{}; WebSocket /ws that echoes text.
  explicit TestServer(net::ServerOptions options = {});
  ~TestServer() { server->stop(); }
  uint16_t port() const { return server->port(); }

  /// The exchange kept last, once there are `n` of them.
  std::shared_ptr<net::Exchange> kept(size_t n = 1);
  /// Runs on the exchange's thread and waits.
  void on_io(const net::Exchange &exchange, std::function<void()> work);
  template <class Condition> static bool eventually(Condition condition) {
    for (int i = 0; i < 5000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  metrics::Registry metrics;
  std::atomic<int> gone{0}, stalled{0}, handled{0};
  std::unique_ptr<net::Server> server;

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<net::Exchange>> kept_;
};

}  // namespace sluice::test

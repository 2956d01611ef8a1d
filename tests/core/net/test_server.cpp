#include "tests/core/net/test_server.hpp"

#include <future>

namespace sluice::test {
namespace {

class EchoProtocol final : public net::WsProtocol {
 public:
  explicit EchoProtocol(TestServer &owner) : owner_(owner) {}
  void on_open(std::shared_ptr<net::WsPeer> peer) override { peer_ = std::move(peer); }
  void on_text(std::string_view message) override {
    if (message == "close") return peer_->close(4000, "as asked");
    if (message == "flood") {
      for (int i = 0; i < 64; ++i) peer_->send(std::string(100'000, 'x'));
      return;
    }
    peer_->send("echo:" + std::string(message));
  }
  void on_writable() override {}
  void on_drain() override { peer_->close(1001, "drain"); }
  void on_gone(net::Gone why) override {
    peer_ = nullptr;
    ++(why == net::Gone::kStalled ? owner_.stalled : owner_.gone);
  }

 private:
  TestServer &owner_;
  std::shared_ptr<net::WsPeer> peer_;
};

}  // namespace

TestServer::TestServer(net::ServerOptions options) {
  using net::RouteAccess;
  using net::RouteBody;
  options.port = 0;
  net::Router router;
  const auto keep = [this](std::shared_ptr<net::Exchange> exchange) {
    exchange->on_gone([this](net::Gone why) { ++(why == net::Gone::kStalled ? stalled : gone); });
    const std::lock_guard lock(mutex_);
    kept_.push_back(std::move(exchange));
  };
  router.add({"GET", "/ok", RouteAccess::kKey, RouteBody::kNone, [this](auto exchange) {
                ++handled;
                exchange->respond({200, "text/plain", "ok", {}});
              }});
  router.add({"POST", "/echo", RouteAccess::kKey, RouteBody::kJson, [this](auto exchange) {
                ++handled;
                exchange->respond({200, "text/plain", exchange->body(), {}});
              }});
  router.add({"GET", "/public", RouteAccess::kPublic, RouteBody::kNone,
              [](auto exchange) { exchange->respond({200, "text/plain", "public", {}}); }});
  router.add({"GET", "/item/{}", RouteAccess::kKey, RouteBody::kNone,
              [](auto exchange) { exchange->respond({200, "text/plain", exchange->path_parameter(), {}}); }});
  router.add({"GET", "/pending", RouteAccess::kKey, RouteBody::kNone, keep});
  router.add({"GET", "/stream", RouteAccess::kKey, RouteBody::kNone, [keep](auto exchange) {
                exchange->start_stream();
                keep(exchange);
              }});
  net::Route ws{"GET", "/ws", RouteAccess::kKey, RouteBody::kNone, {}};
  ws.ws = [this] { return std::make_shared<EchoProtocol>(*this); };
  ws.ws_subprotocol = "sluice.v1";
  router.add(std::move(ws));
  server = std::make_unique<net::Server>(std::move(options), std::move(router), metrics);
  const auto started = server->start();
  EXPECT_TRUE(started) << (started ? "" : started.error().message);
}

std::shared_ptr<net::Exchange> TestServer::kept(size_t n) {
  std::shared_ptr<net::Exchange> out;
  eventually([&] {
    const std::lock_guard lock(mutex_);
    if (kept_.size() < n) return false;
    out = kept_[n - 1];
    return true;
  });
  return out;
}

void TestServer::on_io(const net::Exchange &exchange, std::function<void()> work) {
  std::promise<void> done;
  exchange.post()([&] {
    work();
    done.set_value();
  });
  done.get_future().wait();
}

}  // namespace sluice::test

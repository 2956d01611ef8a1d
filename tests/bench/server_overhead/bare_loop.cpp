#include "tests/bench/server_overhead/bare_loop.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstdio>
#include <memory>

namespace sluice::bench {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using tcp = asio::ip::tcp;
using beast::error_code;

class BareSession : public std::enable_shared_from_this<BareSession> {
 public:
  BareSession(tcp::socket socket, const std::string &event, uint32_t n_events)
      : socket_(std::move(socket)), event_(event), left_(n_events) {
    socket_.set_option(tcp::no_delay(true));
  }

  void start() {
    http::async_read(socket_, buffer_, request_, [self = shared_from_this()](error_code ec, size_t) {
      if (!ec) self->send_head();
    });
  }

 private:
  void send_head() {
    response_.result(http::status::ok);
    response_.set(http::field::content_type, "text/event-stream; charset=utf-8");
    response_.set(http::field::cache_control, "no-cache");
    response_.chunked(true);
    serializer_ = std::make_unique<http::response_serializer<http::empty_body>>(response_);
    http::async_write_header(socket_, *serializer_, [self = shared_from_this()](error_code ec, size_t) {
      if (!ec) self->send_event();
    });
  }

  void send_event() {
    if (left_-- == 0) return send_end();
    asio::async_write(socket_, http::make_chunk(asio::buffer(event_)),
                      [self = shared_from_this()](error_code ec, size_t) {
                        if (!ec) self->send_event();
                      });
  }

  void send_end() {
    static constexpr char kDone[] = "data: [DONE]\n\n";
    asio::async_write(socket_, http::make_chunk(asio::buffer(kDone, sizeof kDone - 1)),
                      [self = shared_from_this()](error_code ec, size_t) {
                        if (ec) return;
                        asio::async_write(self->socket_, http::make_chunk_last(), [self](error_code, size_t) {});
                      });
  }

  tcp::socket socket_;
  beast::flat_buffer buffer_;
  http::request<http::string_body> request_;
  http::response<http::empty_body> response_;
  std::unique_ptr<http::response_serializer<http::empty_body>> serializer_;
  const std::string &event_;
  uint32_t left_;
};

void accept_next(tcp::acceptor &acceptor, const std::string &event, uint32_t n_events) {
  acceptor.async_accept([&acceptor, &event, n_events](error_code ec, tcp::socket socket) {
    if (!ec) std::make_shared<BareSession>(std::move(socket), event, n_events)->start();
    accept_next(acceptor, event, n_events);
  });
}

}  // namespace

int run_bare_loop(const std::string &event, uint32_t n_events) {
  asio::io_context context{1};
  tcp::acceptor acceptor(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  std::printf("listening on http://127.0.0.1:%u\n", acceptor.local_endpoint().port());
  std::fflush(stdout);
  accept_next(acceptor, event, n_events);
  context.run();
  return 0;
}

}  // namespace sluice::bench

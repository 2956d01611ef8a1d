// The only source that includes Beast: WebSocket framing, masking, UTF-8 checks and the closing handshake are its work.
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/websocket/rfc6455.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <deque>

#include "core/net/connection.hpp"

namespace sluice::net {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
namespace websocket = boost::beast::websocket;
using boost::system::error_code;
using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kClosePatience{2000};

class WsSession final : public Connection, public WsPeer {
 public:
  WsSession(tcp::socket socket, std::shared_ptr<IoThread> io, std::shared_ptr<ServerState> server, const Route &route,
            std::string request_id, uint32_t client)
      : io_(std::move(io)),
        server_(std::move(server)),
        ws_(std::move(socket)),
        timer_(io_->context),
        buffer_(server_->limits().ws_message_bytes + 1024),
        route_(route),
        request_id_(std::move(request_id)),
        client_(client) {
    server_->n_websockets.fetch_add(1);
  }
  ~WsSession() override { server_->n_websockets.fetch_sub(1); }

  void start(const RequestHead &head) {
    io_->add(*this);
    websocket::stream_base::timeout timeouts{server_->limits().ws_handshake_timeout, websocket::stream_base::none(), false};
    ws_.set_option(timeouts);
    ws_.read_message_max(server_->limits().ws_message_bytes);
    ws_.auto_fragment(false);
    ws_.text(true);
    const bool echo = offers(head, route_.ws_subprotocol);
    ws_.set_option(websocket::stream_base::decorator([this, echo](websocket::response_type &response) {
      response.set("x-request-id", request_id_);
      if (echo) response.set(http::field::sec_websocket_protocol, route_.ws_subprotocol);
    }));
    ws_.control_callback([this](websocket::frame_type kind, boost::beast::string_view) {
      heard();
      if (kind == websocket::frame_type::close) on_peer_close();
    });
    http::request<http::string_body> request{http::verb::get, head.path, 11};
    for (const auto &[name, value] : head.fields) request.insert(name, value);
    ws_.async_accept(request, [self = self()](error_code ec) { self->on_accept(ec); });
  }

  // ---- WsPeer
  void send(std::string text) override {
    if (closing_ || closed_) return;
    queued_bytes_ += text.size();
    queue_.push_back(std::move(text));
    write_next();
  }
  bool writable() const override { return queued_bytes_ < server_->limits().stream_queue_bytes; }
  void close(uint16_t code, std::string reason) override {
    if (closing_ || closed_) return;
    closing_ = true;
    close_reason_ = websocket::close_reason(static_cast<websocket::close_code>(code), reason.substr(0, 120));
    closing_since_ = steady_clock::now();
    write_next();
  }
  const std::string &request_id() const override { return request_id_; }
  uint32_t client() const override { return client_; }
  Post post() const override { return io_->post(); }

  // ---- Connection
  void on_drain() override {
    if (protocol_ != nullptr) protocol_->on_drain();
  }
  void shut_down() override {
    if (protocol_ == nullptr) return gone(Gone::kShutdown);
    close(static_cast<uint16_t>(websocket::close_code::going_away), "the server stops");
    std::exchange(protocol_, nullptr)->on_gone(Gone::kShutdown);  // the closing handshake may still take a moment
  }

 private:
  std::shared_ptr<WsSession> self() { return std::static_pointer_cast<WsSession>(shared_from_this()); }

  static bool offers(const RequestHead &head, const std::string &protocol) {
    if (protocol.empty()) return false;
    for (const auto &[name, value] : head.fields) {
      if (name != "sec-websocket-protocol") continue;
      for (const auto entry : http::token_list(value)) {
        if (std::string_view(entry.data(), entry.size()) == protocol) return true;
      }
    }
    return false;
  }

  void on_accept(error_code ec) {
    if (ec || closed_) return gone(Gone::kDisconnected);
    last_heard_ = last_progress_ = steady_clock::now();
    protocol_ = route_.ws();
    protocol_->on_open(std::static_pointer_cast<WsPeer>(self()));
    arm_timer();
    read_next();
  }

  void read_next() {
    // A peer that sends but does not read must not grow the queue of answers.
    if (reading_ || closed_ || !writable()) return;
    reading_ = true;
    ws_.async_read(buffer_, [self = self()](error_code ec, size_t) { self->on_read(ec); });
  }

  void on_read(error_code ec) {
    reading_ = false;
    if (closed_) return;
    if (ec) return gone(Gone::kDisconnected);
    heard();
    if (closing_) {
      buffer_.consume(buffer_.size());
    } else if (ws_.got_binary()) {
      close(1003, "text messages only");
    } else if (protocol_ != nullptr) {
      const auto data = buffer_.data();
      const auto protocol = protocol_;
      protocol->on_text({static_cast<const char *>(data.data()), data.size()});
      buffer_.consume(buffer_.size());
    }
    read_next();
  }

  void write_next() {
    if (writing_ || closed_ || !ws_.is_open()) return;
    if (queue_.empty()) {
      if (closing_ && !close_sent_) {
        close_sent_ = true;
        writing_ = true;
        ws_.async_close(close_reason_, [self = self()](error_code) { self->gone(Gone::kDisconnected); });
      }
      return;
    }
    writing_ = true;
    ws_.async_write(asio::buffer(queue_.front()), [self = self()](error_code ec, size_t n) { self->on_write(ec, n); });
  }

  void on_write(error_code ec, size_t) {
    writing_ = false;
    if (closed_) return;
    if (ec) return gone(Gone::kDisconnected);
    last_progress_ = steady_clock::now();
    const bool was_full = !writable();
    queued_bytes_ -= queue_.front().size();
    queue_.pop_front();
    write_next();
    if (was_full && writable()) {
      if (const auto protocol = protocol_) protocol->on_writable();
      read_next();
    }
  }

  // Beast's own idle timer does not count a peer's pings, and would wait behind a blocked write.
  void arm_timer() {
    const auto &limits = server_->limits();
    const auto interval = std::min({limits.ws_ping_interval / 2, limits.stall_timeout / 4, kClosePatience / 2});
    timer_.expires_after(std::max<std::chrono::milliseconds>(interval, std::chrono::milliseconds(5)));
    timer_.async_wait([self = self()](error_code ec) {
      if (!ec && !self->closed_) self->on_timer();
    });
  }

  void on_timer() {
    const auto &limits = server_->limits();
    const auto now = steady_clock::now();
    if (queue_.empty()) last_progress_ = now;
    if (closing_ && now - closing_since_ > kClosePatience) return gone(Gone::kDisconnected);
    if (now - last_progress_ >= limits.stall_timeout) return gone(Gone::kStalled);
    // While reading is paused for a full queue, hearing nothing is our doing: the stall timeout decides then.
    if (reading_ && now - last_heard_ >= 2 * limits.ws_ping_interval) return gone(Gone::kDisconnected);
    if (now - last_heard_ >= limits.ws_ping_interval && !pinging_ && !closing_) {
      pinging_ = true;
      ws_.async_ping({}, [self = self()](error_code) { self->pinging_ = false; });
    }
    arm_timer();
  }

  // Beast reports the close only once the peer has also ended the TCP connection; its requests need not wait for that.
  void on_peer_close() {
    if (!closing_) closing_since_ = steady_clock::now();
    closing_ = close_sent_ = true;
    if (const auto protocol = std::exchange(protocol_, nullptr)) protocol->on_gone(Gone::kDisconnected);
  }

  void heard() { last_heard_ = steady_clock::now(); }

  void gone(Gone why) {
    if (closed_) return;
    closed_ = true;
    const auto keep = self();
    timer_.cancel();
    io_->remove(*this);
    if (const auto protocol = std::exchange(protocol_, nullptr)) protocol->on_gone(why);
    error_code ignored;
    ws_.next_layer().close(ignored);
  }

  const std::shared_ptr<IoThread> io_;
  const std::shared_ptr<ServerState> server_;
  websocket::stream<tcp::socket> ws_;
  asio::steady_timer timer_;
  boost::beast::flat_buffer buffer_;
  const Route &route_;
  const std::string request_id_;
  const uint32_t client_;
  std::shared_ptr<WsProtocol> protocol_;
  std::deque<std::string> queue_;
  size_t queued_bytes_ = 0;
  websocket::close_reason close_reason_;
  steady_clock::time_point last_heard_{}, last_progress_{}, closing_since_{};
  bool reading_ = false, writing_ = false, closing_ = false, close_sent_ = false, closed_ = false, pinging_ = false;
};

}  // namespace

void start_ws_session(tcp::socket socket, std::shared_ptr<IoThread> io, std::shared_ptr<ServerState> server,
                      const Route &route, const RequestHead &head, std::string request_id, uint32_t client) {
  std::make_shared<WsSession>(std::move(socket), std::move(io), std::move(server), route, std::move(request_id), client)
      ->start(head);
}

}  // namespace sluice::net

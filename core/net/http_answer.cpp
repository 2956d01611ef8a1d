// How an answer leaves a connection: heads, bodies, and the events of a stream.
#include "core/net/http_exchange.hpp"

#include <algorithm>

namespace sluice::net {
namespace {


void append_common_head(std::string &out, int status, bool keep_alive, const std::string &request_id,
                        const std::vector<std::pair<std::string, std::string>> &headers) {
  out += "HTTP/1.1 " + std::to_string(status) + ' ' + reason_phrase(status) + "\r\n";
  if (!keep_alive) out += "connection: close\r\n";
  out += "x-request-id: " + request_id + "\r\nx-content-type-options: nosniff\r\n";
  for (const auto &[name, value] : headers) {
    out.append(name).append(": ");
    // A value may quote what a client sent; a line break in it would start a header of the client's own.
    for (const char c : value) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    out += "\r\n";
  }
}

}  // namespace

void HttpSession::refuse(ErrorReply reply) {
  if (exchange_ == nullptr) {
    exchange_ = std::make_shared<HttpExchange>(self(), RequestHead{}, choose_request_id({}));
    exchange_->keep_alive_ = false;
    route_label_ = "none";
  }
  Response response{reply.status, "application/json", error_body(reply), {}};
  if (reply.retry_after_s) response.headers.emplace_back("retry-after", std::to_string(*reply.retry_after_s));
  send_answer(response);
}

void HttpSession::send_answer(const Response &response) {
  HttpExchange &exchange = *exchange_;
  // A body that is still on the wire would be read as the next request.
  const bool body_left = state_ == State::kBody && exchange.head_.framing != Framing::kNoBody;
  if (body_left || state_ == State::kHead || server_->draining) exchange.keep_alive_ = false;
  state_ = State::kAnswering;
  server_->count_request(route_label_, response.status);
  if (response.status >= 400 && !route_label_.starts_with("/health")) {  // "not ready" is news, not a refusal
    boost::system::error_code ec;
    const auto peer = socket_.remote_endpoint(ec);
    server_->refusals.write({exchange.request_id_, exchange.head_.method, route_label_, response.status,
                             ec ? std::string() : peer.address().to_string()});
  }
  std::string bytes;
  exchange.headers_.insert(exchange.headers_.end(), response.headers.begin(), response.headers.end());
  append_common_head(bytes, response.status, exchange.keep_alive_, exchange.request_id_, exchange.headers_);
  if (!response.content_type.empty()) bytes += "content-type: " + response.content_type + "\r\n";
  if (response.status != 204) bytes += "content-length: " + std::to_string(response.body.size()) + "\r\n";
  bytes += "\r\n";
  if (exchange.head_.method != "HEAD") bytes += response.body;
  outbox_.append(bytes);
  last_progress_ = std::chrono::steady_clock::now();
  arm_tick();
  flush();
}

void HttpSession::send_stream_head() {
  HttpExchange &exchange = *exchange_;
  state_ = State::kStreaming;
  if (server_->draining || !exchange.chunked_) exchange.keep_alive_ = false;
  server_->count_request(route_label_, 200);
  std::string bytes;
  append_common_head(bytes, 200, exchange.keep_alive_, exchange.request_id_, exchange.headers_);
  bytes += "content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n";
  bytes += exchange.chunked_ ? "transfer-encoding: chunked\r\n\r\n" : "\r\n";
  outbox_.append(bytes);
  last_progress_ = last_sent_ = std::chrono::steady_clock::now();
  flush();
}

// Everything appended since the last send goes out in one call; while the kernel is full it only piles up.
void HttpSession::flush() {
  if (writing_ || state_ == State::kClosed) return;
  const int fd = socket_.native_handle();
  bool ok = outbox_.empty() || outbox_.send(fd);
  if (ok && outbox_.empty() && exchange_ != nullptr && !exchange_->out_.empty()) {
    if (exchange_->chunked_) {
      ok = outbox_.send_chunk(fd, exchange_->out_);
    } else {
      outbox_.append(exchange_->out_);
      ok = outbox_.send(fd);
    }
    exchange_->out_.clear();
  }
  if (ok && outbox_.empty() && exchange_ != nullptr && exchange_->finishing_) {
    exchange_->finishing_ = false;
    state_ = State::kAnswering;
    if (exchange_->chunked_) {
      outbox_.append("0\r\n\r\n");
      ok = outbox_.send(fd);
    }
  }
  if (!ok) return close(Gone::kDisconnected);
  if (!outbox_.empty()) return wait_writable();
  if (state_ == State::kAnswering) end_of_answer();
}

void HttpSession::wait_writable() {
  if (!writing_ && outbox_.size() > 0) {
    writing_ = true;
    last_progress_ = std::max(last_progress_, last_sent_);
    socket_.async_wait(tcp::socket::wait_write, [self = self()](boost::system::error_code ec) {
      self->writing_ = false;
      if (ec || self->state_ == State::kClosed) return;
      self->last_progress_ = std::chrono::steady_clock::now();
      self->flush();
      if (self->state_ != State::kStreaming || !self->blocked_ || self->exchange_ == nullptr) return;
      if (!self->exchange_->writable() || !self->exchange_->writable_) return;
      self->blocked_ = false;
      const auto callback = self->exchange_->writable_;
      callback();
    });
  }
}

void HttpSession::end_of_answer() {
  const auto exchange = std::exchange(exchange_, nullptr);
  exchange->session_.reset();
  exchange->gone_ = nullptr;
  exchange->writable_ = nullptr;
  blocked_ = false;
  if (exchange->keep_alive_ && !server_->draining) {
    state_ = State::kHead;
    head_started_ = false;
    arm(server_->limits().idle_timeout);
    advance();
    return wait_readable();
  }
  state_ = State::kLinger;
  in_.clear();
  boost::system::error_code ec;
  socket_.shutdown(tcp::socket::shutdown_send, ec);
  if (ec) return close(Gone::kDisconnected);
  arm(server_->limits().linger);
  wait_readable();
}

// ---- the exchange -----------------------------------------------------------------------------------------------

void HttpExchange::respond(Response response) {
  if (session_ == nullptr || session_->state_ != HttpSession::State::kHandling) return;
  gone_ = nullptr;
  const auto keep = session_;  // the end of the answer lets go of it
  keep->send_answer(response);
}

void HttpExchange::start_stream() {
  if (session_ == nullptr || session_->state_ != HttpSession::State::kHandling) return;
  const auto keep = session_;
  keep->send_stream_head();
}

void HttpExchange::flush() {
  if (session_ == nullptr) {
    out_.clear();
    return;
  }
  if (session_->state_ != HttpSession::State::kStreaming || out_.empty()) return;
  session_->last_sent_ = std::chrono::steady_clock::now();
  const auto keep = session_;
  keep->flush();
}

bool HttpExchange::writable() const {
  if (session_ == nullptr) return true;
  const bool open = session_->outbox_.size() + out_.size() < session_->server_->limits().stream_queue_bytes;
  if (!open) session_->blocked_ = true;
  return open;
}

void HttpExchange::finish(End end) {
  if (session_ == nullptr || session_->state_ != HttpSession::State::kStreaming) return;
  const auto keep = session_;
  gone_ = nullptr;
  finishing_ = true;
  if (end == End::kClose) keep_alive_ = false;
  keep->flush();
}

}  // namespace sluice::net

#include "core/net/http_session.hpp"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <random>

#include "core/net/http_exchange.hpp"

namespace sluice::net {
namespace {

constexpr size_t kPipelinedBytes = 64 * 1024;  ///< kept unread while a request is served
constexpr size_t kLingerBytes = 1024 * 1024;


// A browser cannot set Authorization on a WebSocket; a subprotocol entry carries the key instead.
std::string_view subprotocol_key(const RequestHead &head) {
  constexpr std::string_view kPrefix = "openai-insecure-api-key.";
  for (const auto &[name, value] : head.fields) {
    if (name != "sec-websocket-protocol") continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      const size_t comma = rest.find(',');
      auto entry = rest.substr(0, comma);
      while (entry.starts_with(' ')) entry.remove_prefix(1);
      while (entry.ends_with(' ')) entry.remove_suffix(1);
      if (entry.starts_with(kPrefix)) return entry.substr(kPrefix.size());
      rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
    }
  }
  return {};
}

bool is_json(const RequestHead &head) {
  const std::string *type = head.field("content-type");
  if (type == nullptr) return false;
  std::string media = type->substr(0, type->find(';'));
  while (media.ends_with(' ')) media.pop_back();
  std::transform(media.begin(), media.end(), media.begin(), [](unsigned char c) { return std::tolower(c); });
  return media == "application/json";
}

}  // namespace

std::string choose_request_id(const RequestHead &head) {
  if (const std::string *given = head.field("x-request-id"); given != nullptr) {
    const bool plain = !given->empty() && given->size() <= 128 &&
                       std::all_of(given->begin(), given->end(), [](unsigned char c) {
                         return std::isalnum(c) || c == '-' || c == '_' || c == '.';
                       });
    if (plain) return *given;
  }
  thread_local std::mt19937_64 random{(uint64_t{std::random_device{}()} << 32) ^ std::random_device{}()};
  std::string id = "req_";
  for (int word = 0; word < 2; ++word) {
    uint64_t bits = random();
    for (int i = 0; i < 12; ++i, bits >>= 5) id += "0123456789abcdefghijklmnopqrstuv"[bits & 31];
  }
  return id;
}

HttpSession::HttpSession(tcp::socket socket, std::shared_ptr<IoThread> io, std::shared_ptr<ServerState> server)
    : socket_(std::move(socket)),
      io_(std::move(io)),
      server_(std::move(server)),
      timer_(io_->context),
      head_reader_(server_->limits()) {}

HttpSession::~HttpSession() { server_->n_connections.fetch_sub(1, std::memory_order_relaxed); }

void HttpSession::start() {
  if (server_->stopping) return;
  io_->add(*this);
  boost::system::error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  auto local = socket_.local_endpoint(ignored).address();
  if (local.is_v6() && local.to_v6().is_v4_mapped()) {
    local = boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, local.to_v6());
  }
  local_address_ = local.to_string();
  last_progress_ = last_sent_ = std::chrono::steady_clock::now();
  arm(server_->limits().head_timeout);
  wait_readable();
}

void HttpSession::on_drain() {
  // A new connection's request is on its way; it shall read "shutting down" and not a closed connection.
  if (state_ == State::kHead && in_.empty() && !head_started_) close(Gone::kShutdown);
}

void HttpSession::shut_down() { close(Gone::kShutdown); }

// ---- reading ----------------------------------------------------------------------------------------------------

void HttpSession::wait_readable() {
  if (reading_ || state_ == State::kClosed) return;
  const bool busy = state_ != State::kHead && state_ != State::kBody && state_ != State::kLinger;
  if (busy && in_.size() >= kPipelinedBytes) return;  // tick() watches the peer meanwhile
  reading_ = true;
  socket_.async_wait(tcp::socket::wait_read, [self = self()](boost::system::error_code ec) {
    self->reading_ = false;
    if (!ec && self->state_ != State::kClosed) self->on_readable();
  });
}

void HttpSession::on_readable() {
  thread_local std::array<char, 64 * 1024> buffer;
  ssize_t n;
  do {
    n = ::recv(socket_.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)) return close(Gone::kDisconnected);
  if (n > 0 && state_ == State::kLinger) {
    lingered_bytes_ += static_cast<size_t>(n);
    if (lingered_bytes_ > kLingerBytes) return close(Gone::kDisconnected);
  } else if (n > 0) {
    in_.append(buffer.data(), static_cast<size_t>(n));
    advance();
  }
  wait_readable();
}

void HttpSession::advance() {
  if (advancing_) return;  // an answer given inside its handler comes back here; the outer loop goes on
  advancing_ = true;
  const auto keep = self();
  while (step()) {
  }
  advancing_ = false;
}

bool HttpSession::step() {
  if (state_ == State::kHead) return step_head();
  if (state_ == State::kBody) return step_body();
  return false;
}

bool HttpSession::step_head() {
  if (in_.empty()) return false;
  if (!head_started_) {
    head_started_ = true;
    arm(server_->limits().head_timeout);
  }
  const auto scan = head_reader_.scan(in_);
  if (scan == HeadReader::Scan::kIncomplete) return false;
  RequestHead head;
  if (scan == HeadReader::Scan::kBad || !head_reader_.parse(in_, head)) {
    refuse({head_reader_.problem().status, head_reader_.problem().message, "", "", {}});
    return false;
  }
  in_.erase(0, head_reader_.size());
  head_reader_.reset();
  begin_request(std::move(head));
  return true;
}

bool HttpSession::step_body() {
  size_t consumed = 0;
  const auto status = decoder_->feed(in_, consumed, exchange_->body_);
  in_.erase(0, consumed);
  if (status == BodyDecoder::Status::kMore) return false;
  if (status == BodyDecoder::Status::kBad) {
    const auto &problem = decoder_->problem();
    refuse({problem.status, problem.message, problem.status == 413 ? "request_too_large" : "", "", {}});
    return false;
  }
  dispatch();
  return true;
}

void HttpSession::begin_request(RequestHead head) {
  decoder_.emplace(head, server_->limits());
  const bool has_body = head.framing != Framing::kNoBody;
  std::string id = choose_request_id(head);
  exchange_ = std::make_shared<HttpExchange>(self(), std::move(head), std::move(id));
  exchange_->post_ = io_->post();
  exchange_->keep_alive_ = exchange_->head_.keep_alive;
  exchange_->chunked_ = !exchange_->head_.http_1_0;
  state_ = State::kBody;
  route_label_ = "none";
  Router::Match match;
  if (refused(exchange_->head_, match)) return;
  route_ = match.route;
  route_label_ = route_->pattern;
  exchange_->parameter_ = std::move(match.parameter);
  if (route_->ws) return upgrade(*route_, exchange_->head_);
  if (!has_body) return;
  const auto &limits = server_->limits();
  const uint64_t announced = exchange_->head_.content_length;
  if (announced > limits.body_bytes) {
    return refuse({413, "the request body of " + std::to_string(announced) + " bytes is larger than the limit of " +
                            std::to_string(limits.body_bytes) + " bytes",
                   "request_too_large", "", {}});
  }
  if (exchange_->head_.expect_continue && in_.empty()) {
    outbox_.append("HTTP/1.1 100 Continue\r\n\r\n");
    flush();
  }
  if (state_ == State::kBody) {
    arm(limits.body_timeout + std::chrono::seconds(std::max<uint64_t>(announced, 0) / (16 * 1024)));
  }
}

// Everything that can be said about a request before its body is read. True: it was answered.
bool HttpSession::refused(const RequestHead &head, Router::Match &match) {
  const Access &access = server_->access;
  const std::string *host = head.field("host");
  if (host != nullptr && !access.host_allowed(*host, local_address_)) {
    refuse({421, "this server is not known as '" + *host + "'; add the name to server.allowed_hosts", "host_not_allowed",
            "", {}});
    return true;
  }
  const auto origin = access.check_origin(head.field("origin"), host != nullptr ? *host : "");
  if (origin == Access::Origin::kRefused) {
    refuse({403, "requests from origin '" + *head.field("origin") + "' are not allowed; see server.allowed_origins",
            "origin_not_allowed", "", {}});
    return true;
  }
  if (origin == Access::Origin::kListed) {
    exchange_->add_header("access-control-allow-origin", *head.field("origin"));
    exchange_->add_header("access-control-expose-headers", "x-request-id, x-sluice-ignored-fields, retry-after");
    exchange_->add_header("vary", "origin");
  }
  match = server_->router.match(head.method, head.path);
  const bool preflight = head.method == "OPTIONS" && head.field("access-control-request-method") != nullptr &&
                         origin == Access::Origin::kListed;
  if (access.keys_required() && !match.is_public && !preflight) {
    const std::string *authorization = head.field("authorization");
    std::string_view key = authorization != nullptr ? bearer_key(*authorization) : std::string_view();
    if (key.empty() && head.wants_websocket) key = subprotocol_key(head);
    const auto client = key.empty() ? std::nullopt : access.client_of(key);
    if (!client) {
      exchange_->add_header("www-authenticate", "Bearer");
      refuse({401,
              key.empty() ? "an API key is required: send the header 'Authorization: Bearer KEY'" : "the API key is not valid",
              "invalid_api_key", "", {}});
      return true;
    }
    exchange_->client_ = *client;
  }
  if (head.path == "*") match.allow = "GET, HEAD, POST, OPTIONS";
  if (match.allow.empty()) {
    refuse({404, "there is nothing at " + head.method + " " + head.path, "", "", {}});
    return true;
  }
  if (head.method == "OPTIONS") {
    Response response{204, "", "", {{"allow", match.allow}}};
    if (preflight) {
      response.headers.emplace_back("access-control-allow-methods", match.allow);
      response.headers.emplace_back("access-control-allow-headers", "authorization, content-type, x-request-id");
      response.headers.emplace_back("access-control-max-age", "600");
    }
    send_answer(response);
    return true;
  }
  if (match.route == nullptr) {
    exchange_->add_header("allow", match.allow);
    refuse({405, head.method + " is not allowed on " + head.path + "; allowed: " + match.allow, "", "", {}});
    return true;
  }
  if (match.route->body == RouteBody::kJson && !is_json(head)) {
    refuse({415, "the Content-Type must be application/json", "", "", {}});
    return true;
  }
  return false;
}

void HttpSession::upgrade(const Route &route, RequestHead head) {
  const std::string *version = head.field("sec-websocket-version");
  if (!head.wants_websocket || version == nullptr || *version != "13") {
    exchange_->add_header("upgrade", "websocket");
    exchange_->add_header("sec-websocket-version", "13");
    return refuse({426, head.path + " speaks WebSocket (version 13) only", "", "", {}});
  }
  if (head.framing != Framing::kNoBody || !in_.empty() || head.field("sec-websocket-key") == nullptr) {
    exchange_->keep_alive_ = false;
    return refuse({400, "a malformed WebSocket handshake", "", "", {}});
  }
  if (server_->n_websockets.load() >= server_->limits().ws_connections) {
    return refuse({429, "too many WebSocket connections", "queue_full", "", 5});
  }
  server_->count_request(route.pattern, 101);
  const auto exchange = std::exchange(exchange_, nullptr);
  exchange->session_.reset();
  state_ = State::kClosed;
  timer_.cancel();
  boost::system::error_code ignored;
  socket_.cancel(ignored);
  io_->remove(*this);
  start_ws_session(std::move(socket_), io_, server_, route, exchange->head_, exchange->request_id_, exchange->client_);
}

void HttpSession::dispatch() {
  state_ = State::kHandling;
  decoder_.reset();
  arm_tick();
  const auto exchange = exchange_;
  route_->handler(exchange);
}

// ---- time -------------------------------------------------------------------------------------------------------

void HttpSession::arm(std::chrono::milliseconds from_now) {
  deadline_ = std::chrono::steady_clock::now() + from_now;
  if (timer_pending_ && timer_at_ <= deadline_) return;  // fires early and looks again
  timer_at_ = deadline_;
  timer_pending_ = true;
  timer_.expires_at(timer_at_);
  timer_.async_wait([self = self()](boost::system::error_code ec) {
    if (!ec && self->state_ != State::kClosed) self->on_timer();
  });
}

void HttpSession::on_timer() {
  const auto t = std::chrono::steady_clock::now();
  if (t < timer_at_) return;  // a newer wait is pending
  timer_pending_ = false;
  if (t < deadline_) return arm(std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - t) + std::chrono::milliseconds(1));
  switch (state_) {
    case State::kHead:
      if (in_.empty()) return close(Gone::kDisconnected);
      return refuse({408, "the request head did not arrive in time", "", "", {}});
    case State::kBody: return refuse({408, "the request body did not arrive in time", "", "", {}});
    case State::kLinger: return close(Gone::kDisconnected);
    default: return tick();
  }
}

// While a request is served: notices a stalled reader, a peer gone behind unread bytes, and silence.
void HttpSession::tick() {
  const auto &limits = server_->limits();
  const auto t = std::chrono::steady_clock::now();
  if (outbox_.progressed()) last_progress_ = t;
  if (!outbox_.empty() && t - last_progress_ >= limits.stall_timeout) return close(Gone::kStalled);
  if (in_.size() >= kPipelinedBytes && peer_has_closed()) return close(Gone::kDisconnected);
  if (state_ == State::kStreaming && limits.sse_keepalive.count() > 0 && exchange_->out_.empty() && outbox_.empty() &&
      t - last_sent_ >= limits.sse_keepalive) {
    exchange_->out_ += ": ping\n\n";
    exchange_->flush();
    if (state_ == State::kClosed) return;
  }
  arm_tick();
}

void HttpSession::arm_tick() {
  const auto &limits = server_->limits();
  auto next = std::min(std::chrono::milliseconds(1000), limits.stall_timeout / 4);
  if (limits.sse_keepalive.count() > 0) next = std::min(next, limits.sse_keepalive / 4);
  arm(std::max(next, std::chrono::milliseconds(10)));
}

// A FIN behind bytes that we do not read shows in the TCP state only.
bool HttpSession::peer_has_closed() const {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(const_cast<tcp::socket &>(socket_).native_handle(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return false;
  return info.tcpi_state == TCP_CLOSE_WAIT || info.tcpi_state == TCP_CLOSE;
}

void HttpSession::close(Gone why) {
  if (state_ == State::kClosed) return;
  const auto keep = self();
  const bool unanswered = state_ == State::kHandling || state_ == State::kBody;
  state_ = State::kClosed;
  boost::system::error_code ignored;
  socket_.close(ignored);
  timer_.cancel();
  io_->remove(*this);
  const auto exchange = std::exchange(exchange_, nullptr);
  if (exchange == nullptr) return;
  if (unanswered) server_->count_request(route_label_, 499);
  exchange->session_.reset();
  exchange->writable_ = nullptr;
  if (const auto gone = std::exchange(exchange->gone_, nullptr)) gone(why);
}

}  // namespace sluice::net

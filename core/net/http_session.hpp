#pragma once
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "core/net/body_decoder.hpp"
#include "core/net/connection.hpp"
#include "core/net/error_reply.hpp"
#include "core/net/http_head.hpp"
#include "core/net/outbox.hpp"

namespace sluice::net {

class HttpExchange;

/// One HTTP/1.1 connection: requests one after the other, each answered before the next is looked at. [io]
///
/// A wait for readability is pending at all times, also while a handler works, so that a peer that goes away is noticed
/// at once. Bytes of pipelined requests are kept up to a bound. There is no read buffer per connection.
class HttpSession final : public Connection {
 public:
  HttpSession(tcp::socket socket, std::shared_ptr<IoThread> io, std::shared_ptr<ServerState> server);
  ~HttpSession() override;
  void start();
  void on_drain() override;
  void shut_down() override;

 private:
  friend class HttpExchange;
  using time_point = std::chrono::steady_clock::time_point;
  enum class State : uint8_t {
    kHead,      ///< between requests, or reading a head
    kBody,
    kHandling,  ///< a handler has the exchange and has not begun its answer
    kStreaming,
    kAnswering, ///< the answer is complete and being sent
    kLinger,    ///< nothing more to say; reads on, so that the answer is not lost to a reset
    kClosed,
  };

  std::shared_ptr<HttpSession> self() { return std::static_pointer_cast<HttpSession>(shared_from_this()); }

  void wait_readable();
  void on_readable();
  void advance();
  bool step();
  bool step_head();
  bool step_body();
  void begin_request(RequestHead head);
  bool refused(const RequestHead &head, Router::Match &match);
  void upgrade(const Route &route, RequestHead head);
  void dispatch();

  void refuse(ErrorReply reply);
  void send_answer(const Response &response);
  void send_stream_head();
  void flush();
  void wait_writable();
  void end_of_answer();

  void arm(std::chrono::milliseconds from_now);
  void on_timer();
  void tick();
  void arm_tick();
  void close(Gone why);
  bool peer_has_closed() const;

  tcp::socket socket_;
  const std::shared_ptr<IoThread> io_;
  const std::shared_ptr<ServerState> server_;
  boost::asio::steady_timer timer_;
  time_point deadline_{}, timer_at_{}, last_progress_{}, last_sent_{};
  bool timer_pending_ = false;
  State state_ = State::kHead;
  std::string in_;                  ///< received, not yet consumed
  HeadReader head_reader_;
  bool head_started_ = true;        ///< the head deadline runs; on a new connection it runs from the start
  bool reading_ = false, writing_ = false, advancing_ = false, blocked_ = false;
  size_t lingered_bytes_ = 0;
  std::optional<BodyDecoder> decoder_;
  const Route *route_ = nullptr;
  std::string route_parameter_, local_address_, route_label_;
  std::shared_ptr<HttpExchange> exchange_;
  Outbox outbox_;
};

}  // namespace sluice::net

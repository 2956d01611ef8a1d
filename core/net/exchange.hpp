#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/net/http_head.hpp"

namespace sluice::net {

/// Runs a callback on the connection's own thread. [any]
using Post = std::function<void(std::function<void()>)>;

enum class Gone : uint8_t {
  kDisconnected,  ///< the peer closed or broke the connection
  kStalled,       ///< the peer took no byte for the stall timeout; the connection is closed
  kShutdown,      ///< the server stops
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  ///< names in lower case
};

/// One request, whole, and its one answer: either respond(), or start_stream(), out()/flush(), finish().
/// Everything runs on the connection's thread; after the peer has gone every call does nothing. A handler may keep the
/// exchange and answer later. [io]
class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const RequestHead &head() const = 0;
  virtual const std::string &body() const = 0;              ///< decoded
  virtual const std::string &path_parameter() const = 0;    ///< what matched `{}` in the route, percent-decoded
  virtual const std::string &request_id() const = 0;
  virtual uint32_t client() const = 0;                      ///< dense id of the API key from 1; 0 = no keys are set
  virtual Post post() const = 0;
  virtual bool open() const = 0;  ///< false once the peer has gone or the answer is sent

  virtual void add_header(std::string name, std::string value) = 0;  ///< to the answer, before it starts
  virtual void respond(Response response) = 0;

  /// Sends 200 and the head of a text/event-stream. From here silence is filled with comments.
  virtual void start_stream() = 0;
  virtual std::string &out() = 0;        ///< append whole events here
  virtual void flush() = 0;              ///< what was appended goes out, at once or with the write under way
  virtual bool writable() const = 0;     ///< false: too much is unsent, stop producing until on_writable
  enum class End : uint8_t { kComplete, kClose };
  virtual void finish(End end) = 0;      ///< kClose: the connection is not used again

  virtual void on_gone(std::function<void(Gone)> callback) = 0;  ///< at most once, never after the answer is finished
  virtual void on_writable(std::function<void()> callback) = 0;
};

/// An open WebSocket as protocol code sees it. [io]
class WsPeer {
 public:
  virtual ~WsPeer() = default;
  virtual void send(std::string text) = 0;  ///< one text message, in order; ignored once closing
  virtual bool writable() const = 0;
  virtual void close(uint16_t code, std::string reason) = 0;  ///< after what is queued
  virtual const std::string &request_id() const = 0;          ///< of the upgrade
  virtual uint32_t client() const = 0;
  virtual Post post() const = 0;
};

/// The protocol spoken over one WebSocket. Owned by its connection. [io]
class WsProtocol {
 public:
  virtual ~WsProtocol() = default;
  virtual void on_open(std::shared_ptr<WsPeer> peer) = 0;
  virtual void on_text(std::string_view message) = 0;  ///< whole, valid UTF-8, within the size limit
  virtual void on_writable() = 0;
  virtual void on_drain() = 0;         ///< the server is going to stop
  virtual void on_gone(Gone why) = 0;  ///< last call
};

}  // namespace sluice::net

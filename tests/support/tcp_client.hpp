#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/response_reader.hpp"
#include "tests/support/stream_event.hpp"

namespace sluice::support {

using Headers = std::vector<std::pair<std::string, std::string>>;

/// A blocking connection to a port of the loopback, with a limit on every wait. Throws std::runtime_error when the
/// other side is not there or is late: a test that waits for ever says nothing.
class TcpClient {
 public:
  explicit TcpClient(uint16_t port);
  ~TcpClient();
  TcpClient(TcpClient &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  TcpClient &operator=(TcpClient &&) = delete;

  int fd() const { return fd_; }
  void send(std::string_view bytes);      ///< all of it
  bool try_send(std::string_view bytes);  ///< false: the peer has closed
  /// What has arrived, at least one byte; "" when the peer has closed or reset.
  std::string receive(std::chrono::milliseconds patience = std::chrono::seconds(20));
  /// Everything up to the peer's close.
  std::string receive_all(std::chrono::milliseconds patience = std::chrono::seconds(20));
  void finish_sending();  ///< FIN
  void close();
  void abort();  ///< RST

 private:
  int fd_ = -1;
};

struct Response {
  int status = 0;
  std::string body;
  ResponseReader reader;
  std::string header(std::string_view lower_case_name) const { return reader.header(lower_case_name); }
};

/// The bytes of a request with Host and, for a body, Content-Type and Content-Length, unless `headers` name them.
std::string request_bytes(std::string_view method, std::string_view path, std::string_view body = {},
                          const Headers &headers = {});

/// One request on a connection of its own.
Response exchange(uint16_t port, std::string_view method, std::string_view path, std::string_view body = {},
                  const Headers &headers = {});
inline Response get(uint16_t port, std::string_view path) { return exchange(port, "GET", path); }
inline Response post(uint16_t port, std::string_view path, std::string_view body, const Headers &headers = {}) {
  return exchange(port, "POST", path, body, headers);
}
/// Reads one response from an open connection. `left` keeps what came behind it.
Response read_response(TcpClient &client, std::string &left, bool head_only = false);

/// Reads a stream event by event.
class EventStream {
 public:
  EventStream(uint16_t port, std::string_view path, std::string_view body, const Headers &headers = {});
  /// The next event's data; false at the end of the response.
  bool next(std::string &data);
  /// Reads on to the end. returns the text of all choices of index 0.. by index.
  struct Whole {
    std::vector<std::string> text;    ///< by choice
    std::vector<std::string> finish;  ///< by choice
    size_t n_events = 0;
    bool done = false;  ///< [DONE] came last
    bool error = false;
    uint32_t completion_tokens = 0;  ///< from a usage event
  };
  Whole read_all();

  TcpClient &client() { return client_; }
  const ResponseReader &reader() const { return reader_; }
  size_t comments() const { return sse_.comments(); }

 private:
  TcpClient client_;
  ResponseReader reader_;
  SseReader sse_;
};

/// The value of a metric, summed over its labels; -1 when there is none. `text` is what /metrics gives.
double metric(const std::string &text, std::string_view name);

}  // namespace sluice::support

#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice::test {

struct RawResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  ///< lower-case names
  std::string body;                            ///< decoded
};

/// A loopback socket that sends exactly what it is told.
class RawClient {
 public:
  explicit RawClient(uint16_t port, int receive_buffer_bytes = 0);
  ~RawClient();
  RawClient(const RawClient &) = delete;
  RawClient &operator=(const RawClient &) = delete;

  void send(std::string_view bytes);
  /// One response, chunked or by length. Nothing: the peer closed, or `patience` passed.
  std::optional<RawResponse> response(std::chrono::milliseconds patience = std::chrono::seconds(5), bool head_only = false);
  /// Reads until `text` has been seen in what was not yet consumed; returns everything up to and with it.
  std::optional<std::string> until(std::string_view text, std::chrono::milliseconds patience = std::chrono::seconds(5));
  std::string buffered() const { return in_; }
  std::string take_buffered() { return std::exchange(in_, {}); }
  bool closed(std::chrono::milliseconds patience = std::chrono::seconds(5));  ///< the peer closes; keeps what came before
  void reset();  ///< closes with RST
  void close();
  int fd() const { return fd_; }

 private:
  bool fill(std::chrono::steady_clock::time_point until);  ///< false: end or time
  int fd_ = -1;
  bool eof_ = false;
  std::string in_;
};

std::string get(std::string_view path, std::string_view more_headers = "");
std::string post(std::string_view path, std::string_view body, std::string_view more_headers = "");

}  // namespace sluice::test

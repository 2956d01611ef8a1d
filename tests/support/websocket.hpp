#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tests/support/tcp_client.hpp"

namespace sluice::support {

enum Opcode : uint8_t { kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10 };

struct Frame {
  bool fin = true;
  uint8_t reserved_bits = 0;  ///< RSV1..3 as 4 2 1
  uint8_t opcode = kText;
  std::string payload;
};

enum class Mask : uint8_t { kYes, kNo };  ///< a client must mask; kNo is for tests of that rule
/// The bytes of a frame as a client sends it.
std::string client_frame(const Frame &frame, Mask mask = Mask::kYes);
std::string client_text(std::string_view payload);

/// Takes a server's frames apart.
class FrameReader {
 public:
  void feed(std::string_view bytes) { bytes_.append(bytes); }
  /// The next whole frame. `broken()` turns true at a masked frame.
  std::optional<Frame> next();
  bool broken() const { return broken_; }

 private:
  std::string bytes_;
  bool broken_ = false;
};

/// The upgrade of /v1/ws with the key of RFC 6455's example, whose answer is known.
std::string upgrade_bytes(const Headers &headers = {{"Sec-WebSocket-Protocol", "sluice.v1"}},
                          std::string_view path = "/v1/ws");
inline constexpr std::string_view kUpgradeAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A blocking client of one socket.
class WsClient {
 public:
  /// throws std::runtime_error when the server does not upgrade.
  explicit WsClient(uint16_t port, const Headers &headers = {{"Sec-WebSocket-Protocol", "sluice.v1"}});

  void send(std::string_view text) { client_.send(client_text(text)); }
  void send(const Frame &frame, Mask mask = Mask::kYes) { client_.send(client_frame(frame, mask)); }
  /// The next data message, or the close frame. Answers pings. Nothing: the connection is gone.
  std::optional<Frame> receive(std::chrono::milliseconds patience = std::chrono::seconds(20));
  /// Reads on to the close; returns its code, 1006 when there was no close frame.
  uint16_t close_code();
  TcpClient &connection() { return client_; }
  const ResponseReader &handshake() const { return handshake_; }

 private:
  TcpClient client_;
  ResponseReader handshake_;
  FrameReader reader_;
};

uint16_t close_code_of(const Frame &close);  ///< 1005 when it carries none

}  // namespace sluice::support

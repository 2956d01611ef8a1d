#pragma once
#include <optional>
#include <string>

#include "tests/core/net/raw_client.hpp"

namespace sluice::test {

struct WsFrame {
  int opcode = 0;  ///< 1 text, 8 close, 9 ping, 10 pong
  std::string payload;
  uint16_t close_code() const {
    return payload.size() < 2 ? 0 : static_cast<uint16_t>(static_cast<unsigned char>(payload[0]) << 8 | static_cast<unsigned char>(payload[1]));
  }
};

/// A WebSocket client that can also break the rules.
class WsClient {
 public:
  /// Upgrades; status() says what came of it.
  WsClient(uint16_t port, const std::string &path, const std::string &more_headers = "", int receive_buffer_bytes = 0);
  const RawResponse &handshake() const { return handshake_; }

  void text(std::string_view payload) { frame(0x81, payload); }
  void frame(int first_byte, std::string_view payload, bool masked = true);
  std::optional<WsFrame> next(std::chrono::milliseconds patience = std::chrono::seconds(5));
  RawClient &raw() { return raw_; }

 private:
  bool need(size_t n, std::chrono::milliseconds patience);
  RawClient raw_;
  RawResponse handshake_;
  std::string in_;
};

}  // namespace sluice::test

#include "tests/core/net/ws_client.hpp"

#include <poll.h>
#include <sys/socket.h>

namespace sluice::test {

WsClient::WsClient(uint16_t port, const std::string &path, const std::string &more_headers, int receive_buffer_bytes)
    : raw_(port, receive_buffer_bytes) {
  raw_.send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + more_headers + "\r\n");
  if (const auto response = raw_.response()) handshake_ = *response;
  in_ = raw_.take_buffered();
}

void WsClient::frame(int first_byte, std::string_view payload, bool masked) {
  std::string out(1, static_cast<char>(first_byte));
  const char mask_bit = masked ? static_cast<char>(0x80) : 0;
  if (payload.size() < 126) {
    out += static_cast<char>(mask_bit | static_cast<char>(payload.size()));
  } else if (payload.size() < 65536) {
    out += static_cast<char>(mask_bit | 126);
    out += static_cast<char>(payload.size() >> 8);
    out += static_cast<char>(payload.size());
  } else {
    out += static_cast<char>(mask_bit | 127);
    for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(payload.size() >> shift);
  }
  const char mask[4] = {0x11, 0x22, 0x33, 0x44};
  if (masked) out.append(mask, 4);
  for (size_t i = 0; i < payload.size(); ++i) out += masked ? static_cast<char>(payload[i] ^ mask[i % 4]) : payload[i];
  raw_.send(out);
}

bool WsClient::need(size_t n, std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (in_.size() < n) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    pollfd p{raw_.fd(), POLLIN, 0};
    if (left.count() < 0 || ::poll(&p, 1, static_cast<int>(left.count())) <= 0) return false;
    char buffer[65536];
    const ssize_t got = ::recv(raw_.fd(), buffer, sizeof buffer, 0);
    if (got <= 0) return false;
    in_.append(buffer, static_cast<size_t>(got));
  }
  return true;
}

std::optional<WsFrame> WsClient::next(std::chrono::milliseconds patience) {
  if (!need(2, patience)) return {};
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(in_[i]); };
  uint64_t size = byte(1) & 0x7f;
  size_t head = 2;
  const int extra = size == 126 ? 2 : size == 127 ? 8 : 0;
  if (extra > 0) {
    if (!need(2 + static_cast<size_t>(extra), patience)) return {};
    size = 0;
    for (int i = 0; i < extra; ++i) size = size << 8 | byte(head++);
  }
  if (!need(head + size, patience)) return {};
  WsFrame frame{byte(0) & 0x0f, in_.substr(head, size)};
  in_.erase(0, head + size);
  return frame;
}

}  // namespace sluice::test

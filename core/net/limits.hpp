#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace sluice::net {

/// What a peer may cost. Every value is enforced by the connection itself, before any handler runs.
struct Limits {
  size_t max_connections = 1024;

  size_t head_bytes = 8 * 1024;       ///< request line and fields; above: 431
  size_t head_fields = 64;            ///< above: 431
  size_t target_bytes = 2 * 1024;     ///< above: 414
  size_t body_bytes = 4 * 1024 * 1024;  ///< decoded; above: 413
  size_t chunks = 65536;              ///< of one chunked body
  size_t trailer_bytes = 4 * 1024;    ///< read, checked and dropped

  std::chrono::milliseconds head_timeout{10'000};  ///< absolute: from accept or the first byte to the blank line
  std::chrono::milliseconds body_timeout{30'000};  ///< absolute, plus one second per 16 KiB announced
  std::chrono::milliseconds idle_timeout{75'000};  ///< between requests of a kept connection
  std::chrono::milliseconds linger{2'000};         ///< to let an early answer reach a peer that is still sending

  size_t stream_queue_bytes = 256 * 1024;            ///< unsent bytes of a connection at which its requests pause
  std::chrono::milliseconds stall_timeout{15'000};   ///< no byte accepted for so long: the peer is cut off
  std::chrono::milliseconds sse_keepalive{5'000};    ///< silence before a `: ping`; 0 = never

  size_t ws_connections = 4096;
  size_t ws_message_bytes = 1024 * 1024;  ///< above: close 1009
  size_t ws_inflight = 16;                ///< open requests of one socket
  std::chrono::milliseconds ws_handshake_timeout{10'000};
  std::chrono::milliseconds ws_ping_interval{20'000};  ///< ping when silent; two silent intervals: closed
};

}  // namespace sluice::net

#pragma once
#include <string>
#include <string_view>
#include <utility>

namespace sluice::net {

/// Bytes on their way to a non-blocking socket. What the kernel does not take at once is kept, in order.
class Outbox {
 public:
  bool empty() const { return offset_ == unsent_.size(); }
  size_t size() const { return unsent_.size() - offset_; }
  void append(std::string_view bytes) { unsent_.append(bytes); }

  /// Sends what is kept. False: the connection is broken.
  bool send(int fd);
  /// Sends `payload` as one HTTP chunk in one call. Only when empty(); keeps what did not fit. False: broken.
  bool send_chunk(int fd, std::string_view payload);

  bool progressed() { return std::exchange(progressed_, false); }  ///< since the last call, the peer took a byte

 private:
  std::string unsent_;
  size_t offset_ = 0;
  bool progressed_ = false;
};

}  // namespace sluice::net

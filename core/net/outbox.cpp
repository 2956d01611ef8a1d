#include "core/net/outbox.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

namespace sluice::net {

bool Outbox::send(int fd) {
  while (!empty()) {
    const ssize_t n = ::send(fd, unsent_.data() + offset_, size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN || errno == EWOULDBLOCK;
    }
    offset_ += static_cast<size_t>(n);
    progressed_ = true;
  }
  offset_ = 0;
  unsent_.clear();
  return true;
}

bool Outbox::send_chunk(int fd, std::string_view payload) {
  std::array<char, 20> size_line;
  char *end = std::to_chars(size_line.data(), size_line.data() + 16, payload.size(), 16).ptr;
  *end++ = '\r';
  *end++ = '\n';
  const std::array<std::string_view, 3> parts{
      std::string_view(size_line.data(), static_cast<size_t>(end - size_line.data())), payload, "\r\n"};
  std::array<iovec, 3> iov;
  for (size_t i = 0; i < parts.size(); ++i) iov[i] = {const_cast<char *>(parts[i].data()), parts[i].size()};
  msghdr message{};
  message.msg_iov = iov.data();
  message.msg_iovlen = iov.size();
  ssize_t n;
  do {
    n = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return false;
  size_t sent = n < 0 ? 0 : static_cast<size_t>(n);
  if (sent > 0) progressed_ = true;
  for (const auto part : parts) {
    if (sent < part.size()) unsent_.append(part.substr(sent));
    sent -= std::min(sent, part.size());
  }
  return true;
}

}  // namespace sluice::net

#include "tests/core/net/raw_client.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>
#include <utility>

namespace sluice::test {

using steady = std::chrono::steady_clock;

RawClient::RawClient(uint16_t port, int receive_buffer_bytes) {
  fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
  if (receive_buffer_bytes > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd_, reinterpret_cast<sockaddr *>(&address), sizeof address) != 0) throw std::runtime_error("connect");
}

RawClient::~RawClient() { close(); }

void RawClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void RawClient::reset() {
  const linger now{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close();
}

void RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return;  // the server may refuse before it has read everything
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

bool RawClient::fill(steady::time_point until) {
  if (eof_) return false;
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - steady::now());
  pollfd p{fd_, POLLIN, 0};
  if (left.count() < 0 || ::poll(&p, 1, static_cast<int>(left.count())) <= 0) return false;
  char buffer[65536];
  const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
  if (n <= 0) {
    eof_ = true;
    return false;
  }
  in_.append(buffer, static_cast<size_t>(n));
  return true;
}

std::optional<std::string> RawClient::until(std::string_view text, std::chrono::milliseconds patience) {
  const auto deadline = steady::now() + patience;
  size_t at;
  while ((at = in_.find(text)) == std::string::npos) {
    if (!fill(deadline)) return {};
  }
  std::string out = in_.substr(0, at + text.size());
  in_.erase(0, at + text.size());
  return out;
}

std::optional<RawResponse> RawClient::response(std::chrono::milliseconds patience, bool head_only) {
  const auto head = until("\r\n\r\n", patience);
  if (!head || !head->starts_with("HTTP/1.1 ")) return {};
  RawResponse out;
  out.status = std::stoi(head->substr(9, 3));
  size_t at = head->find("\r\n") + 2;
  while (at + 2 < head->size()) {
    const size_t end = head->find("\r\n", at), colon = head->find(':', at);
    std::string name = head->substr(at, colon - at);
    for (char &c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    out.headers[name] = head->substr(colon + 2, end - colon - 2);
    at = end + 2;
  }
  if (head_only || out.status == 204 || out.status == 101 || out.status == 100) return out;
  const auto deadline = steady::now() + patience;
  if (out.headers.contains("content-length")) {
    const size_t size = std::stoul(out.headers["content-length"]);
    while (in_.size() < size) {
      if (!fill(deadline)) return {};
    }
    out.body = in_.substr(0, size);
    in_.erase(0, size);
    return out;
  }
  if (!out.headers.contains("transfer-encoding")) {
    while (fill(deadline)) {
    }
    out.body = std::exchange(in_, {});
    return out;
  }
  for (;;) {
    const auto line = until("\r\n", patience);
    if (!line) return {};
    const size_t size = std::stoul(*line, nullptr, 16);
    while (in_.size() < size + 2) {
      if (!fill(deadline)) return {};
    }
    if (in_.substr(size, 2) != "\r\n") return {};
    out.body += in_.substr(0, size);
    in_.erase(0, size + 2);
    if (size == 0) return out;
  }
}

bool RawClient::closed(std::chrono::milliseconds patience) {
  const auto deadline = steady::now() + patience;
  while (fill(deadline)) {
  }
  return eof_;
}

std::string get(std::string_view path, std::string_view more_headers) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: localhost\r\n" + std::string(more_headers) + "\r\n";
}

std::string post(std::string_view path, std::string_view body, std::string_view more_headers) {
  return "POST " + std::string(path) + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
         std::string(more_headers) + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

}  // namespace sluice::test

#include "tests/support/tcp_client.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <stdexcept>

namespace sluice::support {

TcpClient::TcpClient(uint16_t port) {
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd_ < 0 || ::connect(fd_, reinterpret_cast<sockaddr *>(&address), sizeof address) != 0) {
    close();
    throw std::runtime_error("nobody listens on port " + std::to_string(port));
  }
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

TcpClient::~TcpClient() { close(); }

bool TcpClient::try_send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

void TcpClient::send(std::string_view bytes) {
  if (!try_send(bytes)) throw std::runtime_error("the server closed while it was sent a request");
}

std::string TcpClient::receive(std::chrono::milliseconds patience) {
  pollfd waiting{fd_, POLLIN, 0};
  int ready;
  do {
    ready = ::poll(&waiting, 1, static_cast<int>(patience.count()));
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) throw std::runtime_error("the server was silent for " + std::to_string(patience.count()) + " ms");
  std::string bytes(65536, '\0');
  const ssize_t n = ::recv(fd_, bytes.data(), bytes.size(), 0);
  bytes.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return bytes;
}

std::string TcpClient::receive_all(std::chrono::milliseconds patience) {
  std::string all;
  for (std::string bytes = receive(patience); !bytes.empty(); bytes = receive(patience)) all += bytes;
  return all;
}

void TcpClient::finish_sending() { ::shutdown(fd_, SHUT_WR); }

void TcpClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void TcpClient::abort() {
  const linger now{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close();
}

std::string request_bytes(std::string_view method, std::string_view path, std::string_view body,
                          const Headers &headers) {
  std::string out = std::string(method) + ' ' + std::string(path) + " HTTP/1.1\r\nHost: 127.0.0.1\r\n";
  bool typed = false;
  for (const auto &[name, value] : headers) {
    typed = typed || name == "Content-Type";
    out += name + ": " + value + "\r\n";
  }
  if (!body.empty() && !typed) out += "Content-Type: application/json\r\n";
  if (!body.empty()) out += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  return out + "\r\n" + std::string(body);
}

Response read_response(TcpClient &client, std::string &left, bool head_only) {
  Response out;
  out.reader.reset(head_only);
  while (!out.reader.complete()) {
    if (left.empty()) {
      left = client.receive();
      if (left.empty() && !out.reader.feed_end()) throw std::runtime_error("the server closed inside a response");
      if (left.empty()) break;
    }
    left.erase(0, out.reader.feed(left));
    if (out.reader.broken()) throw std::runtime_error("not an HTTP response: " + out.reader.why());
  }
  out.status = out.reader.status();
  out.body = out.reader.body;
  return out;
}

Response exchange(uint16_t port, std::string_view method, std::string_view path, std::string_view body,
                  const Headers &headers) {
  TcpClient client(port);
  client.send(request_bytes(method, path, body, headers));
  std::string left;
  return read_response(client, left, method == "HEAD");
}

EventStream::EventStream(uint16_t port, std::string_view path, std::string_view body, const Headers &headers)
    : client_(port) {
  client_.send(request_bytes("POST", path, body, headers));
}

bool EventStream::next(std::string &data) {
  std::string_view view;
  while (!sse_.next(reader_.body, view)) {
    sse_.compact(reader_.body);
    if (reader_.complete()) return false;
    const std::string bytes = client_.receive();
    if (bytes.empty()) {
      if (reader_.feed_end()) return false;
      throw std::runtime_error("the server closed inside a stream");
    }
    reader_.feed(bytes);
    if (reader_.broken()) throw std::runtime_error("not an HTTP response: " + reader_.why());
  }
  data = view;
  return true;
}

EventStream::Whole EventStream::read_all() {
  Whole whole;
  std::string data;
  StreamEvent event;
  while (next(data)) {
    if (data == "[DONE]") {
      whole.done = true;
      continue;
    }
    whole.done = false;
    ++whole.n_events;
    if (!parse_stream_event(data, event)) throw std::runtime_error("not a JSON object: " + data);
    whole.error = whole.error || event.has_error;
    if (event.has_usage) whole.completion_tokens = event.completion_tokens;
    if (event.n_choices == 0) continue;
    if (whole.text.size() <= event.index) whole.text.resize(event.index + 1), whole.finish.resize(event.index + 1);
    if (!whole.finish[event.index].empty()) throw std::runtime_error("text after the end of a choice: " + data);
    whole.text[event.index] += event.text;
    if (!event.finish_reason.empty()) whole.finish[event.index] = event.finish_reason;
  }
  return whole;
}

double metric(const std::string &text, std::string_view name) {
  double sum = -1;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line(text.data() + at, end - at);
    at = end + 1;
    if (!line.starts_with(name) || line.size() <= name.size()) continue;
    if (line[name.size()] != '{' && line[name.size()] != ' ') continue;
    sum = std::max(sum, 0.0) + std::strtod(line.data() + line.rfind(' '), nullptr);
  }
  return sum;
}

}  // namespace sluice::support

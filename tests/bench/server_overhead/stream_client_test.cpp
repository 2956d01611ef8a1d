// The benchmark's client against a server that lies: every fault must stop the measurement.
#include "tests/bench/server_overhead/stream_client.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

namespace sluice::bench {
namespace {

/// Answers one connection with the same bytes, whatever it is asked.
class Liar {
 public:
  explicit Liar(std::string answer) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr *>(&address), size) != 0 || ::listen(listener_, 1) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr *>(&address), &size) != 0)
      throw std::runtime_error("no port for the liar");
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, text = std::move(answer)] {
      const int peer = ::accept(listener_, nullptr, nullptr);
      char request[256];
      if (::recv(peer, request, sizeof request, 0) > 0) (void)::send(peer, text.data(), text.size(), MSG_NOSIGNAL);
      ::shutdown(peer, SHUT_WR);
      while (::recv(peer, request, sizeof request, 0) > 0) {
      }
      ::close(peer);
    });
  }
  ~Liar() {
    thread_.join();
    ::close(listener_);
  }
  uint16_t port() const { return port_; }

 private:
  int listener_;
  uint16_t port_ = 0;
  std::thread thread_;
};

std::string event(const std::string &text, const std::string &finish = "null") {
  return R"(data: {"choices":[{"index":0,"text":")" + text + R"(","finish_reason":)" + finish + "}]}\n\n";
}
const std::string kEnd = event("", "\"length\"") + "data: [DONE]\n\n";

uint64_t events_of(const std::string &body) {
  const Liar liar("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  return run_streams(liar.port(), ::getpid(), {{"GET / HTTP/1.1\r\n\r\n", "ab", 3}}, false).events;
}

TEST(StreamClient, CountsWhatIsRight) {
  EXPECT_EQ(events_of(event("a") + event("b") + event("a") + kEnd), 3u);
  EXPECT_EQ(events_of(event("a") + ": ping\n\n" + event("b") + event("a", "\"length\"") + "data: [DONE]\n\n"), 3u);
}

TEST(StreamClient, StopsAtEveryFault) {
  for (const std::string &body : {
           event("a") + event("b") + kEnd,                                             // lost
           event("a") + event("b") + event("b") + event("a") + kEnd,                   // doubled
           event("b") + event("a") + event("b") + kEnd,                                // not in order
           event("ab") + event("a") + kEnd,                                            // two tokens in one event
           event("a") + event("b") + event("a") + event("b") + kEnd,                   // too many
           event("a") + event("b") + event("a"),                                       // no end
           event("a") + event("b") + event("a") + "data: [DONE]\n\n",                  // no finish_reason
           event("a") + event("b") + event("a", "\"stop\"") + kEnd,                    // a wrong finish_reason
           event("a") + event("b") + event("a") + kEnd + event("b"),                   // text behind the end
           event("a") + "nonsense\n\n" + event("b") + event("a") + kEnd,               // no event
           event("a") + "data: {\"choices\":[}\n\n" + event("b") + event("a") + kEnd,  // no JSON
           std::string("data: {\"error\":{\"message\":\"x\"}}\n\n"),
       })
    EXPECT_THROW(events_of(body), std::runtime_error) << body;
  const Liar refusing("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
  EXPECT_THROW(run_streams(refusing.port(), ::getpid(), {{"GET / HTTP/1.1\r\n\r\n", "ab", 3}}, false),
               std::runtime_error);
}

}  // namespace
}  // namespace sluice::bench

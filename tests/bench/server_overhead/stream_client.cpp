#include "tests/bench/server_overhead/stream_client.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <stdexcept>
#include <string_view>

#include "tests/support/tcp_client.hpp"

namespace sluice::bench {
namespace {

constexpr size_t kReadBytes = 256 * 1024;
constexpr int kPatienceMs = 30'000;

[[noreturn]] void fail(size_t stream, const std::string &what) {
  throw std::runtime_error("stream " + std::to_string(stream) + ": " + what);
}

std::chrono::nanoseconds cpu_of(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

class Stream {
 public:
  Stream(uint16_t port, size_t number, const StreamPlan &plan, bool same_bytes)
      : client_(port), number_(number), plan_(plan), same_bytes_(same_bytes) {}

  int fd() const { return client_.fd(); }
  void begin() { client_.send(plan_.request); }
  uint32_t tokens() const { return n_tokens_; }
  const std::string &sample() const { return sample_; }

  /// True: the response is whole and was right.
  bool take(std::string_view bytes) {
    if (reader_.feed(bytes) != bytes.size()) fail(number_, "bytes behind the end of the response");
    if (reader_.broken()) fail(number_, reader_.why());
    if (reader_.has_head() && reader_.status() != 200)
      fail(number_, "status " + std::to_string(reader_.status()) + ' ' + reader_.body);
    std::string_view data;
    while (sse_.next(reader_.body, data)) on_data(data);
    sse_.compact(reader_.body);
    if (!reader_.complete()) return false;
    if (!done_) fail(number_, "the response ended without [DONE] after " + std::to_string(n_tokens_) + " tokens");
    if (sse_.malformed() != 0) fail(number_, "an event that is neither data nor a comment");
    return true;
  }

 private:
  void on_data(std::string_view data) {
    if (done_) fail(number_, "an event after [DONE]: " + std::string(data));
    if (data == "[DONE]") {
      if (n_tokens_ != plan_.n_tokens) fail(number_, "[DONE] after " + std::to_string(n_tokens_) + " tokens");
      if (!same_bytes_ && !finished_) fail(number_, "[DONE] without a finish_reason");
      done_ = true;
      return;
    }
    if (!support::parse_stream_event(data, event_) || event_.n_choices != 1)
      fail(number_, "not an event of one choice: " + std::string(data));
    if (!event_.text.empty()) on_token(data);
    if (event_.finish_reason.empty()) return;
    if (finished_ || event_.finish_reason != "length" || n_tokens_ != plan_.n_tokens)
      fail(number_, "a wrong end after " + std::to_string(n_tokens_) + " tokens: " + std::string(data));
    finished_ = true;
  }

  void on_token(std::string_view data) {
    if (finished_) fail(number_, "text after the end: " + std::string(data));
    if (!same_bytes_ && (event_.text.size() != 1 || event_.text[0] != plan_.cycle[n_tokens_ % plan_.cycle.size()]))
      fail(number_, "token " + std::to_string(n_tokens_) + " is wrong: " + std::string(data));
    if (++n_tokens_ == 2) sample_ = "data: " + std::string(data) + "\n\n";
    if (n_tokens_ > plan_.n_tokens) fail(number_, "more than " + std::to_string(plan_.n_tokens) + " tokens");
  }

  support::TcpClient client_;
  support::ResponseReader reader_;
  support::SseReader sse_;
  support::StreamEvent event_;
  const size_t number_;
  const StreamPlan &plan_;
  const bool same_bytes_;
  uint32_t n_tokens_ = 0;
  bool finished_ = false, done_ = false;
  std::string sample_;
};

struct Epoll {
  int fd = ::epoll_create1(EPOLL_CLOEXEC);
  ~Epoll() { ::close(fd); }
};

}  // namespace

RoundResult run_streams(uint16_t port, pid_t server, const std::vector<StreamPlan> &plans, bool same_bytes) {
  const Epoll epoll;
  std::vector<std::unique_ptr<Stream>> streams;
  for (size_t i = 0; i < plans.size(); ++i) {
    streams.push_back(std::make_unique<Stream>(port, i, plans[i], same_bytes));
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    wanted.data.u64 = i;
    if (::epoll_ctl(epoll.fd, EPOLL_CTL_ADD, streams[i]->fd(), &wanted) != 0) fail(i, "epoll_ctl failed");
  }
  std::string buffer(kReadBytes, '\0');
  std::vector<epoll_event> ready(plans.size());
  clockid_t server_clock{};
  if (::clock_getcpuclockid(server, &server_clock) != 0) throw std::runtime_error("the server is gone");
  uint64_t reads = 0;
  const auto client_cpu = cpu_of(CLOCK_THREAD_CPUTIME_ID), server_cpu = cpu_of(server_clock);
  const auto begin = std::chrono::steady_clock::now();
  for (const auto &stream : streams) stream->begin();
  for (size_t open = streams.size(); open > 0;) {
    const int n = ::epoll_wait(epoll.fd, ready.data(), static_cast<int>(ready.size()), kPatienceMs);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw std::runtime_error("no stream sent anything for 30 s");
    for (int i = 0; i < n; ++i) {
      Stream &stream = *streams[ready[static_cast<size_t>(i)].data.u64];
      const ssize_t got = ::recv(stream.fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (got <= 0) fail(ready[static_cast<size_t>(i)].data.u64, "the server closed the connection");
      ++reads;
      if (!stream.take({buffer.data(), static_cast<size_t>(got)})) continue;
      ::epoll_ctl(epoll.fd, EPOLL_CTL_DEL, stream.fd(), nullptr);
      --open;
    }
  }
  RoundResult result;
  result.reads = reads;
  result.elapsed = std::chrono::steady_clock::now() - begin;
  result.client_cpu = cpu_of(CLOCK_THREAD_CPUTIME_ID) - client_cpu;
  result.server_cpu = cpu_of(server_clock) - server_cpu;
  for (const auto &stream : streams) result.events += stream->tokens();
  result.sample_event = streams[0]->sample();
  return result;
}

}  // namespace sluice::bench

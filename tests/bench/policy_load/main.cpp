// Sends a recorded workload to a server on this machine and notes when each request got its first and its last token.
//   policy_load --port P --trace FILE --out FILE     every request at its time
//   policy_load --port P --trace FILE --closed N     N at a time, each when another is done: prints requests/s
// The trace is CSV: arrival_s,input_tokens,output_tokens. Every token must come as an event of its own with some text,
// unless --any-text 1 says that the model may also speak in half characters.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/tcp_client.hpp"

namespace sluice::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kPatienceMs = 60'000;
constexpr std::string_view kText = "\"text\":\"", kEnd = "data: [DONE]";

struct Settings {
  uint16_t port = 0;
  std::string trace, out;
  uint32_t closed = 0;
  bool any_text = false;
};

struct Arrival {
  double at_s = 0;
  uint32_t input = 0, output = 0;
};

struct Record {
  double sent_s = 0, first_s = 0, last_s = 0, longest_pause_s = 0;
  uint32_t tokens = 0;
};

Settings parse(int argc, char **argv) {
  Settings s;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    const char *value = argv[i + 1];
    if (flag == "--port") s.port = static_cast<uint16_t>(std::atoi(value));
    else if (flag == "--trace") s.trace = value;
    else if (flag == "--out") s.out = value;
    else if (flag == "--closed") s.closed = static_cast<uint32_t>(std::atoi(value));
    else if (flag == "--any-text") s.any_text = std::string(value) == "1";
    else throw std::runtime_error("unknown flag " + flag);
  }
  if (s.port == 0 || s.trace.empty() || (s.out.empty() && s.closed == 0))
    throw std::runtime_error("usage: policy_load --port P --trace FILE (--out FILE | --closed N)");
  return s;
}

std::vector<Arrival> read_trace(const std::string &path) {
  std::ifstream in(path);
  std::vector<Arrival> arrivals;
  for (std::string line; std::getline(in, line);) {
    Arrival a;
    if (std::sscanf(line.c_str(), "%lf,%u,%u", &a.at_s, &a.input, &a.output) == 3) arrivals.push_back(a);
  }
  if (arrivals.empty()) throw std::runtime_error(path + " has no line arrival_s,input_tokens,output_tokens");
  return arrivals;
}

/// Ids 3..258 are bytes; the first ones make every prompt another.
std::string request_of(size_t index, const Arrival &a) {
  std::string body = "{\"model\":\"test\",\"stream\":true,\"ignore_eos\":true,\"temperature\":0,\"max_tokens\":" +
                     std::to_string(a.output) +
                     ",\"prompt\":[";
  for (uint32_t i = 0; i < a.input; ++i) {
    const uint32_t id = i < 3 ? 35 + static_cast<uint32_t>(index >> 6 * i & 63) : 101;
    body += std::to_string(id) + (i + 1 < a.input ? "," : "]}");
  }
  return support::request_bytes("POST", "/v1/completions", body, {{"Connection", "close"}});
}

class Run {
 public:
  Run(const Settings &settings, std::vector<Arrival> arrivals)
      : settings_(settings), arrivals_(std::move(arrivals)), streams_(arrivals_.size()), records_(arrivals_.size()) {}
  ~Run() { ::close(epoll_); }

  void go() {
    began_ = Clock::now();
    std::string buffer(64 * 1024, '\0');
    std::vector<epoll_event> ready(256);
    while (n_done_ < arrivals_.size()) {
      send_due();
      const int n = ::epoll_wait(epoll_, ready.data(), static_cast<int>(ready.size()), wait_ms());
      if (n < 0 && errno != EINTR) throw std::runtime_error("epoll_wait failed");
      if (n > 0) last_news_s_ = now_s();
      if (n_open_ > 0 && now_s() - last_news_s_ > kPatienceMs * 1e-3)
        throw std::runtime_error(std::to_string(n_open_) + " streams got nothing for a minute");
      for (int i = 0; i < n; ++i) take(ready[static_cast<size_t>(i)].data.u64, buffer);
    }
  }
  double elapsed_s() const { return now_s(); }

  /// Times are relative to when the request should have been sent.
  void write(const std::string &path) const {
    std::ofstream out(path);
    out << "arrival_s,input,output,ttft_s,jct_s,longest_pause_s,late_s\n";
    for (size_t i = 0; i < records_.size(); ++i) {
      const Record &r = records_[i];
      const Arrival &a = arrivals_[i];
      char line[200];
      std::snprintf(line, sizeof line, "%.6f,%u,%u,%.6f,%.6f,%.6f,%.6f\n", a.at_s, a.input, a.output, r.first_s - a.at_s,
                    r.last_s - a.at_s, r.longest_pause_s, r.sent_s - a.at_s);
      out << line;
    }
    out.close();
    if (!out) throw std::runtime_error(path + " cannot be written");
  }
  /// Requests per second between the first and the last tenth to end.
  double rate_per_s() const {
    const size_t from = done_at_s_.size() / 10, to = done_at_s_.size() - 1 - from;
    return static_cast<double>(to - from) / (done_at_s_[to] - done_at_s_[from]);
  }

 private:
  struct Stream {
    explicit Stream(uint16_t port) : client(port) {}
    support::TcpClient client;
    std::string tail;  // what may be the beginning of something
    bool has_status = false;
  };

  double now_s() const { return std::chrono::duration<double>(Clock::now() - began_).count(); }

  bool is_due() const {
    if (next_ == arrivals_.size()) return false;
    return settings_.closed > 0 ? n_open_ < settings_.closed : arrivals_[next_].at_s <= now_s();
  }
  int wait_ms() const {
    if (next_ == arrivals_.size() || settings_.closed > 0) return 1000;
    return std::max(0, std::min(1000, static_cast<int>((arrivals_[next_].at_s - now_s()) * 1e3)));
  }

  void send_due() {
    for (; is_due(); ++next_) {
      auto stream = std::make_unique<Stream>(settings_.port);
      records_[next_].sent_s = now_s();
      stream->client.send(request_of(next_, arrivals_[next_]));
      epoll_event wanted{};
      wanted.events = EPOLLIN;
      wanted.data.u64 = next_;
      if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, stream->client.fd(), &wanted) != 0)
        throw std::runtime_error("epoll_ctl failed");
      streams_[next_] = std::move(stream);
      ++n_open_;
      last_news_s_ = now_s();
    }
  }

  void take(size_t index, std::string &buffer) {
    Stream &stream = *streams_[index];
    const ssize_t got = ::recv(stream.client.fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    const auto fail = [&](const std::string &what) {
      throw std::runtime_error("request " + std::to_string(index) + ": " + what + ": " + stream.tail);
    };
    if (got <= 0) fail("the connection was closed");
    stream.tail.append(buffer.data(), static_cast<size_t>(got));
    if (!stream.has_status) {
      if (stream.tail.size() < 12) return;
      if (stream.tail.compare(9, 3, "200") != 0) fail("no 200");
      stream.has_status = true;
    }
    size_t at = 0, tokens = 0;
    for (size_t hit = 0; (hit = stream.tail.find(kText, at)) != std::string::npos; at = hit + kText.size()) {
      if (hit + kText.size() == stream.tail.size()) break;  // whether there is any comes with the next bytes
      tokens += stream.tail[hit + kText.size()] != '"' ? 1 : 0;
    }
    if (tokens > 0) note_tokens(records_[index], static_cast<uint32_t>(tokens));
    const bool ended = stream.tail.find(kEnd, at) != std::string::npos;
    const size_t keep = kText.size() + kEnd.size();
    if (stream.tail.size() - at > keep) at = stream.tail.size() - keep;
    stream.tail.erase(0, at);
    if (!ended) return;
    if (!settings_.any_text && records_[index].tokens != arrivals_[index].output)
      fail(std::to_string(records_[index].tokens) + " of " + std::to_string(arrivals_[index].output) + " tokens");
    ::epoll_ctl(epoll_, EPOLL_CTL_DEL, stream.client.fd(), nullptr);
    streams_[index].reset();
    done_at_s_.push_back(now_s());
    ++n_done_, --n_open_;
  }

  void note_tokens(Record &r, uint32_t tokens) const {
    const double now = now_s();
    if (r.tokens == 0) r.first_s = now;
    else if (now - r.last_s > r.longest_pause_s) r.longest_pause_s = now - r.last_s;
    r.last_s = now;
    r.tokens += tokens;
  }

  const Settings &settings_;
  const std::vector<Arrival> arrivals_;
  const int epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  Clock::time_point began_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<Record> records_;
  std::vector<double> done_at_s_;
  size_t next_ = 0, n_open_ = 0, n_done_ = 0;
  double last_news_s_ = 0;
};

int main_of(int argc, char **argv) {
  const Settings settings = parse(argc, argv);
  Run run(settings, read_trace(settings.trace));
  run.go();
  if (settings.closed > 0) std::printf("%.4f requests/s\n", run.rate_per_s());
  if (!settings.out.empty()) run.write(settings.out);
  return 0;
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char **argv) {
  try {
    return sluice::bench::main_of(argc, argv);
  } catch (const std::exception &e) {
    std::fprintf(stderr, "policy_load: %s\n", e.what());
    return 1;
  }
}

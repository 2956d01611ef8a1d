#include "tests/e2e/disconnect_client.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <optional>
#include <string_view>

#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"
#include "tests/support/websocket.hpp"

namespace sluice::e2e {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{20};

bool is_socket(Stage s) {
  return s == Stage::kSocketHandshake || s == Stage::kSocketMidStream || s == Stage::kSocketCancel ||
         s == Stage::kSocketWhole;
}

/// What one client is going to do, drawn before it starts.
struct Plan {
  Stage stage;
  std::string prompt;
  uint32_t max_tokens;
  uint32_t leave_after_events;            ///< mid-stream stages
  std::chrono::microseconds leave_after;  ///< stages that wait for time
  enum class How : uint8_t { kClose, kReset, kHalfClose } how;

  std::string whole() const {
    std::string out;
    while (out.size() < max_tokens) out += prompt;
    return out.substr(0, max_tokens);
  }
};

Plan draw_plan(std::mt19937_64 &random) {
  const auto below = [&](uint64_t n) { return static_cast<uint32_t>(random() % n); };
  Plan plan;
  plan.stage = static_cast<Stage>(below(kStages));
  const uint32_t n_prompt = plan.stage == Stage::kLongPrefill ? 600 + below(900) : 8 + below(40);
  for (uint32_t i = 0; i < n_prompt; ++i) plan.prompt += "abcdefghijklmnopqrstuvwxyz0123456789"[below(36)];
  plan.max_tokens = 8 + below(56);
  plan.leave_after_events = 1 + below(plan.max_tokens);
  plan.leave_after = std::chrono::microseconds(below(plan.stage == Stage::kLongPrefill ? 20'000 : 8'000));
  plan.how = static_cast<Plan::How>(below(3));
  return plan;
}

class Attempt {
 public:
  Attempt(uint16_t port, Plan plan) : client_(port), plan_(std::move(plan)), expected_(plan_.whole()) { begin(); }

  int fd() const { return client_.fd(); }
  const Plan &plan() const { return plan_; }
  size_t characters() const { return received_.size(); }
  bool cut() const { return !received_.empty() && received_.size() < expected_.size(); }
  const std::string &problem() const { return problem_; }

  /// False: this client is done, by itself or at the end of its answer.
  bool on_bytes(std::string_view bytes) {
    if (bytes.empty()) {
      if (!left_ && !whole_)
        fail("the server closed, with " + std::to_string(received_.size()) + " characters received");
      return false;
    }
    if (left_) return true;
    is_socket(plan_.stage) ? on_frames(bytes) : on_http(bytes);
    if (!problem_.empty() || whole_) return false;
    return !wants_to_leave_ || leave();
  }
  /// False: this client is done.
  bool on_time(Clock::time_point now) {
    if (now > started_ + kPatience) {
      fail("not done after 20 s");
      return false;
    }
    if (left_ || !leave_at_ || now < *leave_at_) return true;
    return leave();
  }

 private:
  void begin() {
    started_ = Clock::now();
    const auto in_a_while = started_ + plan_.leave_after;
    switch (plan_.stage) {
      case Stage::kConnected:
        leave_at_ = in_a_while;
        return;
      case Stage::kHead:
      case Stage::kHalfBody: {
        const std::string bytes = http_request(true);
        const size_t head = bytes.find("\r\n\r\n") + 4;
        const size_t n =
            plan_.stage == Stage::kHead ? 1 + plan_.leave_after_events % (head - 1) : head + (bytes.size() - head) / 2;
        client_.try_send(std::string_view(bytes).substr(0, n));
        leave_at_ = in_a_while;
        return;
      }
      case Stage::kSent:
      case Stage::kLongPrefill:
        leave_at_ = in_a_while;
        [[fallthrough]];
      case Stage::kMidStream:
      case Stage::kWhole:
        client_.try_send(http_request(true));
        return;
      case Stage::kPending:
        leave_at_ = in_a_while;
        [[fallthrough]];
      case Stage::kWholePending:
        client_.try_send(http_request(false));
        return;
      case Stage::kSocketHandshake:
        leave_at_ = in_a_while;
        [[fallthrough]];
      case Stage::kSocketMidStream:
      case Stage::kSocketCancel:
      case Stage::kSocketWhole:
        client_.try_send(support::upgrade_bytes());
        return;
    }
  }

  std::string completion(bool stream) const {
    return R"({"model":"test","prompt":)" + support::tiny_ids(plan_.prompt) +
           R"(,"temperature":0,"ignore_eos":true,"max_tokens":)" + std::to_string(plan_.max_tokens) +
           (stream ? R"(,"stream":true})" : "}");
  }
  std::string http_request(bool stream) const {
    return support::request_bytes("POST", "/v1/completions", completion(stream), {{"Connection", "close"}});
  }

  // False at once after close and reset; a half-closed client waits for the server to hang up.
  bool leave() {
    left_ = true;
    if (plan_.how == Plan::How::kReset) client_.abort();
    if (plan_.how == Plan::How::kClose) client_.close();
    if (plan_.how == Plan::How::kHalfClose) client_.finish_sending();
    return plan_.how == Plan::How::kHalfClose;
  }

  void on_http(std::string_view bytes) {
    reader_.feed(bytes);
    if (reader_.broken()) return fail(reader_.why());
    if (reader_.has_head() && reader_.status() != 200) {
      if (reader_.complete()) fail("status " + std::to_string(reader_.status()) + ' ' + reader_.body);
      return;
    }
    const bool streamed = plan_.stage != Stage::kPending && plan_.stage != Stage::kWholePending;
    if (!streamed) {
      if (!reader_.complete()) return;
      on_event(reader_.body);
      return on_end();
    }
    std::string_view data;
    while (problem_.empty() && sse_.next(reader_.body, data)) {
      if (data == "[DONE]") {
        done_ = true;
      } else {
        on_event(data);
      }
    }
    sse_.compact(reader_.body);
    if (reader_.complete()) done_ ? on_end() : fail("a stream without [DONE]");
  }

  void on_event(std::string_view json) {
    if (!support::parse_stream_event(json, event_)) return fail("not a JSON object: " + std::string(json));
    if (event_.has_error) return fail("an error: " + std::string(json));
    take_text();
  }

  void take_text() {
    if (!finish_.empty() && !event_.text.empty()) return fail("text after the end");
    received_ += event_.text;
    if (!std::string_view(expected_).starts_with(received_))
      return fail("received '" + received_ + "' of '" + expected_ + "'");
    if (!event_.finish_reason.empty()) finish_ = event_.finish_reason;
    if (++n_events_ >= plan_.leave_after_events && plan_.stage == Stage::kMidStream) wants_to_leave_ = true;
  }

  void on_end() {
    if (received_ != expected_) return fail("the whole answer is '" + received_ + "', not '" + expected_ + "'");
    if (finish_ != "length") return fail("finish_reason '" + finish_ + "'");
    whole_ = true;
  }

  void on_frames(std::string_view bytes) {
    if (!reader_.complete()) {
      bytes.remove_prefix(reader_.feed(bytes));
      if (reader_.broken()) return fail(reader_.why());
      if (!reader_.complete()) return;
      if (reader_.status() != 101) return fail("no upgrade: " + std::to_string(reader_.status()));
      if (plan_.stage != Stage::kSocketHandshake)
        client_.try_send(support::client_text(
            R"({"type":"request","id":"r","method":"POST","path":"/v1/completions","body":)" + completion(true) + "}"));
    }
    frames_.feed(bytes);
    while (problem_.empty() && !whole_) {
      const auto frame = frames_.next();
      if (!frame) return;
      if (frame->opcode == support::kText) on_message(frame->payload);
      if (frame->opcode == support::kClose) return fail("the server closed the socket");
    }
  }

  void on_message(const std::string &text) {
    boost::system::error_code ec;
    const auto parsed = boost::json::parse(text, ec);
    const auto *message = ec ? nullptr : parsed.if_object();
    const auto *type = message == nullptr ? nullptr : message->if_contains("type");
    if (type == nullptr || !type->is_string()) return fail("not a message: " + text);
    if (*type == "event") {
      if (message->at("seq").to_number<uint64_t>() != ++seq_) return fail("a gap in seq: " + text);
      const auto data = boost::json::serialize(message->at("data"));
      if (!support::parse_stream_event(data, event_)) return fail("not an event: " + text);
      take_text();
      if (plan_.stage == Stage::kSocketMidStream && n_events_ >= plan_.leave_after_events) wants_to_leave_ = true;
      if (plan_.stage == Stage::kSocketCancel && n_events_ == plan_.leave_after_events)
        client_.try_send(support::client_text(R"({"type":"cancel","id":"r"})"));
    } else if (*type == "done") {
      on_end();
    } else if (*type == "cancelled" && plan_.stage == Stage::kSocketCancel) {
      whole_ = true;
    } else if (*type != "hello" && *type != "accepted") {
      fail("unexpected: " + text);
    }
  }

  void fail(std::string what) {
    if (problem_.empty()) problem_ = std::string(stage_name(plan_.stage)) + ": " + std::move(what);
  }

  support::TcpClient client_;
  const Plan plan_;
  const std::string expected_;
  Clock::time_point started_;
  std::optional<Clock::time_point> leave_at_;
  support::ResponseReader reader_;
  support::SseReader sse_;
  support::FrameReader frames_;
  support::StreamEvent event_;
  std::string received_, finish_, problem_;
  uint32_t n_events_ = 0;
  uint64_t seq_ = 0;
  bool done_ = false, whole_ = false, left_ = false, wants_to_leave_ = false;
};

struct Epoll {
  int fd = ::epoll_create1(EPOLL_CLOEXEC);
  ~Epoll() { ::close(fd); }
};

}  // namespace

const char *stage_name(Stage stage) {
  static constexpr const char *kNames[kStages] = {
      "connected",    "inside the head",      "inside the body",  "right after the request", "long prefill",
      "mid-stream",   "stream=false pending", "socket handshake", "socket mid-stream",       "socket cancel",
      "whole stream", "whole answer",         "whole socket"};
  return kNames[static_cast<size_t>(stage)];
}

SoakResult run_soak(uint16_t port, const SoakOptions &options) {
  std::mt19937_64 random(options.seed);
  SoakResult result;
  const Epoll epoll;
  std::vector<std::unique_ptr<Attempt>> slots(options.concurrent);
  std::string buffer(256 * 1024, '\0');
  std::vector<epoll_event> ready(options.concurrent);
  uint32_t started = 0, open = 0;

  const auto settle = [&](size_t slot) {
    const Attempt &attempt = *slots[slot];
    if (!attempt.problem().empty() && result.problems.size() < 20) result.problems.push_back(attempt.problem());
    result.characters += attempt.characters();
    result.cut_streams += attempt.cut() ? 1 : 0;
    slots[slot].reset();  // closes, and so leaves the epoll set
    --open;
  };
  while (started < options.attempts || open > 0) {
    for (size_t i = 0; i < slots.size() && started < options.attempts; ++i) {
      if (slots[i] != nullptr) continue;
      slots[i] = std::make_unique<Attempt>(port, draw_plan(random));
      ++result.attempts[slots[i]->plan().stage];
      epoll_event wanted{};
      wanted.events = EPOLLIN;
      wanted.data.u64 = i;
      ::epoll_ctl(epoll.fd, EPOLL_CTL_ADD, slots[i]->fd(), &wanted);
      ++started, ++open;
    }
    const int n = ::epoll_wait(epoll.fd, ready.data(), static_cast<int>(ready.size()), 1);
    for (int i = 0; i < n; ++i) {
      const size_t slot = ready[static_cast<size_t>(i)].data.u64;
      if (slots[slot] == nullptr) continue;
      const ssize_t got = ::recv(slots[slot]->fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (!slots[slot]->on_bytes({buffer.data(), static_cast<size_t>(std::max<ssize_t>(got, 0))})) settle(slot);
    }
    const auto now = Clock::now();
    for (size_t i = 0; i < slots.size(); ++i)
      if (slots[i] != nullptr && !slots[i]->on_time(now)) settle(i);
    if (result.problems.size() >= 20) break;
  }
  return result;
}

}  // namespace sluice::e2e

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <map>

#include "core/api/error_reply.hpp"
#include "core/api/fields.hpp"
#include "core/api/handlers.hpp"
#include "core/api/openai_format.hpp"

namespace sluice::api {
namespace {

namespace json = boost::json;
using lifecycle::AnswerEnd;
using lifecycle::ChosenToken;
using lifecycle::Failure;
using lifecycle::FailureKind;
using lifecycle::Generation;
using lifecycle::Outcome;

constexpr int kMaxBadFrames = 10;
constexpr uint16_t kGoingAway = 1001, kPolicy = 1008;

bool is_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '.' || c == '-';
  });
}

class WsSocket;

/// One request of a socket: its events as frames.
class WsReply final : public lifecycle::GenerationConsumer {
 public:
  WsReply(std::shared_ptr<WsSocket> socket, std::string id, std::string request_id, ReplyFormat format, uint32_t n_answers)
      : socket_(std::move(socket)),
        id_(std::move(id)),
        request_id_(std::move(request_id)),
        format_(std::move(format)),
        ends_(n_answers, AnswerEnd::kCancelled) {}

  void on_admitted() override;
  void on_delta(uint32_t answer, std::string_view text, const ChosenToken *chosen) override;
  void on_answer_end(uint32_t answer, AnswerEnd end) override;
  void on_batch_end() override {}
  bool writable() override;
  void on_end(const Outcome &outcome) override;

 private:
  template <class Write> void event(Write &&write);

  const std::shared_ptr<WsSocket> socket_;
  const std::string id_, request_id_;
  ReplyFormat format_;
  std::vector<AnswerEnd> ends_;
  uint64_t seq_ = 0;
};

/// The frames of one socket, in and out.
class WsSocket final : public net::WsProtocol, public std::enable_shared_from_this<WsSocket> {
 public:
  explicit WsSocket(std::shared_ptr<Context> context) : context_(std::move(context)) {}

  void on_open(std::shared_ptr<net::WsPeer> peer) override;
  void on_text(std::string_view message) override;
  void on_writable() override;
  void on_drain() override;
  void on_gone(net::Gone why) override;

  void send(std::string frame) {
    if (peer_ != nullptr) peer_->send(std::move(frame));
  }
  bool writable() const { return peer_ == nullptr || peer_->writable(); }
  void finished(const std::string &id);

 private:
  void on_frame(const json::object &frame);
  void on_request(const json::object &frame);
  void on_cancel(const json::object &frame);
  void on_ping(const json::object &frame);
  void bad_frame(std::string message);
  void send_error(const std::string &id, const net::ErrorReply &reply);
  void close_when_done();

  const std::shared_ptr<Context> context_;
  std::shared_ptr<net::WsPeer> peer_;
  std::map<std::string, std::shared_ptr<Generation>, std::less<>> open_;
  uint64_t n_requests_ = 0;
  int bad_frames_ = 0;
  bool draining_ = false;
};

// ---- one request ------------------------------------------------------------------------------------------------

template <class Write> void WsReply::event(Write &&write) {
  std::string frame = fmt::format(R"({{"type":"event","id":"{}","seq":{},"data":)", id_, ++seq_);
  write(frame);
  frame += '}';
  socket_->send(std::move(frame));
}

void WsReply::on_admitted() {
  socket_->send(fmt::format(R"({{"type":"accepted","id":"{}","request_id":"{}"}})", id_, request_id_));
  if (!format_.has_first()) return;
  for (uint32_t i = 0; i < ends_.size(); ++i) event([&](std::string &out) { format_.append_first(out, i); });
}

void WsReply::on_delta(uint32_t answer, std::string_view text, const ChosenToken *chosen) {
  event([&](std::string &out) { format_.append_delta(out, answer, text, chosen); });
}

void WsReply::on_answer_end(uint32_t answer, AnswerEnd end) {
  ends_[answer] = end;
  if (end != AnswerEnd::kCancelled) event([&](std::string &out) { format_.append_end(out, answer, end); });
}

bool WsReply::writable() { return socket_->writable(); }

void WsReply::on_end(const Outcome &outcome) {
  std::string frame;
  if (outcome.failure) {
    const auto reply = to_reply(*outcome.failure);
    frame = fmt::format(R"({{"type":"error","id":"{}","status":{},"error":{})", id_, reply.status, net::error_object(reply));
    if (reply.retry_after_s) frame += fmt::format(R"(,"retry_after_ms":{})", *reply.retry_after_s * 1000);
    frame += '}';
  } else {
    frame = outcome.cancelled
                ? fmt::format(R"({{"type":"cancelled","id":"{}","usage":)", id_)
                : fmt::format(R"({{"type":"done","id":"{}","seq":{},"finish_reason":"{}","usage":)", id_, seq_ + 1,
                              finish_reason(ends_.front()));
    append_usage(frame, outcome.usage);
    frame += '}';
  }
  socket_->send(std::move(frame));
  socket_->finished(id_);
}

// ---- the socket -------------------------------------------------------------------------------------------------

void WsSocket::on_open(std::shared_ptr<net::WsPeer> peer) {
  peer_ = std::move(peer);
  const auto &limits = context_->options.limits;
  send(fmt::format(R"({{"type":"hello","session":"{}","server":"sluice/{}","limits":{{"max_inflight":{},)"
                   R"("max_message_bytes":{},"max_queue_bytes":{},"ping_interval_ms":{}}},"features":["cancel"]}})",
                   peer_->request_id(), context_->options.version, limits.ws_inflight, limits.ws_message_bytes,
                   limits.stream_queue_bytes, limits.ws_ping_interval.count()));
  if (context_->service.draining()) on_drain();
}

void WsSocket::on_text(std::string_view message) {
  const auto frame = parse_object(message);
  if (!frame) return bad_frame(frame.error().message);
  on_frame(*frame);
}

void WsSocket::on_frame(const json::object &frame) {
  const auto *type = frame.if_contains("type");
  const std::string_view name = type != nullptr && type->is_string() ? std::string_view(type->get_string()) : "";
  if (name == "request") return on_request(frame);
  if (name == "cancel") return on_cancel(frame);
  if (name == "ping") return on_ping(frame);
  if (name == "pong") return;
  bad_frame(type == nullptr ? "a frame without type; known types: request, cancel, ping"
                            : "a frame of unknown type " + shown(*type) + "; known types: request, cancel, ping");
}

void WsSocket::bad_frame(std::string message) {
  send_error("", {400, std::move(message), "invalid_frame", "", {}});
  if (++bad_frames_ >= kMaxBadFrames && peer_ != nullptr) peer_->close(kPolicy, "too many bad frames in a row");
}

void WsSocket::send_error(const std::string &id, const net::ErrorReply &reply) {
  std::string frame = R"({"type":"error",)";
  if (!id.empty()) frame += fmt::format(R"("id":"{}",)", id);
  frame += fmt::format(R"("status":{},"error":{})", reply.status, net::error_object(reply));
  if (reply.retry_after_s) frame += fmt::format(R"(,"retry_after_ms":{})", *reply.retry_after_s * 1000);
  send(frame + '}');
}

void WsSocket::on_request(const json::object &frame) {
  Fields fields(frame);
  const std::string id = fields.text("id", 256).value_or("");
  const std::string method = fields.text("method", 16).value_or("POST");
  const std::string path = fields.text("path", 256).value_or("");
  const auto *body = fields.get("body");
  if (fields.failed()) return bad_frame(fields.failure().message);
  if (!is_request_id(id)) return bad_frame("id must be 1 to 64 characters of A-Z a-z 0-9 _ . -");
  if (open_.contains(id)) return bad_frame("id '" + id + "' is in use by an open request");
  bad_frames_ = 0;
  const bool chat = path == "/v1/chat/completions";
  if (method != "POST" || (!chat && path != "/v1/completions")) {
    return send_error(id, {404, "path must be /v1/chat/completions or /v1/completions, with method POST", "", "path", {}});
  }
  if (body == nullptr || !body->is_object()) return send_error(id, {400, "body must be an object", "", "body", {}});
  if (draining_) return send_error(id, to_reply({FailureKind::kShuttingDown, "the server is shutting down", "", 10}));
  if (open_.size() >= context_->options.limits.ws_inflight) {
    return send_error(id, to_reply({FailureKind::kQueueFull,
                                    fmt::format("this socket has {} open requests, its limit", open_.size()), "", 1}));
  }
  json::object request = body->get_object();
  request["stream"] = true;
  const auto dialect = chat ? Dialect::kChat : Dialect::kCompletion;
  auto parsed = parse_request(dialect, request, context_->service);
  if (!parsed) return send_error(id, to_reply(parsed.error()));
  const auto n_answers = static_cast<uint32_t>(parsed->spec.prompts.size()) * parsed->spec.n;
  parsed->spec.request_id = fmt::format("{}.{}", peer_->request_id(), ++n_requests_);
  parsed->spec.client = peer_->client();
  parsed->spec.route = "/v1/ws";
  ReplyFormat format(dialect, *parsed, context_->fingerprint, n_answers);
  auto reply = std::make_shared<WsReply>(shared_from_this(), id, parsed->spec.request_id, std::move(format), n_answers);
  open_.emplace(id, nullptr);
  context_->ws_streams.add(1);
  auto generation = Generation::start(context_->service, std::move(parsed->spec), std::move(reply), peer_->post());
  if (const auto it = open_.find(id); it != open_.end()) it->second = std::move(generation);
}

void WsSocket::on_cancel(const json::object &frame) {
  Fields fields(frame);
  const auto id = fields.text("id", 256);
  if (fields.failed() || !id) return bad_frame("cancel needs the id of a request");
  bad_frames_ = 0;
  const auto it = open_.find(*id);
  if (it == open_.end()) return;  // it may have ended while the frame was on its way
  const auto generation = it->second;
  generation->cancel(request::CancelCause::kClient);
}

void WsSocket::on_ping(const json::object &frame) {
  bad_frames_ = 0;
  const auto *t = frame.if_contains("t");
  const bool echo = t != nullptr && (t->is_number() || (t->is_string() && t->get_string().size() <= 64));
  send(echo ? R"({"type":"pong","t":)" + json::serialize(*t) + "}" : R"({"type":"pong"})");
}

void WsSocket::on_writable() {
  std::vector<std::shared_ptr<Generation>> waiting;  // a resumed one may end and leave the map
  for (const auto &[id, generation] : open_) waiting.push_back(generation);
  for (const auto &generation : waiting) {
    if (generation != nullptr) generation->resume();
  }
}

void WsSocket::on_drain() {
  if (draining_) return;
  draining_ = true;
  send(fmt::format(R"({{"type":"goaway","reason":"shutting_down","deadline_ms":{}}})",
                   context_->options.drain_timeout.count()));
  close_when_done();
}

void WsSocket::close_when_done() {
  if (draining_ && open_.empty() && peer_ != nullptr) peer_->close(kGoingAway, "the server is shutting down");
}

void WsSocket::finished(const std::string &id) {
  if (open_.erase(id) > 0) context_->ws_streams.add(-1);
  close_when_done();
}

void WsSocket::on_gone(net::Gone why) {
  peer_ = nullptr;
  const auto open = std::exchange(open_, {});
  const auto cause = why == net::Gone::kStalled    ? request::CancelCause::kSlowConsumer
                     : why == net::Gone::kShutdown ? request::CancelCause::kDrain
                                                   : request::CancelCause::kDisconnect;
  for (const auto &[id, generation] : open) {
    context_->ws_streams.add(-1);
    if (generation != nullptr) generation->detach(cause);
  }
}

}  // namespace

std::shared_ptr<net::WsProtocol> make_ws_protocol(std::shared_ptr<Context> context) {
  return std::make_shared<WsSocket>(std::move(context));
}

}  // namespace sluice::api

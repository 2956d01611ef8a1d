#include "core/isolation/remote.hpp"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/log.hpp"
#include "core/text/utf8.hpp"

namespace sluice::isolation {
namespace {

constexpr size_t kMaxSideBytes = 64 * 1024;      // of what is said by the way
constexpr size_t kMaxEventBytes = 4 << 20;
constexpr uint64_t kMaxMetrics = 1024;
constexpr uint32_t kMaxLogLines = 500;  // in kLogWindow
constexpr std::chrono::seconds kLogWindow{5};
constexpr std::chrono::milliseconds kReaderNap{500};

Deadline in(std::chrono::milliseconds time) { return std::chrono::steady_clock::now() + time; }

}  // namespace

int32_t report(sluice_status *status, int32_t code, uint32_t flags, const std::string &message) {
  if (status == nullptr || !SLUICE_HAS(status, sluice_status, msg)) return code;
  const std::string text = text::repair_utf8(std::string_view(message).substr(0, sizeof status->msg - 1));
  const size_t length = std::min(text.size(), sizeof status->msg - 1);
  status->code = code, status->flags = flags;
  status->msg_len = static_cast<uint32_t>(length);
  std::memcpy(status->msg, text.data(), length);
  status->msg[length] = '\0';
  return code;
}

Remote::Remote(std::string who, std::unique_ptr<Peer> peer, const sluice_host_api *api, CallTimes times)
    : who_(std::move(who)), peer_(std::move(peer)), api_(api), times_(times) {}

Remote::~Remote() {
  quit_ = true;
  peer_->kill();  // which wakes the reader
  if (reader_.joinable()) reader_.join();
}

void Remote::listen(OnEvent on_event) {
  on_event_ = std::move(on_event);
  reader_ = std::thread([this] { read_loop(); });
  pthread_setname_np(reader_.native_handle(), "sluice-events");
}

// ---- calls ------------------------------------------------------------------------------------------------------

int32_t Remote::call(Call what, const Packer &arguments, Reply &reply, sluice_status *status,
                     std::chrono::milliseconds patience, size_t max_bytes) {
  const std::lock_guard lock(call_mutex_);
  return call_locked(what, arguments, reply, status, patience, max_bytes);
}

int32_t Remote::call(Call what, const Packer &arguments, sluice_status *status) {
  Reply reply;
  return call(what, arguments, reply, status, times_.call);
}

std::optional<int32_t> Remote::try_call(Call what, const Packer &arguments, sluice_status *status) {
  const std::unique_lock lock(call_mutex_, std::try_to_lock);
  if (!lock) return {};
  Reply reply;
  return call_locked(what, arguments, reply, status, times_.call, size_t{1} << 20);
}

int32_t Remote::call_locked(Call what, const Packer &arguments, Reply &reply, sluice_status *status,
                            std::chrono::milliseconds patience, size_t max_bytes) {
  if (const auto r = exchange(what, arguments, reply, patience, max_bytes); !r) return lost(r.error(), status);
  reply.results = Unpacker(reply.frame.payload());
  const auto code = reply.results.get<int32_t>();
  const auto flags = reply.results.get<uint32_t>();
  const std::string message = reply.results.text();
  if (!reply.results.ok()) return lost({Code::kInternal, "an answer without a status", {}}, status);
  if (code == SLUICE_OK) return code;
  return report(status, code, flags, message);
}

Result<> Remote::exchange(Call what, const Packer &arguments, Reply &reply, std::chrono::milliseconds patience,
                          size_t max_bytes) {
  const uint64_t call = next_call_++;
  {
    const std::lock_guard lock(reply_mutex_);
    reply_.reset();
    awaited_ = call;
    const std::lock_guard lost_lock(lost_mutex_);  // the reader may have ended, and told the call before this one
    if (lost_) return *lost_;
  }
  {
    const std::lock_guard lock(send_mutex_);
    if (auto r = peer_->link().send(static_cast<uint32_t>(what), call, arguments.bytes(), in(patience)); !r) return r;
  }
  auto frame = next_reply(what, call, patience, max_bytes);
  if (!frame) return frame.error();
  reply.frame = std::move(*frame);
  return {};
}

Result<Frame> Remote::next_reply(Call what, uint64_t call, std::chrono::milliseconds patience, size_t max_bytes) {
  if (on_event_) {  // the reader has the link
    std::unique_lock lock(reply_mutex_);
    if (!replied_.wait_for(lock, patience, [this] { return reply_.has_value(); }))
      return Error{Code::kTimeout, "the other process did not answer in time", {}};
    return std::move(*reply_);
  }
  auto deadline = in(patience);
  for (bool stopping = false;;) {
    auto frame = peer_->link().receive(deadline, std::max(max_bytes, kMaxSideBytes));
    if (!frame) return frame;
    if (frame->type == static_cast<uint32_t>(Say::kReply)) {
      if (frame->call != call) return Error{Code::kInternal, "an answer to a call that was not made", {}};
      return frame;
    }
    if (frame->type == static_cast<uint32_t>(Say::kProgress) && what == Call::kModelLoad && !stopping)
      deadline = in(patience);  // it is alive and says so
    on_message(*frame);
    if (stop_asked_ && !std::exchange(stopping, true)) deadline = std::min(deadline, in(times_.call));
    // However much it says by the way, that is no answer.
    if (std::chrono::steady_clock::now() >= deadline)
      return Error{Code::kTimeout, "the other process did not answer in time", {}};
  }
}

void Remote::post(Call what, const Packer &arguments) {
  {
    const std::lock_guard lock(lost_mutex_);
    if (lost_) return;
  }
  const std::lock_guard lock(send_mutex_);
  if (const auto r = peer_->link().send(static_cast<uint32_t>(what), 0, arguments.bytes(), in(times_.call)); !r)
    lost(r.error(), nullptr);
}

int32_t Remote::refuse(const std::string &what, sluice_status *status) {
  return lost({Code::kInternal, what, {}}, status);
}

int32_t Remote::lost(const Error &error, sluice_status *status) {
  std::string message;
  {
    const std::lock_guard lock(lost_mutex_);
    if (!lost_) {
      std::string ending = peer_->ending();
      for (int i = 0; i < 20 && ending.empty() && error.code == Code::kDeviceLost; ++i) {  // it is being reaped
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        ending = peer_->ending();
      }
      lost_ = Error{Code::kDeviceLost,
                    fmt::format("its process failed: {}{}", error.message, ending.empty() ? "" : "; it " + ending), {}};
      peer_->kill();
      if (!quit_) log::error(who_, "{}", lost_->message);
    }
    message = lost_->message;
  }
  return report(status, SLUICE_E_DEVICE_LOST, SLUICE_STF_POISONED, message);
}

void Remote::close(std::chrono::milliseconds patience) {
  Reply reply;
  sluice_status ignored{};
  {
    const std::lock_guard lock(lost_mutex_);
    if (lost_) return;
  }
  quit_ = true;
  if (call(Call::kClose, Packer(), reply, &ignored, patience) != SLUICE_OK) return;
  for (int i = 0; i < 200 && peer_->ending().empty(); ++i)  // it is about to exit by itself
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

// ---- what comes by itself ---------------------------------------------------------------------------------------

void Remote::read_loop() {
  const auto hand_over = [this](Result<Frame> frame) {
    const std::lock_guard lock(reply_mutex_);
    reply_ = std::move(frame);
    replied_.notify_all();
  };
  for (;;) {
    auto frame = peer_->link().receive(in(kReaderNap), kMaxEventBytes);
    if (!frame && frame.error().code == Code::kTimeout && !quit_) continue;
    if (!frame) {
      lost(frame.error(), nullptr);
      return hand_over(frame.error());
    }
    if (frame->type != static_cast<uint32_t>(Say::kReply)) {
      on_message(*frame);
      continue;
    }
    bool expected = false;
    {
      const std::lock_guard lock(reply_mutex_);
      expected = frame->call == awaited_ && !reply_;
    }
    if (expected) hand_over(std::move(*frame));
    else lost({Code::kInternal, "an answer to a call that was not made", {}}, nullptr);
  }
}

void Remote::on_message(const Frame &frame) {
  Unpacker reader(frame.payload());
  switch (static_cast<Say>(frame.type)) {
    case Say::kLog: {
      const auto level = reader.get<int32_t>();
      const std::string component = reader.text(), line = text::repair_utf8(reader.text());
      if (reader.ok() && api_ != nullptr && may_log()) api_->log(api_->host, level, component.c_str(), line.data(), line.size());
      break;
    }
    case Say::kMetric: {
      const auto id = reader.get<uint64_t>();
      const auto kind = reader.get<int32_t>();
      const std::string name = reader.text(), help = reader.text();
      uint64_t ours = 0;
      if (reader.ok() && api_ != nullptr && metrics_.size() < kMaxMetrics &&
          api_->metric(api_->host, kind, name.c_str(), help.c_str(), &ours) == SLUICE_OK)
        metrics_[id] = ours;
      break;
    }
    case Say::kMetricUpdate: {
      const auto at = metrics_.find(reader.get<uint64_t>());
      const auto value = reader.get<double>();
      if (reader.ok() && at != metrics_.end()) api_->metric_update(api_->host, at->second, value);
      break;
    }
    case Say::kProgress: {
      const std::string phase = text::repair_utf8(reader.text());
      const auto done = reader.get<uint64_t>(), total = reader.get<uint64_t>();
      if (reader.ok() && on_progress_ && on_progress_(phase, done, total)) {
        stop_asked_ = true;
        peer_->link().head().stop.store(1);
      }
      break;
    }
    case Say::kEvent: on_event(frame); break;
    default: reader.fail();
  }
  if (!reader.ok()) lost({Code::kInternal, fmt::format("a message of type {} that makes no sense", frame.type), {}}, nullptr);
}

/// A plugin must not fill the disk.
bool Remote::may_log() {
  const auto now = std::chrono::steady_clock::now();
  if (now - log_window_ > kLogWindow) log_window_ = now, logged_ = 0;
  if (++logged_ <= kMaxLogLines) return true;
  if (!std::exchange(too_loud_, true))
    log::warn(who_, "it logs more than {} lines in {} s; what is beyond that is dropped", kMaxLogLines, kLogWindow.count());
  return false;
}

void Remote::on_event(const Frame &frame) {
  if (!on_event_) return;
  Unpacker reader(frame.payload());
  sluice_engine_event event{};
  event.struct_size = SLUICE_SIZE_THROUGH(sluice_engine_event, cached_tokens);
  reader.value(event.n_tokens), reader.value(event.request_id), reader.value(event.finish), reader.value(event.code);
  reader.value(event.prompt_tokens), reader.value(event.output_tokens), reader.value(event.cached_tokens);
  reader.array(event.tokens, event.n_tokens), reader.array(event.logprobs, event.n_tokens);
  reader.value(event.text_bytes);
  reader.array(event.text, event.text_bytes);
  const std::string message = reader.text();
  event.message = message.empty() ? nullptr : message.c_str();
  if (!reader.ok()) return (void)lost({Code::kInternal, "an event that makes no sense", {}}, nullptr);
  const int32_t code = on_event_(event);
  if (code == SLUICE_OK || event.finish != SLUICE_FINISH_NO) return;
  Packer refused;
  refused.value(event.request_id), refused.value(code);
  post(Call::kEventRefused, refused);
}

}  // namespace sluice::isolation

#pragma once
#include <sluice/abi/host.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "core/isolation/messages.hpp"
#include "core/isolation/plugin_process.hpp"

namespace sluice::isolation {

/// How long calls may take. A child that is late is killed.
struct CallTimes {
  std::chrono::milliseconds call{30'000};
  std::chrono::milliseconds silence{300'000};  ///< of model_load and configure, between two signs of progress
};

/// An answer of the other process, after its status; nothing in it has been judged but that it is whole.
struct Reply {
  Frame frame;
  Unpacker results{{}};
};

/// Calls over a link, as functions of the ABI return: a code, and a status. Whatever goes wrong with the link itself
/// (death, silence, nonsense) kills the other process, and this and every later call returns DEVICE_LOST with the poison
/// flag, as a broken instance in this process would.
///
/// What the other side says by the way (logs, metrics) is passed on to the host services it was made with.
class Remote {
 public:
  /// api  of the instance; null = nothing is passed on
  Remote(std::string who, std::unique_ptr<Peer> peer, const sluice_host_api *api, CallTimes times);
  ~Remote();
  Remote(const Remote &) = delete;
  Remote &operator=(const Remote &) = delete;

  /// Sends one call and waits for its answer. [any]; calls wait for each other.
  /// max_bytes  of the results
  int32_t call(Call call, const Packer &arguments, Reply &reply, sluice_status *status,
               std::chrono::milliseconds patience, size_t max_bytes = size_t{1} << 20);
  int32_t call(Call what, const Packer &arguments, sluice_status *status);
  /// As call, but the caller may find another call under way: then it is not made. returns  the code, or nothing
  std::optional<int32_t> try_call(Call call, const Packer &arguments, sluice_status *status);
  /// Sends a call that has no answer. Errors show at the next one.
  void post(Call call, const Packer &arguments);
  /// The results were nonsense: as a broken link.
  int32_t refuse(const std::string &what, sluice_status *status);

  /// Called with the events of an engine, on a thread of its own that begins here. returns  the event's code
  using OnEvent = std::function<int32_t(const sluice_engine_event &)>;
  void listen(OnEvent on_event);
  /// Called from inside call(); true asks the other side to stop. For the time of one call.
  using OnProgress = std::function<bool(const std::string &phase, uint64_t done, uint64_t total)>;
  void set_progress(OnProgress on_progress) { on_progress_ = std::move(on_progress), stop_asked_ = false; }

  /// What the other side said of the plugin when it had loaded it.
  void set_hello(Reply hello) { hello_ = std::move(hello); }
  Reply take_hello() { return std::move(hello_); }

  /// Ends the other process: politely, if it answers within `patience`.
  void close(std::chrono::milliseconds patience);
  const CallTimes &times() const { return times_; }

 private:
  int32_t call_locked(Call call, const Packer &arguments, Reply &reply, sluice_status *status,
                      std::chrono::milliseconds patience, size_t max_bytes);
  Result<> exchange(Call call, const Packer &arguments, Reply &reply, std::chrono::milliseconds patience,
                    size_t max_bytes);
  Result<Frame> next_reply(Call what, uint64_t call, std::chrono::milliseconds patience, size_t max_bytes);
  void on_message(const Frame &frame);
  void on_event(const Frame &frame);
  bool may_log();
  int32_t lost(const Error &error, sluice_status *status);
  void read_loop();

  const std::string who_;
  const std::unique_ptr<Peer> peer_;
  const sluice_host_api *const api_;
  const CallTimes times_;

  std::mutex call_mutex_;  ///< one call at a time
  std::mutex send_mutex_;
  uint64_t next_call_ = 1;
  OnProgress on_progress_;
  bool stop_asked_ = false;  ///< by on_progress_
  Reply hello_;
  std::map<uint64_t, uint64_t> metrics_;  ///< the other side's id -> the host's
  std::chrono::steady_clock::time_point log_window_{};
  uint32_t logged_ = 0;           ///< lines since log_window_
  bool too_loud_ = false;         ///< said once

  OnEvent on_event_;  ///< set: the reader takes what comes
  std::thread reader_;
  std::mutex reply_mutex_;
  std::condition_variable replied_;
  std::optional<Result<Frame>> reply_;
  uint64_t awaited_ = 0;  ///< call whose answer is waited for
  std::atomic<bool> quit_{false};

  mutable std::mutex lost_mutex_;
  std::optional<Error> lost_;
};

/// Fills a status as a plugin would. returns  code
int32_t report(sluice_status *status, int32_t code, uint32_t flags, const std::string &message);

}  // namespace sluice::isolation

#pragma once
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "core/base/clock.hpp"
#include "core/engine/late_call.hpp"
#include "core/plugin/host.hpp"
#include "core/plugin/instances.hpp"
#include "core/request/generator.hpp"

namespace sluice::engine {

/// One model behind a plugin of the kind `engine`: requests go in whole, events come back from threads of the plugin.
///
/// Nothing in an event is trusted: a wrong one ends its request with an error and is counted. Stop tokens, the length
/// limit, deadlines and cancellation hold whatever the plugin does.
///
/// Once started, the plugin is called by one thread of ours only, so that a call that does not return holds up nobody but
/// this model: it is unhealthy until the call returns, and by twice the deadline its requests are ended.
class ForeignEngine final : public request::Generator, private plugin::EngineEventSink {
 public:
  struct Limits {
    uint32_t vocab_size = 0;  ///< of the tokenizer
    uint32_t max_context = 0; ///< tokens; 0 = what the engine says
    uint32_t max_live = 1024; ///< requests in flight
    std::chrono::milliseconds call_deadline{30'000};  ///< a call that takes longer is an overrun
  };

  /// [init] Opens the plugin. host and clock outlive the engine.
  /// path  of the model, as the configuration has it
  /// errors  those of the plugin; Unsupported: it takes no tokens
  static Result<std::unique_ptr<ForeignEngine>> open(const plugin::Library &library,
                                                     std::shared_ptr<const plugin::Options> options,
                                                     plugin::Host &host, const Clock &clock,
                                                     const std::string &model_name, const std::string &path);
  ~ForeignEngine() override;

  const sluice_engine_info &info() const { return info_; }
  /// The file with the tokenizer, where the engine names one. [init]
  std::string vocab_path() const;
  /// [init] Once, before the first request.
  void start(const Limits &limits);

  request::GeneratorLimits limits() const override;
  Result<> submit(std::shared_ptr<const request::Request> request) override;
  void cancel(uint64_t request_id, request::CancelCause cause) override;
  request::GeneratorStats stats() const override;
  void stop() override;
  bool stuck() const override;

 private:
  /// What the calling thread is to do: hand a request over, or cancel one.
  struct Job {
    std::shared_ptr<const request::Request> request;  ///< null: a cancel
    uint64_t request_id = 0;
    std::optional<Result<>> outcome;  ///< of a request, once the plugin has answered
    bool awaited = true;              ///< submit() waits for it still
  };
  struct Live {
    std::shared_ptr<const request::Request> request;
    uint32_t n_output = 0;  ///< tokens delivered
  };
  using LiveMap = std::unordered_map<uint64_t, Live>;

  ForeignEngine(std::string name, const Clock &clock, std::shared_ptr<const plugin::Options> options)
      : name_(std::move(name)), clock_(clock), options_(std::move(options)) {}
  int32_t on_engine_event(const sluice_engine_event &event) override;
  std::string wrong_with(const sluice_engine_event &event, const Live &live) const;
  int32_t deliver(LiveMap::iterator at, const sluice_engine_event &event);
  void end(LiveMap::iterator at, request::FinishReason reason, const Error *error);
  void end_all(request::FinishReason reason, const Error *error);
  void note_fault(const std::string &what);
  void watch();
  void expire(std::unique_lock<std::mutex> &lock);
  void check_health();
  void mark_damaged(const std::string &why);
  void cancel_in_plugin(uint64_t request_id);
  void make_calls();
  void generate(const std::shared_ptr<Job> &job);
  void look_for_late_call();

  const std::string name_;  ///< "engine echo", for messages
  const Clock &clock_;
  const std::shared_ptr<const plugin::Options> options_;  ///< for requests that set none of their own
  Limits limits_;
  sluice_engine_info info_{};
  std::unique_ptr<plugin::ForeignEngine> plugin_;  ///< after start(): of the calling thread, which closes it

  mutable std::mutex mutex_;  ///< never held while the plugin is called
  std::condition_variable changed_;
  LiveMap live_;
  std::deque<uint64_t> ended_by_plugin_;  ///< the latest, to know a second finish from a late event
  request::GeneratorStats stats_;
  bool stopping_ = false, closed_ = false;  ///< closed: the calling thread has left the plugin for good
  std::deque<std::shared_ptr<Job>> jobs_;
  std::condition_variable jobs_changed_, job_done_, closed_changed_;
  std::unique_ptr<LateCall> late_;
  std::string overrun_;    ///< empty = none
  bool gave_up_ = false;   ///< [watch]
  std::thread watch_, caller_;
};

}  // namespace sluice::engine

#include "core/engine/foreign_engine.hpp"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/base/log.hpp"
#include "core/text/utf8.hpp"

namespace sluice::engine {

using request::FinishReason;

namespace {

constexpr std::chrono::seconds kHealthPeriod{1};
constexpr std::chrono::milliseconds kAnswerPatience{50};  // of an I/O thread
constexpr std::chrono::milliseconds kStopPatience{8'000};
constexpr uint64_t kMaxEventTextBytes = 1 << 20;
constexpr size_t kMaxMessageBytes = 500;
constexpr size_t kEndedRemembered = 256;

Error error_of_event(const std::string &who, const sluice_engine_event &event) {
  const bool known = event.code > SLUICE_OK && event.code <= SLUICE_E_ABI;
  Error error{known ? static_cast<Code>(event.code) : Code::kInternal, who + " reported an error without a message", {}};
  if (event.message != nullptr)
    error.message = text::repair_utf8(std::string_view(event.message, strnlen(event.message, kMaxMessageBytes)));
  return error;
}

FinishReason reason_of(int32_t finish) {
  switch (finish) {
    case SLUICE_FINISH_STOP: return FinishReason::kStop;
    case SLUICE_FINISH_LENGTH: return FinishReason::kLength;
    case SLUICE_FINISH_CANCELLED: return FinishReason::kCancelled;
    case SLUICE_FINISH_ERROR: return FinishReason::kError;
    default: return FinishReason::kNone;
  }
}

}  // namespace

Result<std::unique_ptr<ForeignEngine>> ForeignEngine::open(const plugin::Library &library,
                                                           std::shared_ptr<const plugin::Options> options,
                                                           plugin::Host &host, const Clock &clock,
                                                           const std::string &model_name, const std::string &path) {
  std::unique_ptr<ForeignEngine> engine(new ForeignEngine(library.title(), clock, std::move(options)));
  const auto *api = host.api_for(model_name, library.title(), engine.get());
  auto opened = plugin::ForeignEngine::open(library, api, *engine->options_, path);
  if (!opened) return opened.error();
  engine->plugin_ = std::move(*opened);
  engine->info_ = engine->plugin_->info();
  if ((engine->info().inputs & SLUICE_INPUT_TOKENS) == 0)
    return Error{Code::kUnsupported,
                 fmt::format("{} takes no tokens (inputs is {:#x}); this version serves engines that do",
                             library.title(), engine->info().inputs), {}};
  return engine;
}

ForeignEngine::~ForeignEngine() { stop(); }

std::string ForeignEngine::vocab_path() const {
  const char *path = info().vocab_path;
  return path == nullptr ? std::string() : std::string(path, strnlen(path, 4096));
}

void ForeignEngine::start(const Limits &limits) {
  limits_ = limits;
  if (info().max_context != 0)
    limits_.max_context = limits.max_context == 0 ? info().max_context : std::min(limits.max_context, info().max_context);
  if (info().max_concurrent != 0) limits_.max_live = std::min(limits_.max_live, info().max_concurrent);
  late_ = std::make_unique<LateCall>(limits.call_deadline);
  caller_ = std::thread([this] { make_calls(); });
  pthread_setname_np(caller_.native_handle(), "sluice-calls");
  watch_ = std::thread([this] { watch(); });
  pthread_setname_np(watch_.native_handle(), "sluice-foreign");
}

request::GeneratorLimits ForeignEngine::limits() const {
  request::GeneratorLimits out;
  out.max_context = limits_.max_context;
  out.vocab_size = limits_.vocab_size;
  return out;
}

// ---- requests ---------------------------------------------------------------------------------------------------

Result<> ForeignEngine::submit(std::shared_ptr<const request::Request> request) {
  if (request->n_answers != 1) return invalid_argument("an engine plugin gives one answer per request", "n");
  if (request->n_top_logprobs > 0 || (request->want_logprobs && info().max_logprobs == 0))
    return invalid_argument(name_ + " gives no log-probabilities", "logprobs");
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return Error{Code::kUnavailable, "the model is stopping", {}};
    if (!stats_.healthy) return Error{Code::kUnavailable, "the model is down: " + stats_.trouble, {}};
    if (live_.size() >= limits_.max_live)
      return Error{Code::kResourceExhausted,
                   fmt::format("{} requests are running, at most {} are taken", live_.size(), limits_.max_live), {}};
    if (!overrun_.empty()) return Error{Code::kUnavailable, "the model does not answer: " + overrun_, {}};
    live_.emplace(request->id, Live{request});  // before the call: the first event may come from inside it
  }
  changed_.notify_one();  // there may be a new nearest deadline

  const auto job = std::make_shared<Job>();
  job->request = request;
  std::unique_lock lock(mutex_);
  jobs_.push_back(job);
  jobs_changed_.notify_one();
  // A refusal keeps its status when it comes at once, as it should; a later one becomes an error event.
  job_done_.wait_for(lock, kAnswerPatience, [&] { return job->outcome.has_value(); });
  job->awaited = false;
  if (!job->outcome || *job->outcome) return {};
  // Gone already: an event has ended it, so its channel has what it needs.
  return live_.erase(request->id) > 0 ? *job->outcome : Result<>{};
}

void ForeignEngine::cancel(uint64_t request_id, request::CancelCause) {
  {
    const std::lock_guard lock(mutex_);
    const auto at = live_.find(request_id);
    if (at == live_.end()) return;
    end(at, FinishReason::kCancelled, nullptr);
  }
  cancel_in_plugin(request_id);
}

void ForeignEngine::cancel_in_plugin(uint64_t request_id) {
  const auto job = std::make_shared<Job>();
  job->request_id = request_id;
  const std::lock_guard lock(mutex_);
  jobs_.push_back(job);
  jobs_changed_.notify_one();
}

request::GeneratorStats ForeignEngine::stats() const {
  const std::lock_guard lock(mutex_);
  auto out = stats_;
  out.running = static_cast<uint32_t>(live_.size());
  if (out.healthy && !overrun_.empty()) {
    out.healthy = false;
    out.trouble = overrun_;
  }
  if (!out.healthy) {
    out.culprit = name_;
    out.retry_after_s = std::max<uint32_t>(1, static_cast<uint32_t>(limits_.call_deadline.count() / 1000));
  }
  return out;
}

bool ForeignEngine::stuck() const {
  const std::lock_guard lock(mutex_);
  return stopping_ && late_ != nullptr && !closed_;
}

void ForeignEngine::stop() {
  std::vector<uint64_t> open;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto &[id, live] : live_) open.push_back(id);
    end_all(FinishReason::kCancelled, nullptr);
  }
  changed_.notify_all();
  for (const uint64_t id : open) cancel_in_plugin(id);
  jobs_changed_.notify_all();
  if (watch_.joinable()) watch_.join();
  if (!caller_.joinable()) return plugin_.reset();
  std::unique_lock lock(mutex_);
  if (closed_changed_.wait_for(lock, std::min(kStopPatience, 4 * limits_.call_deadline), [this] { return closed_; })) {
    lock.unlock();
    return caller_.join();
  }
  log::error(name_, "{} has not returned; its thread is left behind", plugin::title_of(late_->watch().look().site));
  caller_.detach();
}

// ---- calls ------------------------------------------------------------------------------------------------------

void ForeignEngine::make_calls() {
  plugin::CallWatch::use(&late_->watch());
  std::unique_lock lock(mutex_);
  auto next_health = std::chrono::steady_clock::now();
  while (!stopping_ || !jobs_.empty()) {
    if (jobs_.empty() && !jobs_changed_.wait_until(lock, next_health, [this] { return stopping_ || !jobs_.empty(); })) {
      next_health = std::chrono::steady_clock::now() + kHealthPeriod;
      lock.unlock();
      check_health();
      lock.lock();
    }
    if (jobs_.empty()) continue;
    const auto job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    if (job->request != nullptr) {
      generate(job);
    } else if (const auto r = plugin_->cancel(job->request_id);
               !r && r.error().code != Code::kNotFound && r.error().code != Code::kUnavailable) {
      log::warn(name_, "cancel: {}", r.error().message);  // NotFound: it has just ended
    }
    lock.lock();
  }
  lock.unlock();
  plugin_.reset();
  lock.lock();
  closed_ = true;
  closed_changed_.notify_all();
}

void ForeignEngine::generate(const std::shared_ptr<Job> &job) {
  const request::Request &request = *job->request;
  sluice_sample_spec spec{};
  spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  spec.flags = request.want_logprobs ? SLUICE_SPF_LOGPROB : 0;
  spec.temperature = 1, spec.top_p = 1, spec.repetition = 1;
  const auto own = request.sampler_options.empty() ? nullptr : request.sampler_options.front();
  sluice_engine_request out{};
  out.struct_size = SLUICE_SIZE_THROUGH(sluice_engine_request, request);
  out.input_kind = SLUICE_INPUT_TOKENS;
  out.request_id = request.id;
  out.prompt = request.prompt.data();
  out.n_prompt = static_cast<uint32_t>(request.prompt.size());
  out.max_new = request.max_new;
  out.seed = request.seed;
  out.deadline_ns = request.deadline_ns;
  out.spec = &spec;
  out.request = own ? own->handle() : options_->handle();

  const Result<> taken = plugin_->generate(out);
  const bool poisoned = plugin_->poisoned();
  const std::lock_guard lock(mutex_);
  if (!taken && (taken.error().code == Code::kInternal || taken.error().code == Code::kDeviceLost))
    note_fault(taken.error().message);
  if (poisoned) mark_damaged(taken ? "an earlier call" : taken.error().message);
  if (taken) stats_.prompt_tokens += request.prompt.size();
  job->outcome = taken;
  job_done_.notify_all();
  if (taken || job->awaited) return;
  const Error refused = taken.error();
  if (const auto at = live_.find(request.id); at != live_.end()) end(at, FinishReason::kError, &refused);
}

void ForeignEngine::check_health() {
  const Result<> health = plugin_->health();
  const bool poisoned = plugin_->poisoned();
  const std::lock_guard lock(mutex_);
  if (poisoned) return mark_damaged(health ? "an earlier call" : health.error().message);
  if (health && stats_.healthy) return;
  if (!health && stats_.trouble == health.error().message) return;
  stats_.healthy = static_cast<bool>(health);
  stats_.trouble = health ? std::string() : health.error().message;
  log::warn(name_, "{}", health ? "is healthy again" : stats_.trouble);  // what runs may still end well
}

void ForeignEngine::mark_damaged(const std::string &why) {
  if (stats_.damaged) return;
  stats_.healthy = false, stats_.damaged = true;
  stats_.trouble = why;
  log::error(name_, "{} (the instance is damaged)", why);
  const Error error{Code::kInternal, "the model's engine has failed", {}};
  end_all(FinishReason::kError, &error);
}

// ---- events -----------------------------------------------------------------------------------------------------

int32_t ForeignEngine::on_engine_event(const sluice_engine_event &event) {
  if (event.struct_size < SLUICE_SIZE_THROUGH(sluice_engine_event, cached_tokens)) return SLUICE_E_INVALID_ARGUMENT;
  const std::lock_guard lock(mutex_);
  const auto at = live_.find(event.request_id);
  if (at == live_.end()) {
    const bool twice = std::find(ended_by_plugin_.begin(), ended_by_plugin_.end(), event.request_id) != ended_by_plugin_.end();
    if (twice) note_fault(fmt::format("sent an event for request {} after its finish", event.request_id));
    return SLUICE_E_NOT_FOUND;
  }
  if (const std::string wrong = wrong_with(event, at->second); !wrong.empty()) {
    const Error error{Code::kInternal, "the engine plugin sent garbage: " + wrong, {}};
    note_fault(wrong);
    end(at, FinishReason::kError, &error);
    return SLUICE_E_CANCELLED;
  }
  if (at->second.request->events->closed()) {
    end(at, FinishReason::kCancelled, nullptr);
    return SLUICE_E_CANCELLED;
  }
  if (at->second.request->events->full()) {
    const Error error{Code::kResourceExhausted, "the client reads too slowly", {}};
    end(at, FinishReason::kError, &error);
    return SLUICE_E_CANCELLED;
  }
  return deliver(at, event);
}

std::string ForeignEngine::wrong_with(const sluice_engine_event &event, const Live &live) const {
  if (event.finish < SLUICE_FINISH_NO || event.finish > SLUICE_FINISH_ERROR)
    return fmt::format("finish is {}; it must be 0..{}", event.finish, SLUICE_FINISH_ERROR);
  if (event.n_tokens > 0 && event.tokens == nullptr) return fmt::format("n_tokens is {} and tokens is NULL", event.n_tokens);
  if (event.text_bytes > 0 && event.text == nullptr) return fmt::format("text_bytes is {} and text is NULL", event.text_bytes);
  if (event.n_tokens > 0 && event.text_bytes > 0) return "it holds tokens and text; only one is allowed";
  const uint32_t left = live.request->max_new - live.n_output;
  if (event.n_tokens > left) return fmt::format("n_tokens is {}; max_new leaves {}", event.n_tokens, left);
  for (uint32_t i = 0; i < event.n_tokens; ++i) {
    if (event.tokens[i] < 0 || static_cast<uint32_t>(event.tokens[i]) >= limits_.vocab_size)
      return fmt::format("tokens[{}] is {}; the vocabulary has {}", i, event.tokens[i], limits_.vocab_size);
    if (live.request->want_logprobs && (event.logprobs == nullptr || !(event.logprobs[i] <= 0)))
      return fmt::format("logprobs[{}] is missing or not <= 0", i);
  }
  if (event.text_bytes > kMaxEventTextBytes) return fmt::format("text_bytes is {}; at most {} go at once", event.text_bytes, kMaxEventTextBytes);
  if (event.text_bytes > 0 && !text::is_utf8(std::string_view(event.text, event.text_bytes)))
    return "text is not UTF-8 in whole characters";
  if (event.cached_tokens > live.request->prompt.size())
    return fmt::format("cached_tokens is {}; the prompt has {}", event.cached_tokens, live.request->prompt.size());
  return {};
}

int32_t ForeignEngine::deliver(LiveMap::iterator at, const sluice_engine_event &event) {
  Live &live = at->second;
  const request::Request &request = *live.request;
  std::vector<request::Event> out;
  FinishReason reason = reason_of(event.finish);
  for (uint32_t i = 0; i < event.n_tokens; ++i) {
    request::Event &one = out.emplace_back();
    one.token = event.tokens[i];
    if (request.want_logprobs) one.logprob = event.logprobs[i];
    ++live.n_output, ++stats_.output_tokens;
    const auto &stops = request.stop_tokens;
    if (std::find(stops.begin(), stops.end(), one.token) == stops.end()) continue;
    reason = FinishReason::kStop;  // what came behind it in this event does not exist
    break;
  }
  if (event.text_bytes > 0) out.emplace_back().text = std::make_shared<const std::string>(event.text, event.text_bytes);
  if (reason == FinishReason::kNone && live.n_output == request.max_new) reason = FinishReason::kLength;
  if (reason != FinishReason::kNone) {
    if (out.empty()) out.emplace_back();
    request::Event &last = out.back();
    last.finish = reason;
    last.cached_tokens = event.cached_tokens;
    if (reason == FinishReason::kError)
      last.error = std::make_shared<const Error>(error_of_event(name_, event));
  }
  const auto channel = request.events;
  if (reason != FinishReason::kNone) live_.erase(at);
  channel->push_many(out.data(), out.size());
  if (event.finish != SLUICE_FINISH_NO) {
    ended_by_plugin_.push_back(event.request_id);
    if (ended_by_plugin_.size() > kEndedRemembered) ended_by_plugin_.pop_front();
    return SLUICE_OK;
  }
  return reason == FinishReason::kNone ? SLUICE_OK : SLUICE_E_CANCELLED;
}

void ForeignEngine::end(LiveMap::iterator at, FinishReason reason, const Error *error) {
  request::Event event;
  event.finish = reason;
  if (error != nullptr) event.error = std::make_shared<const Error>(*error);
  const auto channel = at->second.request->events;
  live_.erase(at);
  channel->push(std::move(event));
}

void ForeignEngine::end_all(FinishReason reason, const Error *error) {
  while (!live_.empty()) end(live_.begin(), reason, error);
}

void ForeignEngine::note_fault(const std::string &what) {
  ++stats_.plugin_errors;
  log::warn(name_, "{}", what);
}

// ---- the watch --------------------------------------------------------------------------------------------------

/// Deadlines and late calls; a plugin that forgets a request does not keep its client waiting.
void ForeignEngine::watch() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    expire(lock);
    look_for_late_call();
    uint64_t nearest_ns = 0;
    for (const auto &[id, live] : live_) {
      const uint64_t at_ns = live.request->deadline_ns;
      if (at_ns != 0 && (nearest_ns == 0 || at_ns < nearest_ns)) nearest_ns = at_ns;
    }
    const uint64_t now_ns = clock_.now_ns();
    auto pause = std::chrono::nanoseconds(late_->period());
    if (nearest_ns != 0) pause = std::min(pause, std::chrono::nanoseconds(nearest_ns > now_ns ? nearest_ns - now_ns : 0));
    if (!stopping_) changed_.wait_for(lock, pause);
  }
}

void ForeignEngine::look_for_late_call() {
  const auto late = late_->look();
  if (!late) {
    if (!overrun_.empty()) log::warn(name_, "{}: it has returned, and the model goes on", overrun_);
    overrun_.clear();
    gave_up_ = false;
    return;
  }
  if (overrun_.empty()) {
    overrun_ = fmt::format("{} takes longer than {} ms", late->what, late_->deadline().count());
    ++stats_.plugin_overruns;
    log::error(name_, "{} (so far {} ms); the model is not ready until it returns", overrun_, late->so_far.count());
  }
  if (gave_up_ || late->so_far < 2 * late_->deadline()) return;
  gave_up_ = true;
  log::error(name_, "{} has not returned after {} ms; what runs is ended", late->what, late->so_far.count());
  const Error error{Code::kTimeout, "the model's engine does not answer", {}};
  end_all(FinishReason::kError, &error);
}

void ForeignEngine::expire(std::unique_lock<std::mutex> &lock) {
  const uint64_t now_ns = clock_.now_ns();
  std::vector<uint64_t> late;
  for (const auto &[id, live] : live_)
    if (live.request->deadline_ns != 0 && live.request->deadline_ns <= now_ns) late.push_back(id);
  for (const uint64_t id : late) end(live_.find(id), FinishReason::kCancelled, nullptr);
  lock.unlock();
  for (const uint64_t id : late) cancel_in_plugin(id);
  lock.lock();
}

}  // namespace sluice::engine

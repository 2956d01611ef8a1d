#include "core/lifecycle/service.hpp"

#include <algorithm>

#include "core/base/log.hpp"
#include "core/lifecycle/generation.hpp"

namespace sluice::lifecycle {
namespace {
constexpr uint32_t kRetryAfterFull_s = 1, kRetryAfterLoading_s = 5, kRetryAfterDrain_s = 10;
constexpr std::chrono::milliseconds kCancelPatience{2000};
}  // namespace

Service::Service(ServiceOptions options, std::shared_ptr<const Clock> clock)
    : options_(options), clock_(std::move(clock)), workers_(options.worker_threads) {}
Service::~Service() = default;

Result<> Service::add(std::shared_ptr<ServedModel> model) {
  std::vector<std::string> names = model->aliases;
  names.push_back(model->name);
  for (const auto &name : names) {
    if (name.empty()) return invalid_argument("a served model has an empty name", "models");
    if (find(name) != nullptr) return invalid_argument("two models are named '" + name + "'; rename one", "models");
  }
  models_.push_back(std::move(model));
  return {};
}

std::shared_ptr<ServedModel> Service::find(std::string_view name) const {
  for (const auto &model : models_) {
    if (model->name == name) return model;
    if (std::find(model->aliases.begin(), model->aliases.end(), name) != model->aliases.end()) return model;
  }
  return nullptr;
}

boost::system::result<std::shared_ptr<ServedModel>, Failure> Service::find_ready(std::string_view name) const {
  if (draining()) return Failure{FailureKind::kShuttingDown, "the server is shutting down", "", kRetryAfterDrain_s};
  auto model = name.empty() && !models_.empty() ? models_.front() : find(name);
  if (model == nullptr && options_.any_model_name && !models_.empty()) model = models_.front();
  if (model == nullptr) {
    std::string known;
    for (const auto &m : models_) known += (known.empty() ? "" : ", ") + m->name;
    return Failure{FailureKind::kModelNotFound,
                   "the model '" + std::string(name.substr(0, 128)) + "' does not exist; this server has: " + known, "model", {}};
  }
  if (model->state.phase() == ModelState::Phase::kLoading) {
    const auto progress = model->state.progress();
    return Failure{FailureKind::kModelLoading, "the model '" + model->name + "' is still loading: " + progress.what, "model",
                   kRetryAfterLoading_s};
  }
  const bool complete = model->generator != nullptr && model->tokenizer != nullptr;
  if (model->state.phase() == ModelState::Phase::kFailed || !complete) {
    return Failure{FailureKind::kModelFailed, "the model '" + model->name + "' is not available; the server's log says why",
                   "model", {}};
  }
  if (const auto stats = model->generator->stats(); !stats.healthy) {
    return Failure{FailureKind::kModelFailed,
                   "the model '" + model->name + "' is down after a fault in one of its plugins; " +
                       (stats.retry_after_s ? "it is expected back" : "an operator must look after it"),
                   "model", stats.retry_after_s};
  }
  return model;
}

std::optional<Failure> Service::reserve(uint32_t n_answers) {
  if (draining()) return Failure{FailureKind::kShuttingDown, "the server is shutting down", "", kRetryAfterDrain_s};
  uint32_t now = inflight_.load(std::memory_order_relaxed);
  do {
    if (n_answers > options_.max_inflight || now > options_.max_inflight - n_answers) {
      return Failure{FailureKind::kQueueFull,
                     "the server is at its limit of " + std::to_string(options_.max_inflight) + " answers in flight", "",
                     kRetryAfterFull_s};
    }
  } while (!inflight_.compare_exchange_weak(now, now + n_answers, std::memory_order_relaxed));
  return {};
}

void Service::release(uint32_t n_answers) { inflight_.fetch_sub(n_answers, std::memory_order_relaxed); }

void Service::enter(const std::shared_ptr<Generation> &generation) {
  const std::lock_guard lock(mutex_);
  generations_.insert(generation);
  ++n_generations_;
}

void Service::leave(Generation &generation) {
  {
    const std::lock_guard lock(mutex_);
    generations_.erase(generation.weak_from_this());
    --n_generations_;
  }
  changed_.notify_all();
}

bool Service::wait_until_empty(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [this] { return n_generations_ == 0 || hurried_; });
  return n_generations_ == 0;
}

void Service::hurry() {
  {
    const std::lock_guard lock(mutex_);
    hurried_ = true;
  }
  changed_.notify_all();
}

bool Service::drain(std::chrono::milliseconds patience) {
  begin_drain();
  if (wait_until_empty(patience)) return true;
  std::vector<std::shared_ptr<Generation>> open;
  {
    const std::lock_guard lock(mutex_);
    for (const auto &weak : generations_) {
      if (auto generation = weak.lock()) open.push_back(std::move(generation));
    }
    hurried_ = false;
  }
  log::warn("service", "{} requests did not finish within {} ms and are cancelled", open.size(), patience.count());
  // Handed over with the post, so that a generation ends on its own thread.
  for (auto &generation : open) Generation::cancel_from_any_thread(std::move(generation), request::CancelCause::kDrain);
  open.clear();
  wait_until_empty(kCancelPatience);
  return false;
}

}  // namespace sluice::lifecycle

#include "core/sim/simulation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace sluice::sim {
namespace {

using engine::EngineCore;
using engine::StepOutcome;

constexpr uint32_t kMoments = 400;
constexpr uint32_t kProgressSteps = 4096;
constexpr uint64_t kMostIdleSteps = 1'000'000;

engine::EngineLimits limits_of(const Setup &setup) {
  engine::EngineLimits limits;
  limits.max_seqs = setup.engine.max_seqs;
  limits.token_budget = setup.engine.token_budget;
  limits.max_live = std::min(setup.engine.max_live, std::max(setup.requests, setup.engine.max_seqs));
  limits.waiting_window = setup.engine.waiting_window;
  limits.max_context = kv_blocks(setup) * setup.device.block_size;
  limits.vocab_size = SimulatedModel::kVocab;
  limits.block_size = setup.device.block_size;
  limits.kv_blocks = kv_blocks(setup);
  limits.watermark_blocks = watermark_blocks(setup);
  limits.host_blocks = host_blocks(setup);
  limits.bytes_per_block = setup.device.bytes_per_token * setup.device.block_size;
  const auto bytes_per_s = static_cast<double>(setup.device.transfer_bytes_per_s);
  limits.swap_rates = {bytes_per_s, bytes_per_s};
  limits.prefix_cache = setup.engine.prefix_cache;
  return limits;
}

class Simulation {
 public:
  Simulation(const Setup &setup, const StepModel &steps, const std::vector<Arrival> &arrivals, VirtualClock &clock,
             const Progress &progress)
      : setup_(setup), arrivals_(arrivals), clock_(clock), progress_(progress), device_(setup, steps, clock) {
    clock_.restart();
    out_.served.resize(arrivals.size());
    received_.resize(arrivals.size());
    channels_.resize(arrivals.size());
    device_.start(arrivals_, out_.served);
    const uint64_t last = arrivals.empty() ? 0 : arrivals.back().at_ns;
    moment_every_ns_ = std::max<uint64_t>(1, last / kMoments);
  }

  Result<Outcome> run(const Plugins &plugins) {
    const auto limits = limits_of(setup_);
    engine::EngineParts parts;
    parts.host = plugins.host;
    parts.clock = &clock_;
    parts.backend_name = "simulated";
    parts.backend = simulated_backend();
    parts.model = handle(device_);
    parts.scheduler_name = plugins.scheduler_name;
    parts.scheduler = plugins.scheduler;
    parts.scheduler_options = plugins.scheduler_options;
    parts.decoder_name = "plain";
    parts.decoder = plugins.decoder;
    parts.decoder_instance = plugins.decoder_instance;
    auto core = EngineCore::create(std::move(parts), limits);
    if (!core) return core.error();
    core_ = std::move(*core);
    if (auto r = loop(); !r) return r.error();
    if (auto r = check_ledger(); !r) return r.error();
    if (auto r = settle(); !r) return r.error();
    return std::move(out_);
  }

 private:
  Result<> loop() {
    uint64_t n_steps = 0;
    uint64_t idle = 0;
    while (next_ < arrivals_.size() || core_->live() > 0) {
      if (auto r = admit(); !r) return r;
      const auto outcome = core_->step(std::numeric_limits<uint64_t>::max());
      ++n_steps;
      if (auto r = read_channels(); !r) return r;
      look_around();
      if (setup_.audit_every != 0 && n_steps % setup_.audit_every == 0)
        if (auto r = check_ledger(); !r) return r;
      if (n_steps % kProgressSteps == 0 && progress_) progress_(n_finished_);
      const uint64_t before = clock_.now_ns();
      if (outcome == StepOutcome::kIdle) pass_time();  // else it waited, for a step or a transfer
      idle = outcome == StepOutcome::kIdle && clock_.now_ns() == before ? idle + 1 : 0;
      if (idle > kMostIdleSteps)
        return Error{Code::kInternal,
                     fmt::format("nothing moves at {:.3f} s with {} requests in the engine: the policy plans no step",
                                 static_cast<double>(clock_.now_ns()) * 1e-9, core_->live()), {}};
    }
    return {};
  }

  /// Whoever has arrived enters, as far as the engine takes them; the rest wait outside in order.
  Result<> admit() {
    while (next_ < arrivals_.size() && arrivals_[next_].at_ns <= clock_.now_ns()) {
      if (core_->live() >= core_->limits().max_live) {
        while (arrived_ < arrivals_.size() && arrivals_[arrived_].at_ns <= clock_.now_ns()) ++arrived_;
        out_.most_held_back = std::max(out_.most_held_back, arrived_ - next_);
        return {};
      }
      auto entered = core_->submit(request_of(next_));
      if (!entered && entered.error().code == Code::kResourceExhausted) return {};  // a place frees with the next plan
      if (!entered) return entered.error();
      ++next_;
    }
    return {};
  }

  std::shared_ptr<const request::Request> request_of(uint32_t index) {
    const auto &arrival = arrivals_[index];
    auto request = std::make_shared<request::Request>();
    request->id = index + 1;
    // Nobody shares a prefix: the first block differs, so all do.
    request->prompt.assign(arrival.input, SimulatedModel::kToken);
    request->prompt.front() = static_cast<int32_t>(index % SimulatedModel::kVocab);
    const uint32_t longest = setup_.lengths.max_total != 0 ? setup_.lengths.max_total : core_->limits().max_context;
    request->max_new = longest - arrival.input;  // all that is known of the answer's length
    request->stop_tokens = {SimulatedModel::kEndToken};
    request->arrival_ns = std::max<uint64_t>(1, arrival.at_ns);
    request->events = channels_[index] =
        std::make_shared<request::EventChannel>(nullptr, std::numeric_limits<size_t>::max());
    return request;
  }

  /// To the next arrival, the end of a transfer or the time that the policy asked for.
  void pass_time() {
    uint64_t next = std::numeric_limits<uint64_t>::max();
    const auto or_at = [&](uint64_t ns) {
      if (ns > clock_.now_ns()) next = std::min(next, ns);
    };
    if (next_ < arrivals_.size()) or_at(arrivals_[next_].at_ns);
    or_at(device_.next_transfer_end_ns());
    or_at(core_->wake_at_ns());
    if (next != std::numeric_limits<uint64_t>::max()) clock_.move_to(next);
  }

  void look_around() {
    if (clock_.now_ns() < next_moment_ns_) return;
    next_moment_ns_ = clock_.now_ns() + moment_every_ns_;
    const auto stats = core_->stats();
    while (arrived_ < arrivals_.size() && arrivals_[arrived_].at_ns <= clock_.now_ns()) ++arrived_;
    out_.moments.push_back({static_cast<double>(clock_.now_ns()) * 1e-9, stats.running,
                            stats.waiting + (arrived_ - std::min(arrived_, next_)),
                            static_cast<double>(stats.kv_blocks_used) / static_cast<double>(stats.kv_blocks_total)});
  }

  Result<> check_ledger() const {
    const std::string wrong = core_->audit();
    if (wrong.empty()) return {};
    return Error{Code::kInternal,
                 fmt::format("the ledger is wrong at {:.3f} s: {}", static_cast<double>(clock_.now_ns()) * 1e-9, wrong), {}};
  }

  /// As a client would: takes what has come, which must be as many events as tokens, and one end.
  Result<> read_channels() {
    for (const uint32_t i : device_.to_read()) {
      channels_[i]->drain(events_);
      received_[i] += static_cast<uint32_t>(events_.size());
      const auto finish = events_.empty() ? request::FinishReason::kNone : events_.back().finish;
      const bool is_done = out_.served[i].finish_ns != 0;
      const bool whole = received_[i] == out_.served[i].tokens && (!is_done || received_[i] == arrivals_[i].output) &&
                         finish == (is_done ? request::FinishReason::kStop : request::FinishReason::kNone);
      if (!whole)
        return Error{Code::kInternal,
                     fmt::format("request {} received {} of {} tokens{}", i, received_[i], arrivals_[i].output,
                                 !events_.empty() && events_.back().error ? ": " + events_.back().error->message : ""), {}};
      if (!is_done) continue;
      channels_[i].reset();
      ++n_finished_;
    }
    device_.to_read().clear();
    return {};
  }

  Result<> settle() {
    if (n_finished_ != arrivals_.size())
      return Error{Code::kInternal, fmt::format("{} of {} requests finished; the engine lost the others: {}",
                                                n_finished_, arrivals_.size(), core_->stats().trouble), {}};
    out_.hash = 0xcbf29ce484222325;  // FNV-1a
    for (const auto &served : out_.served)
      for (int byte = 0; byte < 8; ++byte)
        out_.hash = (out_.hash ^ (served.finish_ns >> 8 * byte & 0xff)) * 0x100000001b3;
    out_.stats = core_->stats();
    out_.end_ns = clock_.now_ns();
    out_.busy_ns = device_.busy_ns();
    out_.computed_tokens = device_.computed_tokens();
    out_.swapped_out_blocks = device_.swapped_out_blocks();
    out_.swapped_in_blocks = device_.swapped_in_blocks();
    return {};
  }

  const Setup &setup_;
  const std::vector<Arrival> &arrivals_;
  VirtualClock &clock_;
  const Progress &progress_;
  SimulatedModel device_;
  std::unique_ptr<EngineCore> core_;
  std::vector<std::shared_ptr<request::EventChannel>> channels_;
  std::vector<request::Event> events_;
  std::vector<uint32_t> received_;  ///< by request
  uint32_t n_finished_ = 0;
  uint32_t next_ = 0;     ///< the first that has not entered
  uint32_t arrived_ = 0;  ///< the first that has not arrived, as of the last look
  uint64_t moment_every_ns_ = 1, next_moment_ns_ = 0;
  Outcome out_;
};

}  // namespace

Result<Outcome> simulate(const Setup &setup, const Plugins &plugins, const StepModel &steps,
                         const std::vector<Arrival> &arrivals, VirtualClock &clock, const Progress &progress) {
  return Simulation(setup, steps, arrivals, clock, progress).run(plugins);
}

}  // namespace sluice::sim

#include "tests/core/lifecycle/fake_generator.hpp"

#include <algorithm>

#include "tests/core/lifecycle/tiny_tokenizer.hpp"

namespace sluice::test {

using request::Event;
using request::FinishReason;

FakeGenerator::FakeGenerator() {
  limits_ = {4096, 0, static_cast<uint32_t>(kVocabSize), 20};
  token_of = [](const request::Request &, uint32_t i) { return byte_token(static_cast<char>('a' + i % 26)); };
}

Result<> FakeGenerator::submit(std::shared_ptr<const request::Request> request) {
  const std::lock_guard lock(mutex_);
  if (refuse_) return *refuse_;
  const uint64_t id = request->id;
  submitted_.push_back(request);
  active_[id] = {std::move(request), 0, false};
  return {};
}

void FakeGenerator::cancel(uint64_t request_id, request::CancelCause cause) {
  const std::lock_guard lock(mutex_);
  cancelled_.emplace_back(request_id, cause);
  if (const auto it = active_.find(request_id); it != active_.end()) it->second.cancelled = true;
}

request::GeneratorStats FakeGenerator::stats() const {
  request::GeneratorStats stats;
  stats.running = static_cast<uint32_t>(open());
  return stats;
}

void FakeGenerator::step() {
  const std::lock_guard lock(mutex_);
  const auto fail = std::exchange(fail_, {});
  for (auto it = active_.begin(); it != active_.end();) {
    auto &[id, a] = *it;
    const auto &request = *a.request;
    auto &channel = *request.events;
    Event event;
    bool ended = true;
    if (fail) {
      event.finish = FinishReason::kError;
      event.error = std::make_shared<const Error>(*fail);
    } else if (a.cancelled || channel.closed()) {
      event.finish = FinishReason::kCancelled;
    } else if (channel.full()) {
      ++it;
      continue;
    } else {
      event.token = token_of(request, a.produced++);
      if (request.want_logprobs) {
        event.logprob = -0.5f;
        auto top = std::make_shared<std::vector<request::TokenLogprob>>();
        for (uint32_t k = 0; k < request.n_top_logprobs; ++k) top->push_back({event.token + static_cast<int32_t>(k), -0.5f - static_cast<float>(k)});
        if (request.n_top_logprobs > 0) event.top = std::move(top);
      }
      const auto &ends = request.stop_tokens;
      if (std::find(ends.begin(), ends.end(), event.token) != ends.end()) {
        event.finish = FinishReason::kStop;
      } else if (a.produced == request.max_new) {
        event.finish = FinishReason::kLength;
      } else {
        ended = false;
      }
    }
    channel.push(std::move(event));
    it = ended ? active_.erase(it) : std::next(it);
  }
}

void FakeGenerator::steps(int n) {
  for (int i = 0; i < n; ++i) step();
}

void FakeGenerator::run(std::chrono::microseconds pause) {
  thread_ = std::thread([this, pause] {
    while (!stopping_.load()) {
      step();
      std::this_thread::sleep_for(pause);
    }
  });
}

void FakeGenerator::stop() {
  stopping_.store(true);
  if (thread_.joinable()) thread_.join();
  const std::lock_guard lock(mutex_);
  for (auto &[id, a] : active_) {
    Event event;
    event.finish = FinishReason::kCancelled;
    a.request->events->push(std::move(event));
  }
  active_.clear();
}

void FakeGenerator::refuse_with(std::optional<Error> error) {
  const std::lock_guard lock(mutex_);
  refuse_ = std::move(error);
}

void FakeGenerator::fail_next_step(Error error) {
  const std::lock_guard lock(mutex_);
  fail_ = std::move(error);
}

size_t FakeGenerator::open() const {
  const std::lock_guard lock(mutex_);
  return active_.size();
}

std::vector<std::shared_ptr<const request::Request>> FakeGenerator::submitted() const {
  const std::lock_guard lock(mutex_);
  return submitted_;
}

std::vector<std::pair<uint64_t, request::CancelCause>> FakeGenerator::cancelled() const {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

bool FakeGenerator::wait_open(size_t n, std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (open() != n) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace sluice::test

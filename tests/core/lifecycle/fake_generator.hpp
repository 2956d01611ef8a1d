#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "core/request/generator.hpp"

namespace sluice::test {

/// A generator that a test steps by hand, or that steps itself on a thread. Tokens come from a function of the request
/// and the place in the answer; the default spells the alphabet.
class FakeGenerator final : public request::Generator {
 public:
  FakeGenerator();
  ~FakeGenerator() override { stop(); }

  request::GeneratorLimits limits() const override { return limits_; }
  Result<> submit(std::shared_ptr<const request::Request> request) override;
  void cancel(uint64_t request_id, request::CancelCause cause) override;
  request::GeneratorStats stats() const override;
  void stop() override;

  // ---- for tests, before use
  request::GeneratorLimits limits_;
  std::function<int32_t(const request::Request &, uint32_t)> token_of;

  // ---- for tests, any thread
  void step();                           ///< one token for every open answer
  void steps(int n);
  void run(std::chrono::microseconds pause);  ///< steps until stop()
  void refuse_with(std::optional<Error> error);
  void fail_next_step(Error error);      ///< ends every open answer with it
  size_t open() const;                   ///< answers that still take steps; a cancelled one leaves at the next step
  std::vector<std::shared_ptr<const request::Request>> submitted() const;
  std::vector<std::pair<uint64_t, request::CancelCause>> cancelled() const;
  bool wait_open(size_t n, std::chrono::milliseconds patience = std::chrono::seconds(5));

 private:
  struct Active {
    std::shared_ptr<const request::Request> request;
    uint32_t produced = 0;
    bool cancelled = false;
  };
  mutable std::mutex mutex_;
  std::map<uint64_t, Active> active_;
  std::vector<std::shared_ptr<const request::Request>> submitted_;
  std::vector<std::pair<uint64_t, request::CancelCause>> cancelled_;
  std::optional<Error> refuse_, fail_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace sluice::test

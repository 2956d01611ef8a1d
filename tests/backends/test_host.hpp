// A host small enough for a test: a worker pool, a clock, options from a map.
#pragma once
#include <sluice/abi/host.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace sluice::test {

/// Runs numbered tasks on n threads, the caller being one of them. Workers spin briefly, then sleep.
class Pool {
 public:
  using Task = void (*)(void *, uint32_t, uint32_t);
  explicit Pool(uint32_t workers);
  ~Pool();
  void run(uint32_t n, Task task, void *ctx);
  uint32_t workers() const { return static_cast<uint32_t>(threads_.size()) + 1; }

 private:
  void work(uint32_t worker);
  void drain(uint32_t worker);

  std::vector<std::thread> threads_;
  std::atomic<uint32_t> generation_{0}, next_{0}, busy_{0};
  std::atomic<bool> stop_{false};
  uint32_t n_ = 0;
  Task task_ = nullptr;
  void *ctx_ = nullptr;
};

/// Always: api.host points at this object, so it neither moves nor is copied.
class Host {
 public:
  explicit Host(uint32_t workers);
  Host(const Host &) = delete;
  Host &operator=(const Host &) = delete;
  sluice_host_api api{};
  Pool pool;
};

/// Option values by key; what is missing is NOT_FOUND. handle() is what a plugin takes.
struct Options {
  std::map<std::string, std::string> text;
  std::map<std::string, int64_t> numbers;
  std::map<std::string, bool> flags;
  const sluice_config *handle() const { return reinterpret_cast<const sluice_config *>(this); }
};

}  // namespace sluice::test

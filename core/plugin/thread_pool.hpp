#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace sluice::plugin {

/// The process's one pool for data-parallel work. The caller takes part; helpers spin for a moment after a job, since
/// the next one of the same step is microseconds away, and then sleep.
///
/// One job at a time: a second caller waits its turn, and then has all cores.
class ThreadPool {
 public:
  using Work = void (*)(void *ctx, uint32_t i, uint32_t worker);

  /// The helpers start with the first job, so that plugins can be loaded while the process has one thread.
  /// n_workers  with the caller; 0 = available_cpus()
  explicit ThreadPool(uint32_t n_workers = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  uint32_t n_workers() const { return n_workers_; }

  /// Calls work(ctx, i, worker) for every i below n and returns when all have returned; the caller is worker 0. Called
  /// from inside work it runs inline, as the same worker. work must not throw. [any]
  void run(uint32_t n, Work work, void *ctx);

 private:
  struct Job {
    Work work = nullptr;
    void *ctx = nullptr;
    uint32_t n = 0;
  };
  void start_helpers();
  void help(uint32_t worker);
  void take_items(uint32_t worker);

  const uint32_t n_workers_;
  std::mutex turn_;
  Job job_;  // stable while open_ is a job's number or active_ > 0
  alignas(64) std::atomic<uint32_t> next_{0};      // item to be taken
  alignas(64) std::atomic<uint32_t> announced_{0}; // number of the latest job; helpers sleep on it
  std::atomic<uint32_t> open_{0};                  // the job that may be joined, 0 = none
  alignas(64) std::atomic<uint32_t> active_{0};    // helpers that have joined, or are about to find it closed
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> helpers_;  // empty before the first job
};

/// CPUs that this process may use: its affinity, and no more than its control group's quota pays for. At least 1.
uint32_t available_cpus();

}  // namespace sluice::plugin

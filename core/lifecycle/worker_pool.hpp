#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace sluice::lifecycle {

/// A few threads for work too long for an I/O thread: templates and tokenising of large prompts. [any]
class WorkerPool {
 public:
  explicit WorkerPool(uint32_t n_threads);
  ~WorkerPool();  ///< finishes what runs, drops what waits, joins
  void run(std::function<void()> work);

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace sluice::lifecycle

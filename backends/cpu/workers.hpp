#pragma once
#include <sluice/abi/host.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace sluice::cpu {

/// The host's one pool, as loops. Which worker runs a task never changes a result. [init] [engine]
class Workers {
 public:
  explicit Workers(const sluice_host_api &host) : host_(host), count_(host.n_workers(host.host)) {}
  uint32_t count() const { return count_; }

  /// f(task, worker) for every task below n; inline when there is one.
  template <class F>
  void each(uint32_t n, F &&f) const {
    if (n == 1) return f(0u, 0u);
    host_.parallel_for(
        host_.host, n,
        [](void *ctx, uint32_t i, uint32_t worker) { (*static_cast<std::remove_reference_t<F> *>(ctx))(i, worker); },
        &f);
  }

  /// f(row) for every row below n, a few rows to a task: one row alone is not worth waking a worker.
  template <class F>
  void rows(uint32_t n, F &&f) const {
    const uint32_t per_task = std::max(kMinRowsPerTask, (n + tasks() - 1) / tasks());
    each((n + per_task - 1) / per_task, [&](uint32_t task, uint32_t) {
      for (uint64_t r = task * per_task; r < std::min(n, (task + 1) * per_task); ++r) f(r);
    });
  }

  /// f(begin, end, worker) over n tiles of a weight, in runs short enough to even out a disturbed worker.
  template <class F>
  void tiles(uint32_t n, F &&f) const {
    const uint32_t per_task = std::clamp(n / tasks(), 1u, kMaxTilesPerTask);
    each((n + per_task - 1) / per_task,
         [&](uint32_t task, uint32_t worker) { f(task * per_task, std::min(n, (task + 1) * per_task), worker); });
  }

 private:
  static constexpr uint32_t kTasksPerWorker = 16;
  static constexpr uint32_t kMinRowsPerTask = 4;
  static constexpr uint32_t kMaxTilesPerTask = 16;
  uint32_t tasks() const { return kTasksPerWorker * count_; }

  const sluice_host_api &host_;
  const uint32_t count_;
};

}  // namespace sluice::cpu

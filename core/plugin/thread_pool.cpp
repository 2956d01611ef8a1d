#include "core/plugin/thread_pool.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <string>

namespace sluice::plugin {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(100);  // longer than between two jobs of a step

thread_local bool t_inside = false;       // this thread is running an item
thread_local uint32_t t_worker = 0;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// True once done() is; false when the time for spinning is over.
template <class F> bool spin_until(F &&done) {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

uint32_t available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
  if (cpus <= 0) cpus = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  // "quota period" in microseconds, or "max period". More threads than the quota pays for would be stopped in turn.
  std::ifstream limit("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  if (limit >> quota >> period && quota > 0 && period > 0)
    cpus = std::min(cpus, static_cast<int>(std::ceil(quota / period)));
  return static_cast<uint32_t>(std::max(cpus, 1));
}

ThreadPool::ThreadPool(uint32_t n_workers) : n_workers_(n_workers == 0 ? available_cpus() : n_workers) {}

void ThreadPool::start_helpers() {
  // Signals are for the threads that expect them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (uint32_t w = 1; w < n_workers_; ++w) helpers_.emplace_back([this, w] { help(w); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  announced_.fetch_add(1);
  announced_.notify_all();
  for (std::thread &t : helpers_) t.join();
}

void ThreadPool::run(uint32_t n, Work work, void *ctx) {
  if (t_inside || n <= 1 || n_workers_ == 1) {
    const bool was_inside = t_inside;
    const uint32_t worker = was_inside ? t_worker : 0;
    t_inside = true, t_worker = worker;
    for (uint32_t i = 0; i < n; ++i) work(ctx, i, worker);
    t_inside = was_inside;
    return;
  }
  const std::lock_guard lock(turn_);
  if (helpers_.empty()) start_helpers();
  job_ = {work, ctx, n};
  next_.store(0);
  uint32_t number = announced_.load() + 1;
  if (number == 0) number = 1;
  open_.store(number);
  announced_.store(number);
  announced_.notify_all();

  take_items(0);
  // Either a late helper sees that the job is closed, or we see that it has joined: both orders are sequential.
  open_.store(0);
  while (active_.load() != 0)
    if (!spin_until([this] { return active_.load() == 0; }))
      if (const uint32_t a = active_.load(); a != 0) active_.wait(a);
}

void ThreadPool::take_items(uint32_t worker) {
  t_inside = true, t_worker = worker;
  const Job job = job_;
  for (uint32_t i = next_.fetch_add(1); i < job.n; i = next_.fetch_add(1)) job.work(job.ctx, i, worker);
  t_inside = false;
}

void ThreadPool::help(uint32_t worker) {
  pthread_setname_np(pthread_self(), "sluice-pool");
  uint32_t seen = 0;
  while (true) {
    const auto news = [&] { return announced_.load(std::memory_order_acquire) != seen; };
    if (!spin_until(news)) announced_.wait(seen);
    if (stopping_) return;
    if (!news()) continue;
    seen = announced_.load();
    active_.fetch_add(1);
    if (open_.load() == seen) take_items(worker);
    if (active_.fetch_sub(1) == 1) active_.notify_all();
  }
}

}  // namespace sluice::plugin

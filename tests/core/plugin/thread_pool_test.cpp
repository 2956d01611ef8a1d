#include "core/plugin/thread_pool.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>

namespace sluice::plugin {
namespace {

struct Tally {
  std::vector<std::atomic<uint32_t>> seen;
  std::vector<std::atomic<uint32_t>> by_worker;
  uint32_t n_workers;
  Tally(uint32_t n, uint32_t workers) : seen(n), by_worker(workers), n_workers(workers) {}
  static void count(void *ctx, uint32_t i, uint32_t worker) {
    auto &t = *static_cast<Tally *>(ctx);
    ASSERT_LT(worker, t.n_workers);
    ++t.seen[i];
    ++t.by_worker[worker];
  }
};

TEST(ThreadPool, RunsEveryItemOnce) {
  for (const uint32_t workers : {1u, 2u, 5u}) {
    ThreadPool pool(workers);
    EXPECT_EQ(pool.n_workers(), workers);
    for (const uint32_t n : {0u, 1u, 2u, 3u, 7u, 1000u}) {
      Tally t(n, workers);
      pool.run(n, Tally::count, &t);
      for (uint32_t i = 0; i < n; ++i) ASSERT_EQ(t.seen[i], 1u) << workers << " " << n << " " << i;
    }
  }
}

TEST(ThreadPool, ThousandsOfJobsInARowLoseNothing) {
  ThreadPool pool(4);
  uint64_t total = 0;
  for (uint32_t round = 0; round < 5000; ++round) {
    struct Sum {
      std::atomic<uint64_t> value{0};
    } sum;
    const uint32_t n = 1 + round % 13;
    pool.run(n, [](void *ctx, uint32_t i, uint32_t) { static_cast<Sum *>(ctx)->value += i + 1; }, &sum);
    ASSERT_EQ(sum.value, uint64_t{n} * (n + 1) / 2) << round;
    total += sum.value;
    if (round % 1000 == 999) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // let the helpers fall asleep
  }
  EXPECT_GT(total, 0u);
}

TEST(ThreadPool, NestedCallsRunInlineAsTheSameWorker) {
  ThreadPool pool(3);
  struct Ctx {
    ThreadPool *pool;
    std::atomic<uint32_t> inner{0}, strange{0};
  } ctx{&pool};
  pool.run(
      8,
      [](void *p, uint32_t, uint32_t worker) {
        auto &c = *static_cast<Ctx *>(p);
        struct Inner {
          Ctx *c;
          uint32_t worker;
        } inner{&c, worker};
        c.pool->run(
            5,
            [](void *q, uint32_t, uint32_t w) {
              auto &n = *static_cast<Inner *>(q);
              ++n.c->inner;
              if (w != n.worker) ++n.c->strange;
            },
            &inner);
      },
      &ctx);
  EXPECT_EQ(ctx.inner, 40u);
  EXPECT_EQ(ctx.strange, 0u);
}

TEST(ThreadPool, SeveralCallersTakeTurns) {
  ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::atomic<uint64_t> total{0};
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int i = 0; i < 300; ++i)
        pool.run(10, [](void *p, uint32_t, uint32_t) { ++*static_cast<std::atomic<uint64_t> *>(p); }, &total);
    });
  for (auto &t : callers) t.join();
  EXPECT_EQ(total, 4u * 300 * 10);
}

TEST(ThreadPool, HelpersReallyHelp) {
  ThreadPool pool(2);
  struct Meeting {
    std::atomic<uint32_t> here{0};
    std::atomic<bool> met{false};
  } meeting;
  // Two items that each wait for the other can only end when two threads run them.
  pool.run(
      2,
      [](void *p, uint32_t, uint32_t) {
        auto &m = *static_cast<Meeting *>(p);
        ++m.here;
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (m.here < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
        if (m.here == 2) m.met = true;
      },
      &meeting);
  EXPECT_TRUE(meeting.met);
}

TEST(AvailableCpus, IsAtLeastOne) { EXPECT_GE(available_cpus(), 1u); }

}  // namespace
}  // namespace sluice::plugin

#include "tests/backends/test_host.hpp"

#include <chrono>

namespace sluice::test {
namespace {

constexpr int kSpins = 4000;

const Options &options(const sluice_config *c) { return *reinterpret_cast<const Options *>(c); }

template <class Map, class Out>
int32_t get(const Map &map, const char *key, Out *out) {
  const auto found = map.find(key);
  if (found == map.end()) return SLUICE_E_NOT_FOUND;
  *out = found->second;
  return SLUICE_OK;
}

Host &host(sluice_host *h) { return *reinterpret_cast<Host *>(h); }

}  // namespace

Pool::Pool(uint32_t workers) {
  for (uint32_t w = 1; w < workers; ++w) threads_.emplace_back([this, w] { work(w); });
}

Pool::~Pool() {
  stop_ = true;
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread &t : threads_) t.join();
}

void Pool::drain(uint32_t worker) {
  for (uint32_t i = next_.fetch_add(1); i < n_; i = next_.fetch_add(1)) task_(ctx_, i, worker);
}

void Pool::work(uint32_t worker) {
  uint32_t seen = 0;
  for (;;) {
    for (int i = 0; i < kSpins && generation_.load() == seen; ++i) __builtin_ia32_pause();
    generation_.wait(seen);
    ++seen;
    if (stop_) return;
    drain(worker);
    busy_.fetch_sub(1);
    busy_.notify_one();
  }
}

void Pool::run(uint32_t n, Task task, void *ctx) {
  if (threads_.empty() || n < 2) {
    for (uint32_t i = 0; i < n; ++i) task(ctx, i, 0);
    return;
  }
  n_ = n;
  task_ = task;
  ctx_ = ctx;
  next_ = 0;
  busy_ = static_cast<uint32_t>(threads_.size());
  generation_.fetch_add(1);
  generation_.notify_all();
  drain(0);
  for (int i = 0; i < kSpins && busy_.load() != 0; ++i) __builtin_ia32_pause();
  for (uint32_t left = busy_.load(); left != 0; left = busy_.load()) busy_.wait(left);
}

Host::Host(uint32_t workers) : pool(workers) {
  api.struct_size = sizeof api;
  api.abi_major = SLUICE_ABI_MAJOR;
  api.abi_minor = SLUICE_ABI_MINOR;
  api.abi_floor = SLUICE_ABI_FLOOR;
  api.host_version = "0.0.0";
  api.host = reinterpret_cast<sluice_host *>(this);
  api.log = [](sluice_host *, int32_t, const char *, const char *, size_t) {};
  api.now_ns = [](sluice_host *) {
    return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  };
  api.cfg_bool = [](const sluice_config *c, const char *key, int32_t *out) { return get(options(c).flags, key, out); };
  api.cfg_i64 = [](const sluice_config *c, const char *key, int64_t *out) { return get(options(c).numbers, key, out); };
  api.cfg_f64 = [](const sluice_config *, const char *, double *) -> int32_t { return SLUICE_E_NOT_FOUND; };
  api.cfg_str = [](const sluice_config *c, const char *key, const char **out, size_t *len) -> int32_t {
    const auto found = options(c).text.find(key);
    if (found == options(c).text.end()) return SLUICE_E_NOT_FOUND;
    *out = found->second.c_str();
    *len = found->second.size();
    return SLUICE_OK;
  };
  api.cfg_list = [](const sluice_config *, const char *, uint32_t, const char **, size_t *) -> int32_t {
    return SLUICE_E_NOT_FOUND;
  };
  api.cfg_raw = [](const sluice_config *, const char *, const char **, size_t *) -> int32_t {
    return SLUICE_E_NOT_FOUND;
  };
  api.parallel_for = [](sluice_host *h, uint32_t n, void (*fn)(void *, uint32_t, uint32_t), void *ctx) {
    host(h).pool.run(n, fn, ctx);
  };
  api.n_workers = [](sluice_host *h) { return host(h).pool.workers(); };
}

}  // namespace sluice::test

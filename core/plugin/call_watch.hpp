#pragma once
#include <atomic>
#include <cstdint>

namespace sluice::plugin {

/// Which function of which plugin is called, for messages. Both texts outlive the call.
struct CallSite {
  const char *who = "";   ///< "scheduler fcfs"
  const char *what = "";  ///< "plan"; may be empty
  CallSite(const char *w) : who(w) {}
  CallSite(const char *w, const char *f) : who(w), what(f) {}
};

/// The call into a plugin that a thread is in, for a watchdog on another thread. Costs that thread two stores a call
/// and no look at a clock: whoever sees the same call again after a while knows how long it has lasted at least.
class CallWatch {
 public:
  /// From here on calls of this thread are noted there; null = nowhere. `watch` outlives the thread or the next use().
  static void use(CallWatch *watch) { of_thread_ = watch; }

  struct Seen {
    uint64_t serial = 0;  ///< of the call; 0 = the thread is in none
    CallSite site{""};
  };
  /// [any]
  Seen look() const {
    Seen seen;
    const uint64_t serial = serial_.load(std::memory_order_acquire);
    if (serial % 2 == 0) return seen;
    seen.site = CallSite(who_.load(std::memory_order_relaxed), what_.load(std::memory_order_relaxed));
    std::atomic_thread_fence(std::memory_order_acquire);
    if (serial_.load(std::memory_order_relaxed) == serial) seen.serial = serial;
    return seen;
  }

  /// Notes a call for the time of its own life.
  class Inside {
   public:
    explicit Inside(const CallSite &site) : watch_(of_thread_) {
      if (watch_ == nullptr) return;
      outer_ = watch_->serial_.load(std::memory_order_relaxed) % 2 != 0;
      if (outer_) return;  // a call from within a call is its time
      watch_->who_.store(site.who, std::memory_order_relaxed);
      watch_->what_.store(site.what, std::memory_order_relaxed);
      watch_->step();
    }
    ~Inside() {
      if (watch_ != nullptr && !outer_) watch_->step();
    }
    Inside(const Inside &) = delete;
    Inside &operator=(const Inside &) = delete;

   private:
    CallWatch *const watch_;
    bool outer_ = false;
  };

 private:
  void step() { serial_.store(serial_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }

  static inline thread_local CallWatch *of_thread_ = nullptr;
  std::atomic<uint64_t> serial_{0};  ///< odd while inside a call
  std::atomic<const char *> who_{""}, what_{""};
};

}  // namespace sluice::plugin

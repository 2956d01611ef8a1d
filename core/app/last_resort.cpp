#include "core/app/last_resort.hpp"

#include <pthread.h>

#include <cstdio>
#include <cstdlib>

#include "core/base/log.hpp"

namespace sluice::app {

LastResort::~LastResort() {
  {
    const std::lock_guard lock(mutex_);
    quit_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void LastResort::arm(const std::string &what, std::chrono::milliseconds patience) {
  {
    const std::lock_guard lock(mutex_);
    what_ = what, patience_ = patience, until_ = std::chrono::steady_clock::now() + patience;
    if (!thread_.joinable()) {
      thread_ = std::thread([this] { watch(); });
      pthread_setname_np(thread_.native_handle(), "sluice-last");
    }
  }
  changed_.notify_one();
}

void LastResort::disarm() {
  const std::lock_guard lock(mutex_);
  what_.clear();
}

void LastResort::watch() {
  std::unique_lock lock(mutex_);
  while (!quit_) {
    if (what_.empty()) {
      changed_.wait(lock);
    } else if (std::chrono::steady_clock::now() < until_) {
      changed_.wait_until(lock, until_);
    } else {
      log::error("serve", "{} has not ended after {} ms: a plugin does not return; the process ends without it", what_,
                 patience_.count());
      std::fflush(nullptr);
      std::_Exit(1);
    }
  }
}

}  // namespace sluice::app

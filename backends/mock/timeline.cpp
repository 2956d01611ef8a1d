#include "timeline.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

namespace sluice::mock {

Timeline::Queued Timeline::queue(uint64_t work_ns, Lane lane) {
  const uint64_t now = host_.now_ns(host_.host);
  const std::lock_guard lock(mutex_);
  uint64_t &idle_at_ns = idle_at_ns_[static_cast<size_t>(lane)];
  const uint64_t begin = std::max(now, idle_at_ns);
  idle_at_ns = work_ns > UINT64_MAX - begin ? UINT64_MAX : begin + work_ns;
  ++last_ticket_;
  ends_[last_ticket_ % kRecord] = {last_ticket_, idle_at_ns};
  return {last_ticket_, now, begin, idle_at_ns};
}

uint64_t Timeline::last_ticket() const {
  const std::lock_guard lock(mutex_);
  return last_ticket_;
}

bool Timeline::wait(uint64_t ticket, uint64_t timeout_ns) {
  constexpr uint64_t kProbeNs = 50'000, kSliceNs = 50'000'000;
  const uint64_t end = [&] {
    const std::lock_guard lock(mutex_);
    return end_of(ticket);
  }();
  const uint64_t start = host_.now_ns(host_.host);
  uint64_t slice = kProbeNs;
  for (uint64_t now = start; now < end;) {
    if (now - start >= timeout_ns) return false;
    const uint64_t ns = std::min({slice, end - now, timeout_ns - (now - start)});
    std::this_thread::sleep_for(std::chrono::nanoseconds(ns));
    const uint64_t later = host_.now_ns(host_.host);
    if (later == now) return false;
    now = later, slice = kSliceNs;
  }
  return true;
}

}  // namespace sluice::mock

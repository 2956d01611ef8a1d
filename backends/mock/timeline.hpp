// The mock's queues on the host's clock, which may be simulated: one that computes and one for either way of copies.
#pragma once
#include <sluice/abi/host.h>

#include <array>
#include <cstdint>
#include <mutex>

namespace sluice::mock {

enum class Lane : uint8_t { kCompute, kSwapOut, kSwapIn };

/// When each ticket is done. Work of one lane is done in order; lanes overlap. [any]
class Timeline {
 public:
  explicit Timeline(const sluice_host_api &host) : host_(host) {}

  struct Queued {
    uint64_t ticket, submit_ns, begin_ns, end_ns;  // end UINT64_MAX = never
  };
  /// Appends work of so many nanoseconds; UINT64_MAX = it never ends.
  Queued queue(uint64_t work_ns, Lane lane = Lane::kCompute);

  /// True once the ticket's time has come. Blocks up to timeout_ns of the host's clock, unless that clock stands still
  /// while real time passes: then it is a simulation's, and only the simulation can move it, so the answer is false.
  /// Tickets so old that they have left the record are done.
  bool wait(uint64_t ticket, uint64_t timeout_ns);

  uint64_t last_ticket() const;

 private:
  static constexpr size_t kRecord = 1024;
  struct Record {
    uint64_t ticket = 0, end_ns = 0;
  };
  uint64_t end_of(uint64_t ticket) const {
    return ends_[ticket % kRecord].ticket == ticket ? ends_[ticket % kRecord].end_ns : 0;
  }

  const sluice_host_api &host_;
  mutable std::mutex mutex_;
  std::array<Record, kRecord> ends_{};
  uint64_t last_ticket_ = 0;
  std::array<uint64_t, 3> idle_at_ns_{};  // by lane
};

}  // namespace sluice::mock

#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace sluice::bench {

/// One stream to open and what must come out of it.
struct StreamPlan {
  std::string request;  ///< whole HTTP request bytes
  std::string cycle;    ///< token i of the answer is the character cycle[i % size]
  uint32_t n_tokens = 0;
};

struct RoundResult {
  uint64_t events = 0;                    ///< token events, checked
  std::chrono::nanoseconds elapsed{};     ///< from the first request sent to the last [DONE]
  std::chrono::nanoseconds client_cpu{};  ///< of this thread
  std::chrono::nanoseconds server_cpu{};  ///< of the other process
  uint64_t reads = 0;                     ///< recv calls that gave bytes
  std::string sample_event;               ///< bytes of one token event as sent, from "data: " to the blank line
  double events_per_s() const { return static_cast<double>(events) / (static_cast<double>(elapsed.count()) * 1e-9); }
};

/// Opens every stream at once on one thread and checks each event: one token per event, the right one, in order, none
/// lost or doubled, finish_reason "length" with or behind the last, then [DONE].
///
/// server      the process behind the port
/// same_bytes  the other side sends one recorded event again and again; then only framing, shape and count are checked
/// throws      std::runtime_error at the first thing that is not as it must be
RoundResult run_streams(uint16_t port, pid_t server, const std::vector<StreamPlan> &plans, bool same_bytes);

}  // namespace sluice::bench

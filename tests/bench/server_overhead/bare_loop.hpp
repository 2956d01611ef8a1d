#pragma once
#include <cstdint>
#include <string>

namespace sluice::bench {

/// The yardstick: a Beast server on one thread that answers any request with `n_events` chunks of `event`, one write
/// per event, and nothing in between: no model, no queue, no JSON.
///
/// Binds a free port of the loopback, writes "listening on http://127.0.0.1:PORT\n" to stdout and serves until killed.
int run_bare_loop(const std::string &event, uint32_t n_events);

}  // namespace sluice::bench

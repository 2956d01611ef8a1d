#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace sluice::e2e {

/// Where in the life of a request its client goes away. The last three stay to the end.
enum class Stage : uint8_t {
  kConnected,  ///< before the first byte
  kHead,       ///< inside the request head
  kHalfBody,
  kSent,         ///< right after the request: queued or in prefill
  kLongPrefill,  ///< while a long prompt is computed in chunks
  kMidStream,    ///< after some events
  kPending,      ///< stream=false, before the answer
  kSocketHandshake,
  kSocketMidStream,
  kSocketCancel,  ///< a cancel frame, then the end is awaited
  kWhole,
  kWholePending,
  kSocketWhole,
};
constexpr size_t kStages = 13;
const char *stage_name(Stage stage);

struct SoakOptions {
  uint32_t attempts = 10'000;
  uint32_t concurrent = 96;
  uint64_t seed = 1;
};

struct SoakResult {
  std::map<Stage, uint32_t> attempts;
  uint64_t characters = 0;            ///< received and right
  uint32_t cut_streams = 0;           ///< left with some text, but not all of it
  std::vector<std::string> problems;  ///< at most 20; empty = all was right
};

/// Plays that many clients against a server whose model "test" echoes its prompt: each asks for a text of its own and
/// leaves at a random stage by close, reset or half-close. Whatever it received must be an exact prefix of the whole
/// text.
SoakResult run_soak(uint16_t port, const SoakOptions &options);

}  // namespace sluice::e2e

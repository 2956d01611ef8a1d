#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/lifecycle/generation.hpp"
#include "core/request/generator.hpp"

namespace sluice::lifecycle {

std::string_view cancel_cause_name(request::CancelCause cause);  ///< as in logs and metrics

struct RequestLine {
  const GenerationSpec &spec;
  const Outcome &outcome;
  std::optional<request::CancelCause> cancelled;
  std::string_view finish_reasons;   ///< of the answers, comma-separated
  uint64_t ttft_ns = 0, e2e_ns = 0;  ///< 0: there was no token
};

/// One JSON line per finished request. Holds numbers and ids; never a key, a prompt or an answer.
void log_request(const RequestLine &line);

}  // namespace sluice::lifecycle

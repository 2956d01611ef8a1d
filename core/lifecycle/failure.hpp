#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace sluice::lifecycle {

enum class FailureKind : uint8_t {
  kBadRequest,
  kUnsupportedParameter,
  kContextLength,
  kModelNotFound,
  kModelLoading,
  kModelFailed,
  kQueueFull,
  kShuttingDown,
  kTimeout,
  kSlowConsumer,
  kEngine,
};

/// Why a request was refused or ended badly, for the client. How it looks on the wire is api's business.
struct Failure {
  FailureKind kind = FailureKind::kEngine;
  std::string message;
  std::string param;  ///< the field at fault; may be empty
  std::optional<uint32_t> retry_after_s;
};

}  // namespace sluice::lifecycle

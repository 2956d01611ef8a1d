#include "core/base/error.hpp"

namespace sluice {

const char *code_name(Code code) {
  switch (code) {
    case Code::kInvalidArgument: return "invalid_argument";
    case Code::kUnsupported: return "unsupported";
    case Code::kNotFound: return "not_found";
    case Code::kResourceExhausted: return "resource_exhausted";
    case Code::kTimeout: return "timeout";
    case Code::kCancelled: return "cancelled";
    case Code::kUnavailable: return "unavailable";
    case Code::kInternal: return "internal";
    case Code::kDeviceLost: return "device_lost";
    case Code::kAbi: return "abi";
  }
  return "unknown";
}

}  // namespace sluice

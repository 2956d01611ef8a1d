#pragma once
#include <boost/system/result.hpp>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace sluice {

/// What went wrong, in the numbers of sluice/abi/status.h so that a plugin's code passes through unchanged.
enum class Code : int32_t {
  kInvalidArgument = 1,
  kUnsupported = 2,
  kNotFound = 3,
  kResourceExhausted = 4,
  kTimeout = 5,
  kCancelled = 6,
  kUnavailable = 7,
  kInternal = 8,
  kDeviceLost = 9,
  kAbi = 10,
};

/// The stable lower-case name of a code, for logs and metrics.
const char *code_name(Code code);

/// A failure at a boundary: file, socket, JSON, plugin or client.
/// message  names the thing, the value and the remedy; for the client, so without secrets.
/// param    the request field or configuration key at fault; may be empty.
struct Error {
  Code code = Code::kInternal;
  std::string message;
  std::string param;
};

/// Asked for by boost::system::result when value() is called on an error: our own mistake, hence the throw.
[[noreturn]] inline void throw_exception_from_error(const Error &error, const boost::source_location &) {
  throw std::logic_error("value() of an error: " + error.message);
}

template <class T = void> using Result = boost::system::result<T, Error>;

inline Error invalid_argument(std::string message, std::string param = {}) {
  return {Code::kInvalidArgument, std::move(message), std::move(param)};
}

}  // namespace sluice

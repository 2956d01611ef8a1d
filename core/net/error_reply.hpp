#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::net {

/// A failure as a client sees it, in HTTP or in a WebSocket frame.
struct ErrorReply {
  int status = 500;
  std::string message;
  std::string code;   ///< "" is written as null
  std::string param;  ///< "" is written as null
  std::optional<uint32_t> retry_after_s;
};

/// OpenAI's word for a class of statuses: "invalid_request_error" for 400.
std::string_view error_type(int status);

/// {"message":...,"type":...,"param":...,"code":...}: all four keys, always.
std::string error_object(const ErrorReply &reply);
/// {"error":{...}}
std::string error_body(const ErrorReply &reply);

/// Appends `text` as the inside of a JSON string. `text` must be UTF-8; control characters are escaped.
void append_json_escaped(std::string &out, std::string_view text);

const char *reason_phrase(int status);

}  // namespace sluice::net

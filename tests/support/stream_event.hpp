#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::support {

/// What one event of a completion or chat stream says. A small walk over the JSON text, since it is paid per token by a
/// client that shares its cores with the server.
struct StreamEvent {
  uint32_t n_choices = 0;
  uint32_t index = 0;         ///< of the last choice
  bool has_text = false;      ///< choices[].text or choices[].delta.content is a string
  std::string text;           ///< of all choices, unescaped
  std::string finish_reason;  ///< "" when null or absent
  std::string id;
  bool has_usage = false;  ///< usage is an object
  uint32_t completion_tokens = 0;
  bool has_error = false;
};

/// Reads `json` into `event`, whose strings keep their memory. False: it is not one whole JSON object.
bool parse_stream_event(std::string_view json, StreamEvent &event);

}  // namespace sluice::support

#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/net/limits.hpp"

namespace sluice::net {

/// ASCII letters in lower case, everything else as it is.
std::string lower(std::string_view text);

enum class Framing : uint8_t { kNoBody, kLength, kChunked };

/// The head of one request, checked. Owns its text. Field names are in lower case.
struct RequestHead {
  std::string method;   ///< a token, as sent
  std::string path;     ///< "/v1/models/x", still percent-encoded
  std::string query;    ///< without '?'
  bool http_1_0 = false;
  bool keep_alive = true;
  bool expect_continue = false;
  bool wants_websocket = false;  ///< Upgrade: websocket with Connection: upgrade
  Framing framing = Framing::kNoBody;
  uint64_t content_length = 0;   ///< with kLength
  std::vector<std::pair<std::string, std::string>> fields;

  /// The first field of that lower-case name; nullptr when absent.
  const std::string *field(std::string_view name) const;
};

/// Why bytes are not a request. `status` is answered and the connection closed.
struct HeadProblem {
  int status = 400;
  std::string message;
};

/// Reads HTTP/1.x heads more strictly than the grammar allows, because whatever two parsers may read in two ways can
/// smuggle a request past the first of them: CRLF only, no folding, one Host, one length, `chunked` and nothing else.
/// source: RFC 9112 sections 3, 5, 6, 11.2.
///
/// scan() looks at bytes as they arrive, so that a broken line is refused at once and not at the deadline.
class HeadReader {
 public:
  explicit HeadReader(const Limits &limits) : limits_(limits) {}

  enum class Scan : uint8_t { kIncomplete, kComplete, kBad };
  /// buffer  everything received since the last head's end; may only grow between calls
  /// Complete: size() is the head's length with its blank line.
  Scan scan(std::string_view buffer);
  size_t size() const { return end_; }

  /// Parses buffer[0, size()) after kComplete. False: see problem().
  bool parse(std::string_view buffer, RequestHead &out);

  const HeadProblem &problem() const { return problem_; }
  void reset();

 private:
  bool fail(int status, std::string message);
  bool parse_request_line(std::string_view line, RequestHead &out);
  bool parse_target(std::string_view target, RequestHead &out);
  bool parse_field(std::string_view line, RequestHead &out);
  bool check_fields(RequestHead &out);

  const Limits limits_;
  size_t scanned_ = 0;     ///< bytes already looked at
  size_t line_start_ = 0;
  size_t end_ = 0;
  HeadProblem problem_;
};

}  // namespace sluice::net

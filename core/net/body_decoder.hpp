#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "core/net/http_head.hpp"

namespace sluice::net {

/// Takes one request body off the wire: by length or chunked. Stricter than the grammar: no chunk extensions, CRLF only,
/// trailers checked and dropped. source: RFC 9112 section 7.1.
class BodyDecoder {
 public:
  BodyDecoder(const RequestHead &head, const Limits &limits);

  enum class Status : uint8_t { kMore, kDone, kBad };
  /// Consumes from the front of `in` what belongs to the body and appends the decoded bytes to `body`.
  Status feed(std::string_view in, size_t &consumed, std::string &body);

  const HeadProblem &problem() const { return problem_; }  ///< with kBad: 400 or 413

 private:
  enum class State : uint8_t { kFixed, kSizeLine, kData, kDataEnd, kTrailer, kDone };
  Status fail(int status, std::string message);
  Status take_line(std::string_view in, size_t &consumed, bool &complete);
  Status on_size_line();
  Status on_trailer_line();

  const Limits limits_;
  State state_;
  uint64_t remaining_ = 0;  ///< of the fixed body or of the current chunk
  uint64_t decoded_ = 0;
  size_t chunks_ = 0, trailer_bytes_ = 0;
  std::string line_;        ///< the size or trailer line so far, without its CRLF once complete
  HeadProblem problem_;
};

}  // namespace sluice::net

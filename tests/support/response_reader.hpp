#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice::support {

/// Reads one HTTP/1.1 response as its bytes arrive. Made for a client that shares two cores with the server it
/// measures: each body byte is copied once.
class ResponseReader {
 public:
  /// Takes bytes off the front of `in` and says how many. Stops at the end of the response.
  size_t feed(std::string_view in);
  /// The peer closed: ends a body that has no length. False: the response was cut off.
  bool feed_end();

  bool has_head() const { return state_ != State::kHead; }
  bool complete() const { return state_ == State::kComplete; }
  bool broken() const { return state_ == State::kBroken; }  ///< not HTTP; `why` says what was wrong
  const std::string &why() const { return why_; }

  int status() const { return status_; }
  std::string header(std::string_view lower_case_name) const;  ///< "" when absent
  bool has_header(std::string_view lower_case_name) const;
  std::string body;  ///< decoded so far; the user may take bytes off its front

  /// Ready for the next response of the same connection. `expect_no_body` for HEAD.
  void reset(bool expect_no_body = false);

 private:
  enum class State : uint8_t {
    kHead,
    kLength,
    kChunkSize,
    kChunkData,
    kChunkEnd,
    kTrailer,
    kUntilClose,
    kComplete,
    kBroken
  };
  void fail(std::string why);
  void on_head();
  bool take_line(std::string_view in, size_t &used);
  void on_line();

  State state_ = State::kHead;
  bool no_body_ = false;
  int status_ = 0;
  uint64_t remaining_ = 0;  ///< of the body or of the chunk
  std::string line_;        ///< the head, or the line under way
  std::string why_;
  std::vector<std::pair<std::string, std::string>> headers_;
};

/// Cuts server-sent events out of a growing body.
class SseReader {
 public:
  /// The next event's data without "data: "; false when none is whole yet. Comments are counted and left out.
  /// The view lives until the body changes; call compact() between reads.
  bool next(const std::string &body, std::string_view &data);
  void compact(std::string &body);  ///< drops what was read
  size_t comments() const { return comments_; }
  size_t malformed() const { return malformed_; }  ///< blocks that are neither data nor a comment
  size_t pending(const std::string &body) const { return body.size() - at_; }  ///< bytes of an unfinished event

 private:
  size_t at_ = 0, comments_ = 0, malformed_ = 0;
};

}  // namespace sluice::support

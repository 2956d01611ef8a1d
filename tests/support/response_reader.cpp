#include "tests/support/response_reader.hpp"

#include <algorithm>
#include <charconv>

namespace sluice::support {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

bool parse_number(std::string_view text, int base, uint64_t &out) {
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  return ec == std::errc() && end == text.data() + text.size() && !text.empty();
}

}  // namespace

void ResponseReader::reset(bool expect_no_body) {
  state_ = State::kHead;
  no_body_ = expect_no_body;
  status_ = 0;
  line_.clear(), body.clear(), headers_.clear(), why_.clear();
}

void ResponseReader::fail(std::string why) {
  state_ = State::kBroken;
  why_ = std::move(why);
}

bool ResponseReader::has_header(std::string_view name) const {
  return std::any_of(headers_.begin(), headers_.end(), [&](const auto &h) { return h.first == name; });
}

std::string ResponseReader::header(std::string_view name) const {
  for (const auto &[n, value] : headers_)
    if (n == name) return value;
  return {};
}

// Appends to line_ up to CRLF. True: the line is whole, without its CRLF.
bool ResponseReader::take_line(std::string_view in, size_t &used) {
  const size_t end = in.find('\n', used);
  const size_t stop = end == std::string_view::npos ? in.size() : end + 1;
  line_.append(in.substr(used, stop - used));
  used = stop;
  if (end == std::string_view::npos) {
    if (line_.size() > 65536) fail("a line of more than 64 KiB");
    return false;
  }
  if (!line_.ends_with("\r\n")) {
    fail("a line that does not end in CRLF");
    return false;
  }
  line_.resize(line_.size() - 2);
  return true;
}

size_t ResponseReader::feed(std::string_view in) {
  size_t used = 0;
  while (used < in.size() && state_ != State::kComplete && state_ != State::kBroken) {
    switch (state_) {
      case State::kHead:
      case State::kChunkSize:
      case State::kChunkEnd:
      case State::kTrailer:
        if (take_line(in, used)) on_line();
        break;
      case State::kLength:
      case State::kChunkData: {
        const size_t n = std::min<uint64_t>(remaining_, in.size() - used);
        body.append(in.data() + used, n);
        used += n;
        remaining_ -= n;
        if (remaining_ == 0) state_ = state_ == State::kLength ? State::kComplete : State::kChunkEnd;
        break;
      }
      case State::kUntilClose:
        body.append(in.substr(used));
        used = in.size();
        break;
      case State::kComplete:
      case State::kBroken:
        break;
    }
  }
  return used;
}

bool ResponseReader::feed_end() {
  if (state_ == State::kUntilClose) state_ = State::kComplete;
  return state_ == State::kComplete;
}

void ResponseReader::on_line() {
  const std::string line = std::move(line_);
  line_.clear();
  switch (state_) {
    case State::kHead: {
      if (line.empty()) return on_head();
      if (status_ == 0) {
        uint64_t code = 0;
        if (!line.starts_with("HTTP/1.1 ") || line.size() < 12 ||
            !parse_number(std::string_view(line).substr(9, 3), 10, code))
          return fail("not a status line: " + line.substr(0, 80));
        status_ = static_cast<int>(code);
        return;
      }
      const size_t colon = line.find(':');
      if (colon == std::string::npos) return fail("not a header: " + line.substr(0, 80));
      size_t begin = colon + 1;
      while (begin < line.size() && line[begin] == ' ') ++begin;
      headers_.emplace_back(lower(std::string_view(line).substr(0, colon)), line.substr(begin));
      return;
    }
    case State::kChunkSize:
      if (!parse_number(line, 16, remaining_)) return fail("not a chunk size: " + line.substr(0, 80));
      state_ = remaining_ == 0 ? State::kTrailer : State::kChunkData;
      return;
    case State::kChunkEnd:
      if (!line.empty()) return fail("a chunk is longer than it said");
      state_ = State::kChunkSize;
      return;
    default:
      if (line.empty()) state_ = State::kComplete;
  }
}

void ResponseReader::on_head() {
  if (status_ == 0) return fail("an empty line before the status line");
  if (status_ == 100) {
    status_ = 0;
    headers_.clear();
    return;
  }
  const std::string length = header("content-length");
  if (no_body_ || status_ == 204 || status_ == 101) {
    state_ = State::kComplete;
  } else if (header("transfer-encoding") == "chunked") {
    state_ = State::kChunkSize;
  } else if (!length.empty()) {
    if (!parse_number(length, 10, remaining_)) return fail("not a length: " + length);
    state_ = remaining_ == 0 ? State::kComplete : State::kLength;
  } else {
    state_ = State::kUntilClose;
  }
}

bool SseReader::next(const std::string &body, std::string_view &data) {
  while (at_ < body.size()) {
    const size_t end = body.find("\n\n", at_);
    if (end == std::string::npos) return false;
    const std::string_view block(body.data() + at_, end - at_);
    at_ = end + 2;
    if (block.starts_with("data: ") && block.find('\n') == std::string_view::npos) {
      data = block.substr(6);
      return true;
    }
    block.starts_with(':') ? ++comments_ : ++malformed_;
  }
  return false;
}

void SseReader::compact(std::string &body) {
  body.erase(0, at_);
  at_ = 0;
}

}  // namespace sluice::support

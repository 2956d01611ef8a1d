#include "core/net/body_decoder.hpp"

#include <algorithm>

namespace sluice::net {
namespace {

constexpr size_t kMaxSizeDigits = 16;

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

BodyDecoder::BodyDecoder(const RequestHead &head, const Limits &limits) : limits_(limits), state_(State::kDone) {
  if (head.framing == Framing::kLength) {
    state_ = State::kFixed;
    remaining_ = head.content_length;
  } else if (head.framing == Framing::kChunked) {
    state_ = State::kSizeLine;
  }
}

BodyDecoder::Status BodyDecoder::fail(int status, std::string message) {
  problem_ = {status, std::move(message)};
  return Status::kBad;
}

BodyDecoder::Status BodyDecoder::feed(std::string_view in, size_t &consumed, std::string &body) {
  consumed = 0;
  while (state_ != State::kDone) {
    const auto rest = in.substr(consumed);
    if (state_ == State::kFixed || state_ == State::kData) {
      if (decoded_ + remaining_ > limits_.body_bytes) {
        return fail(413, "the request body is larger than " + std::to_string(limits_.body_bytes) + " bytes");
      }
      const size_t n = std::min<uint64_t>(rest.size(), remaining_);
      body.append(rest.data(), n);
      consumed += n;
      decoded_ += n;
      remaining_ -= n;
      if (remaining_ > 0) return Status::kMore;
      state_ = state_ == State::kFixed ? State::kDone : State::kDataEnd;
      continue;
    }
    bool complete = false;
    if (const auto status = take_line(rest, consumed, complete); status == Status::kBad) return status;
    if (!complete) return Status::kMore;
    Status status = Status::kMore;
    if (state_ == State::kSizeLine) {
      status = on_size_line();
    } else if (state_ == State::kTrailer) {
      status = on_trailer_line();
    } else if (line_.empty()) {
      state_ = State::kSizeLine;
    } else {
      status = fail(400, "a chunk is longer than its announced size");
    }
    if (status == Status::kBad) return status;
    line_.clear();
  }
  return Status::kDone;
}

// Appends up to and including CRLF to line_, then cuts the CRLF off.
BodyDecoder::Status BodyDecoder::take_line(std::string_view in, size_t &consumed, bool &complete) {
  for (const char c : in) {
    ++consumed;
    const bool after_cr = !line_.empty() && line_.back() == '\r';
    if (c == '\n') {
      if (!after_cr) return fail(400, "a line feed without a carriage return in a chunked body");
      line_.pop_back();
      complete = true;
      return Status::kMore;
    }
    if (after_cr) return fail(400, "a carriage return without a line feed in a chunked body");
    line_ += c;
    if (state_ == State::kTrailer) {
      if (++trailer_bytes_ > limits_.trailer_bytes) return fail(400, "the trailers of a chunked body are too long");
    } else if (state_ == State::kDataEnd) {
      if (c != '\r') return fail(400, "a chunk is longer than its announced size");
    } else if (c != '\r' && hex_value(c) < 0) {
      return fail(400, "a chunk size must be hexadecimal digits only, without extensions");
    } else if (line_.size() > kMaxSizeDigits + 1) {
      return fail(400, "a chunk size has too many digits");
    }
  }
  return Status::kMore;
}

BodyDecoder::Status BodyDecoder::on_size_line() {
  if (line_.empty()) return fail(400, "a chunk without a size");
  if (line_.size() > kMaxSizeDigits) return fail(400, "a chunk size has too many digits");
  uint64_t size = 0;
  for (const char c : line_) size = size * 16 + static_cast<uint64_t>(hex_value(c));
  if (size == 0) {
    state_ = State::kTrailer;
    return Status::kMore;
  }
  if (++chunks_ > limits_.chunks) return fail(400, "more than " + std::to_string(limits_.chunks) + " chunks in one body");
  // Compared before the sum is formed: 16 hexadecimal digits can overflow it.
  if (size > limits_.body_bytes || decoded_ + size > limits_.body_bytes) {
    return fail(413, "the request body is larger than " + std::to_string(limits_.body_bytes) + " bytes");
  }
  remaining_ = size;
  state_ = State::kData;
  return Status::kMore;
}

BodyDecoder::Status BodyDecoder::on_trailer_line() {
  if (line_.empty()) {
    state_ = State::kDone;
    return Status::kMore;
  }
  const size_t colon = line_.find(':');
  if (colon == std::string::npos || colon == 0) return fail(400, "a malformed trailer");
  for (size_t i = 0; i < line_.size(); ++i) {
    const auto c = static_cast<unsigned char>(line_[i]);
    if (c < 0x20 || c == 0x7f || (i < colon && c == ' ')) return fail(400, "a malformed trailer");
  }
  return Status::kMore;
}

}  // namespace sluice::net

// Stop strings and a text in pieces: what comes out is what the definition says. Input: the number of stops, then
// fields, each a length byte and that many bytes; the fields behind the stops are the pieces of the text.
#include "core/text/stop_matcher.hpp"
#include "tests/fuzz/fuzz_target.hpp"

#include <algorithm>
#include <string_view>

using namespace sluice;

namespace {

std::string field(std::string_view &input) {
  const size_t size = std::min<size_t>(static_cast<unsigned char>(input[0]) % 24, input.size() - 1);
  std::string out(input.substr(1, size));
  input.remove_prefix(1 + size);
  return out;
}

/// Where the text ends: before the stop that is complete first, the longest of those.
std::string by_definition(const std::string &text, const std::vector<std::string> &stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string &stop : stops)
      if (std::string_view(text).substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string_view input(reinterpret_cast<const char *>(data), std::min<size_t>(size, 4096));
  if (input.empty()) return 0;
  std::vector<std::string> stops;
  size_t n_stops = static_cast<unsigned char>(input[0]) % 5;
  input.remove_prefix(1);
  for (; n_stops > 0 && !input.empty(); --n_stops)
    if (std::string stop = field(input); !stop.empty()) stops.push_back(std::move(stop));
  text::StopMatcher matcher(stops);
  std::string whole, out;
  while (!input.empty()) {
    const std::string piece = field(input);
    whole += piece;
    matcher.push(piece, out);
  }
  if (!matcher.stopped()) matcher.flush(out);
  FUZZ_CHECK(out == by_definition(whole, stops));
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  return {std::string("\x02\x02\n\n\x03"
                      "END"
                      "\x04"
                      "oneE"
                      "\x02"
                      "ND"
                      "\x03"
                      "abc"),
          std::string("\x01\x04"
                      "abab"
                      "\x03"
                      "aba"
                      "\x03"
                      "aba"
                      "\x02"
                      "ba"),
          std::string("\x03\x01"
                      "a"
                      "\x02"
                      "ab"
                      "\x03"
                      "abc"
                      "\x05"
                      "xxabc")};
}

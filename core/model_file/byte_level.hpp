#pragma once
#include <array>
#include <cstdint>

namespace sluice::model_file {

/// How byte-level BPE vocabularies spell bytes: a printable character of Latin-1 stands for its own byte, and the 68
/// others, in ascending order, are U+0100 and following (so a space is U+0120).
/// source  Radford et al., GPT-2, bytes_to_unicode
constexpr std::array<uint16_t, 256> byte_level_code_points() {
  std::array<uint16_t, 256> out{};
  uint16_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    out[byte] = printable ? static_cast<uint16_t>(byte) : next++;
  }
  return out;
}

}  // namespace sluice::model_file

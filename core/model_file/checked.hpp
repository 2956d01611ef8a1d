#pragma once
#include <cstdint>

namespace sluice::model_file {

// Arithmetic on numbers that a file names: false instead of wrapping. [any]

[[nodiscard]] inline bool checked_add(uint64_t a, uint64_t b, uint64_t &out) {
  return !__builtin_add_overflow(a, b, &out);
}

[[nodiscard]] inline bool checked_mul(uint64_t a, uint64_t b, uint64_t &out) {
  return !__builtin_mul_overflow(a, b, &out);
}

/// Rounds up to a multiple of alignment, which is a power of two.
[[nodiscard]] inline bool checked_align(uint64_t value, uint64_t alignment, uint64_t &out) {
  if (!checked_add(value, alignment - 1, out)) return false;
  out &= ~(alignment - 1);
  return true;
}

}  // namespace sluice::model_file

#pragma once
#include <cstdint>
#include <span>

namespace sluice::kv {

/// Names a full block by its tokens and everything before them. 128 bits, so that two prefixes never meet by chance.
struct PrefixHash {
  uint64_t low = 0, high = 0;
  friend bool operator==(const PrefixHash &, const PrefixHash &) = default;
};

struct PrefixHashKey {
  size_t operator()(const PrefixHash &hash) const { return hash.low; }
};

/// The hash before the first block. salt  keeps the prefixes of different owners apart
PrefixHash prefix_root(uint64_t salt);

/// The hash of a block whose predecessor has `parent`.  source: XXH3, github.com/Cyan4973/xxHash
PrefixHash prefix_next(const PrefixHash &parent, std::span<const int32_t> tokens);

}  // namespace sluice::kv

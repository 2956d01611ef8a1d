#include "core/kv/prefix_hash.hpp"

#include <xxhash.h>

namespace sluice::kv {

PrefixHash prefix_root(uint64_t salt) {
  const XXH128_hash_t hash = XXH3_128bits(&salt, sizeof salt);
  return {hash.low64, hash.high64};
}

PrefixHash prefix_next(const PrefixHash &parent, std::span<const int32_t> tokens) {
  const XXH128_hash_t own = XXH3_128bits(tokens.data(), tokens.size_bytes());
  const uint64_t mixed[] = {own.low64, own.high64, parent.low, parent.high};
  const XXH128_hash_t chained = XXH3_128bits(mixed, sizeof mixed);
  return {chained.low64, chained.high64};
}

}  // namespace sluice::kv

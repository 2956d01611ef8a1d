#pragma once
#include "core/base/error.hpp"
#include "core/text/vocabulary.hpp"

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sluice::text {

/// Finds tokens that are written out in a text: <|im_start|> and its like. Immutable. [any]
class SpecialTokens {
 public:
  /// Tokens longer than this are not looked for: at every place of a text the search may go so deep.
  static constexpr size_t kMaxTextBytes = 128;
  static constexpr size_t kMaxNodes = 4u << 20;

  /// errors  kInvalidArgument  more text than any real vocabulary marks as special
  static Result<SpecialTokens> build(const Vocabulary &vocabulary);

  struct Match {
    int32_t token = kNoToken;
    size_t begin = 0;
    size_t size = 0;  ///< bytes
  };

  /// The leftmost match at or after `from`, the longest of those; kNoToken: none.
  /// with_control  also control tokens, not only user-defined ones
  Match find(std::string_view text, size_t from, bool with_control) const;

 private:
  /// Of the trie of their texts. The root is node 0.
  struct Node {
    int32_t token = kNoToken;
    bool user_defined = false;
  };
  void insert(std::string_view text, int32_t token, bool user_defined);
  Match longest_at(std::string_view text, size_t at, bool with_control) const;

  std::vector<Node> nodes_{1};
  std::unordered_map<uint64_t, uint32_t> edges_;  // (node << 8 | byte) -> node
  std::array<bool, 256> begins_{};                // the first bytes, which most places of a text rule out
};

}  // namespace sluice::text

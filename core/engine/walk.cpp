#include "core/engine/walk.hpp"

#include <algorithm>

namespace sluice::engine {

bool WalkEnds::stops(int32_t token) const {
  return std::find(stop_tokens.begin(), stop_tokens.end(), token) != stop_tokens.end();
}

void walk_match(std::span<const DraftNode> drafts, std::span<const int32_t> chosen, const WalkEnds &ends, Walk &out) {
  out.accepted.clear();
  out.tokens.clear();
  out.no_token = false;
  for (int32_t at = -1;;) {
    const int32_t token = chosen[static_cast<size_t>(at + 1)];
    if (token < 0) {
      out.no_token = true;
      return;
    }
    out.tokens.push_back(token);
    if (ends.stops(token) || out.tokens.size() == ends.max_tokens) return;
    const auto child = std::find_if(drafts.begin() + (at + 1), drafts.end(), [&](const DraftNode &node) {
      return node.parent == at && node.token == token;
    });
    if (child == drafts.end()) return;
    at = static_cast<int32_t>(child - drafts.begin());
    out.accepted.push_back(static_cast<uint32_t>(at));
  }
}

}  // namespace sluice::engine

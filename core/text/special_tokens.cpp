#include "core/text/special_tokens.hpp"

#include <fmt/format.h>

namespace sluice::text {
namespace {

uint64_t edge(uint64_t node, char c) { return (node << 8) | static_cast<unsigned char>(c); }

}  // namespace

Result<SpecialTokens> SpecialTokens::build(const Vocabulary &vocabulary) {
  SpecialTokens out;
  for (int32_t id = 0; vocabulary.contains(id); ++id) {
    const TokenKind kind = vocabulary.kind(id);
    if (kind != TokenKind::kControl && kind != TokenKind::kUserDefined && kind != TokenKind::kUnknown) continue;
    const std::string_view text = vocabulary.text(id);
    if (!text.empty() && text.size() <= kMaxTextBytes) out.insert(text, id, kind == TokenKind::kUserDefined);
    if (out.nodes_.size() > kMaxNodes)
      return invalid_argument(fmt::format("the vocabulary marks more than {} bytes of tokens as special", kMaxNodes));
  }
  return out;
}

void SpecialTokens::insert(std::string_view text, int32_t token, bool user_defined) {
  begins_[static_cast<unsigned char>(text[0])] = true;
  uint32_t node = 0;
  for (const char c : text) {
    const auto [place, is_new] = edges_.try_emplace(edge(node, c), static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    node = place->second;
  }
  if (nodes_[node].token == kNoToken) nodes_[node] = {token, user_defined};
}

SpecialTokens::Match SpecialTokens::find(std::string_view text, size_t from, bool with_control) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (!begins_[static_cast<unsigned char>(text[at])]) continue;
    const Match match = longest_at(text, at, with_control);
    if (match.token != kNoToken) return match;
  }
  return {};
}

SpecialTokens::Match SpecialTokens::longest_at(std::string_view text, size_t at, bool with_control) const {
  Match best;
  uint32_t node = 0;
  for (size_t end = at; end < text.size(); ++end) {
    const auto next = edges_.find(edge(node, text[end]));
    if (next == edges_.end()) break;
    node = next->second;
    if (nodes_[node].token != kNoToken && (with_control || nodes_[node].user_defined))
      best = {nodes_[node].token, at, end + 1 - at};
  }
  return best;
}

}  // namespace sluice::text

#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/engine/draft_tree.hpp"
#include "core/engine/residual.hpp"

namespace sluice::engine {

/// Which drafts of a sequence were right, and the tokens that come of it.
struct Walk {
  std::vector<uint32_t> accepted;  ///< nodes from the root on; the path of the answer
  /// tokens[0] was chosen by the root's row, tokens[i] by that of accepted[i - 1]; each but the last is the token of
  /// accepted[i]. Empty when the root's row left no token.
  std::vector<int32_t> tokens;
  bool no_token = false;  ///< the last row of the path left no token
};

/// Where an answer ends although drafts go on.
struct WalkEnds {
  std::span<const int32_t> stop_tokens;
  uint32_t max_tokens = 0;  ///< at least 1
  bool stops(int32_t token) const;
};

/// The default verification: every row has drawn as if there were no drafts; follow the child that equals the token.
/// Whatever the drafts, these are the tokens of plain decoding.
///   chosen  token of the root's row, then of each node's; -1 = none was left
void walk_match(std::span<const DraftNode> drafts, std::span<const int32_t> chosen, const WalkEnds &ends, Walk &out);

/// What a walk by probabilities asks about a node; -1 = the root.
class WalkRows {
 public:
  virtual ~WalkRows() = default;
  /// The request's distribution after the node: [vocab], as its samplers leave it.
  virtual void probabilities(int32_t node, std::vector<double> &out) const = 0;
  /// The token that plain decoding draws there; -1 = none is left.
  virtual int32_t drawn(int32_t node) const = 0;
  virtual DraftDistribution distribution(int32_t q) const = 0;
  virtual uint64_t seed() const = 0;
  virtual uint32_t position(int32_t node) const = 0;  ///< of the token that is chosen there
};

/// Exact rejection sampling where children were sampled, match where not.
void walk_rejection(std::span<const DraftNode> drafts, const WalkRows &rows, Siblings siblings, const WalkEnds &ends,
                    Walk &out);

/// Medusa's typical acceptance (Cai et al. 2024): a draft x stays if p(x) > min(epsilon, alpha * exp(-entropy of p)).
/// The longest path, among equals the likelier. LOSSY: the answer's distribution is another one.
void walk_typical(std::span<const DraftNode> drafts, const WalkRows &rows, double epsilon, double alpha,
                  const WalkEnds &ends, Walk &out);

}  // namespace sluice::engine

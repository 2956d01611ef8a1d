#include "core/engine/walk.hpp"

#include <sluice/abi/rng.h>
#include <sluice/sdk/draw.hpp>

#include <algorithm>
#include <cmath>
#include <optional>

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

namespace {

double unit(const WalkRows &rows, int32_t node, uint32_t attempt) {
  uint32_t words[4];
  sluice_rng(rows.seed(), rows.position(node), SLUICE_RNG_ACCEPT, attempt / 4, words);
  return static_cast<double>(sluice_rng_unit(words[attempt % 4]));
}

/// THE DRAW with the residual's own noise.
int32_t draw_residual(std::span<const double> p, uint64_t seed, uint32_t position) {
  sdk::DrawBest best;
  for (size_t v = 0; v < p.size(); ++v)
    if (p[v] > 0)
      best.offer(static_cast<float>(std::log(p[v])) +
                     sdk::gumbel_of(seed, position, SLUICE_RNG_RESIDUAL, static_cast<int32_t>(v)),
                 static_cast<int32_t>(v));
  return best.best.id;
}

struct Step {
  int32_t token = -1;
  int32_t child = -1;  ///< -1: the walk ends with the token
};

Step try_children(std::span<const DraftNode> drafts, int32_t at, const WalkRows &rows, Siblings siblings) {
  std::vector<double> p;
  std::optional<Residual> residual;
  uint32_t attempt = 0;
  for (size_t i = static_cast<size_t>(at + 1); i < drafts.size(); ++i) {
    const auto &node = drafts[i];
    if (node.parent != at) continue;
    if (node.q < 0) {  // chosen in some way: all of these siblings are
      if (node.token == rows.drawn(at)) return {node.token, static_cast<int32_t>(i)};
      continue;
    }
    if (!residual) {
      rows.probabilities(at, p);
      residual.emplace(p, siblings);
    }
    const auto q = rows.distribution(node.q);
    if (unit(rows, at, attempt++) < residual->acceptance(node.token, q)) return {node.token, static_cast<int32_t>(i)};
    residual->reject(node.token, q);
  }
  if (!residual) return {rows.drawn(at), -1};
  return {draw_residual(residual->left(), rows.seed(), rows.position(at)), -1};
}

}  // namespace

void walk_rejection(std::span<const DraftNode> drafts, const WalkRows &rows, Siblings siblings, const WalkEnds &ends,
                    Walk &out) {
  out = {};
  for (int32_t at = -1;;) {
    const auto step = rows.drawn(at) < 0 ? Step{} : try_children(drafts, at, rows, siblings);
    if (step.token < 0) {
      out.no_token = true;
      return;
    }
    out.tokens.push_back(step.token);
    if (step.child < 0 || ends.stops(step.token) || out.tokens.size() == ends.max_tokens) return;
    at = step.child;
    out.accepted.push_back(static_cast<uint32_t>(at));
  }
}

void walk_typical(std::span<const DraftNode> drafts, const WalkRows &rows, double epsilon, double alpha,
                  const WalkEnds &ends, Walk &out) {
  out = {};
  // Of every node that stays: how far it is and how likely; parents come first.
  std::vector<double> log_p(drafts.size(), 0);
  std::vector<uint8_t> stays(drafts.size(), 0);
  std::vector<std::vector<double>> p(drafts.size() + 1);
  std::vector<double> threshold(drafts.size() + 1, 0);
  int32_t best = -1;
  for (size_t i = 0; i < drafts.size(); ++i) {
    const auto &node = drafts[i];
    const auto above = static_cast<size_t>(node.parent + 1);
    if (node.parent >= 0 && stays[above - 1] == 0) continue;
    if (p[above].empty()) {
      rows.probabilities(node.parent, p[above]);
      double entropy = 0;
      for (const double value : p[above])
        if (value > 0) entropy -= value * std::log(value);
      threshold[above] = std::min(epsilon, alpha * std::exp(-entropy));
    }
    const double likely = p[above][static_cast<size_t>(node.token)];
    // Nothing goes behind the answer's end.
    if (!(likely > threshold[above]) || (node.parent >= 0 && ends.stops(drafts[above - 1].token)) ||
        node.depth > ends.max_tokens)
      continue;
    stays[i] = 1;
    log_p[i] = (node.parent >= 0 ? log_p[above - 1] : 0) + std::log(likely);
    const bool better = best < 0 || node.depth > drafts[static_cast<size_t>(best)].depth ||
                        (node.depth == drafts[static_cast<size_t>(best)].depth &&
                         log_p[i] > log_p[static_cast<size_t>(best)]);
    if (better) best = static_cast<int32_t>(i);
  }
  for (int32_t at = best; at >= 0; at = drafts[static_cast<size_t>(at)].parent) {
    out.accepted.push_back(static_cast<uint32_t>(at));
    out.tokens.push_back(drafts[static_cast<size_t>(at)].token);
  }
  std::reverse(out.accepted.begin(), out.accepted.end());
  std::reverse(out.tokens.begin(), out.tokens.end());
  if (!out.tokens.empty() && (ends.stops(out.tokens.back()) || out.tokens.size() == ends.max_tokens)) {
    out.accepted.pop_back();  // the last token's own KV is not wanted
    return;
  }
  const int32_t last = rows.drawn(best);
  out.no_token = last < 0;
  if (last >= 0) out.tokens.push_back(last);
}

}  // namespace sluice::engine

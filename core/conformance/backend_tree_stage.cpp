// Stage F, second part: draft trees, swap space, and the reference backend as the oracle.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/conformance/backend_driver.hpp"
#include "core/plugin/registry.hpp"

namespace sluice::conformance {
namespace {

constexpr double kOracleNmse = 5e-3;  ///< a backend may compute with 8-bit activations

/// The tokens of `path` (indices into tree) behind the cached part of s, one after the other: the rows of plain decoding.
Logits last_row(BackendDriver &d, const std::vector<int32_t> &context, const std::vector<int32_t> &path_tokens) {
  std::vector<int32_t> tokens = context;
  tokens.insert(tokens.end(), path_tokens.begin(), path_tokens.end());
  return d.whole(tokens);
}

double nmse(const Logits &is, const Logits &should) {
  double error = 0, power = 0;
  for (size_t i = 0; i < is.size(); ++i) {
    if (std::isinf(should[i])) continue;
    error += std::pow(static_cast<double>(is[i]) - static_cast<double>(should[i]), 2);
    power += std::pow(static_cast<double>(should[i]), 2);
  }
  return power == 0 ? error : error / power;
}

}  // namespace

void check_trees(BackendDriver &d, Findings &findings) {
  if ((d.caps() & SLUICE_CAP_TREE) == 0) return findings.note("trees are not checked: CAP_TREE is not set");
  const uint32_t half = std::min<uint32_t>(20, static_cast<uint32_t>(d.prompt().size()) / 2);
  const std::vector<int32_t> context(d.prompt().begin(), d.prompt().begin() + half);
  // A chain, and a tree with two children of the root and branches below: 0 -> 1 -> 3, 0 -> 2 -> 4, 2 -> 5.
  const std::vector<std::vector<int32_t>> shapes = {{-1, 0, 1, 2}, {-1, 0, 0, 1, 2, 2}};
  for (const auto &parent : shapes) {
    const bool chain = parent == shapes.front();
    std::vector<int32_t> tokens = context;
    for (size_t i = 0; i < parent.size(); ++i) tokens.push_back(d.prompt()[(half + 2 * i) % d.prompt().size()]);
    BackendSequence s = d.make(tokens, BackendDriver::kBlocks / 2, 1);  // away from whole(), which writes the same tokens
    if (d.step({{&s, half}}, "the context of a tree").empty()) return;
    const auto n = static_cast<uint32_t>(parent.size());
    const auto rows = d.step({{&s, n, parent}}, chain ? "a chain of drafts" : "a tree of drafts");
    if (rows.size() != n) return;
    for (uint32_t node = 0; node < n; ++node) {
      std::vector<int32_t> path;
      for (auto at = static_cast<int32_t>(node); at >= 0; at = parent[static_cast<size_t>(at)])
        path.insert(path.begin(), tokens[half + static_cast<size_t>(at)]);
      d.expect_same(rows[node], last_row(d, context, path), "F10 a path of a tree equals plain decoding",
                    fmt::format("node {} of a {}", node, chain ? "chain" : "tree"),
                    "a token sees the cached context and its ancestors, and nothing of its siblings; siblings share a position");
    }
    if (chain || (d.caps() & SLUICE_CAP_MOVE_SLOTS) == 0) continue;
    // Nodes 0, 2 and 5 are accepted: their slots become consecutive, and the sequence goes on.
    const auto slot = [&](uint32_t i) { return s.blocks[(half + i) / d.block_size()] * d.block_size() + (half + i) % d.block_size(); };
    if (!d.kv_ops(SLUICE_KV_MOVE_SLOTS, {slot(2), slot(5)}, {slot(1), slot(2)}, "F11 an accepted path can be moved together")) return;
    std::vector<int32_t> accepted = {tokens[half], tokens[half + 2], tokens[half + 5], d.prompt()[1]};
    s.tokens = context;
    s.tokens.insert(s.tokens.end(), accepted.begin(), accepted.end());
    s.cached = half + 3;
    const auto next = d.step({{&s, 1}}, "after an accepted path");
    if (!next.empty())
      d.expect_same(next[0], last_row(d, context, accepted), "F11 an accepted path can be moved together",
                    "the token behind an accepted path", "MOVE_SLOTS copies keys and values as they are stored, in every layer");
  }
}

void check_swap(BackendDriver &d, Findings &findings) {
  if ((d.caps() & SLUICE_CAP_KV_HOST_SPACE) == 0) return findings.note("swapping is not checked: CAP_KV_HOST_SPACE is not set");
  const char *rule = "F12 swapped blocks come back";
  const Logits expected = d.whole(d.prompt());
  BackendSequence s = d.make(d.prompt(), 0, 1);
  if (s.blocks.size() > BackendDriver::kHostBlocks) return findings.note("swapping is not checked: the prompt has too many blocks");
  const auto most = static_cast<uint32_t>(d.prompt().size()) - 1;
  if (d.step({{&s, most}}, "before a swap").empty()) return;
  std::vector<uint32_t> host(s.blocks.size()), elsewhere = s.blocks;
  for (uint32_t i = 0; i < host.size(); ++i) host[i] = BackendDriver::kHostBlocks - 1 - i;
  for (uint32_t &b : elsewhere) b = BackendDriver::kBlocks - 1 - b;
  if (!d.kv_ops(SLUICE_KV_SWAP_OUT, s.blocks, host, rule)) return;
  std::vector<int32_t> other(d.prompt().rbegin(), d.prompt().rend());
  BackendSequence scribble = d.make(other, 0, 1);  // in the very blocks that have just been swapped out
  if (d.feed(scribble, {BackendDriver::kMaxTokens}, "writing over swapped blocks").empty()) return;
  if (!d.kv_ops(SLUICE_KV_SWAP_IN, host, elsewhere, rule)) return;
  s.blocks = elsewhere;
  const auto rows = d.step({{&s, 1}}, "after a swap");
  if (!rows.empty())
    d.expect_same(rows[0], expected, rule, "a sequence that was swapped out and in",
                  "SWAP_OUT takes effect before the next submit writes to the block, SWAP_IN before the next reads it");
}

void check_against_oracle(BackendDriver &d, const sluice_host_api *api, const std::string &model, Findings &findings) {
  const auto folders = plugin::search_folders({});
  if (!folders) return findings.note("no oracle: " + folders.error().message);
  plugin::Registry registry(*folders);
  const auto library = registry.load(SLUICE_KIND_BACKEND, "reference", *api);
  if (!library) return findings.note("no oracle: " + library.error().message);
  const auto options = plugin::Options::defaults((*library)->schema);
  if (!options) return findings.note("no oracle: " + options.error().message);
  BackendDriver oracle(findings);
  if (!oracle.load(**library, api, **options, model)) return;
  const auto &a = d.model().info(), &b = oracle.model().info();
  if (d.model().arch() != oracle.model().arch() || a.vocab_size != b.vocab_size || a.n_layers != b.n_layers ||
      d.prompt() != oracle.prompt())
    return findings.note(fmt::format("not compared with the oracle: it says {} with {} layers, the oracle {} with {}",
                                     d.model().arch(), a.n_layers, oracle.model().arch(), b.n_layers));
  double worst = 0;
  for (const size_t n : {size_t{1}, size_t{5}, d.prompt().size() / 2, d.prompt().size()}) {
    const std::vector<int32_t> tokens(d.prompt().begin(), d.prompt().begin() + static_cast<std::ptrdiff_t>(n));
    const Logits is = d.whole(tokens), should = oracle.whole(tokens);
    if (is.empty() || should.empty()) return;
    worst = std::max(worst, nmse(is, should));
  }
  findings.note(fmt::format("against the oracle: normalised mean square error of logits {:.2g}", worst));
  if (!(worst <= kOracleNmse))
    findings.fail("F13 logits are those of the model", fmt::format("the error is {:.2g}; at most {:.2g} is rounding", worst, kOracleNmse),
                  "compare with backends/reference op by op: weights, rope, norms, masks");
}

}  // namespace sluice::conformance

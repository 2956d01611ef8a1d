#include "core/engine/draft_tree.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace sluice::engine {
namespace {

constexpr uint32_t kSparseEntriesPerNode = 64;
constexpr float kSumTolerance = 1e-3F;

}  // namespace

float DraftDistribution::of(int32_t token) const {
  if (!dense.empty()) return dense[static_cast<size_t>(token)];
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] == token) return probs[i];
  return 0;
}

void DraftTree::open(uint32_t n_seqs) {
  const size_t room = size_t{n_seqs} * std::max(needs_.max_nodes, needs_.max_fed);
  const auto grow = [&](auto &...arrays) { ((arrays.size() < room ? arrays.resize(room) : void()), ...); };
  grow(seq_, flags_, depth_, token_, parent_, q_, score_);
  const bool sampled = (needs_.proposals & (SLUICE_PROPOSE_SAMPLED | SLUICE_PROPOSE_SAMPLED_IID)) != 0;
  const size_t q_room = sampled ? room * kSparseEntriesPerNode : 0;
  if (q_id_.size() < q_room) q_id_.resize(q_room), q_prob_.resize(q_room);
  if (q_indptr_.size() < room + 1) q_indptr_.resize(room + 1);
  q_indptr_[0] = 0;
  n_seqs_ = n_seqs;
  n_ = n_q_ = 0;
  q_form_ = SLUICE_Q_HOST;
  abi_ = {};
  abi_.capacity = static_cast<uint32_t>(room);
  abi_.q_capacity = static_cast<uint32_t>(q_room);
}

sluice_draft_tree *DraftTree::again() {
  old_seq_.assign(seq_.begin(), seq_.begin() + n_);
  old_token_.assign(token_.begin(), token_.begin() + n_);
  old_parent_.assign(parent_.begin(), parent_.begin() + n_);
  old_q_.assign(q_.begin(), q_.begin() + n_);
  old_score_.assign(score_.begin(), score_.begin() + n_);
  const uint32_t capacity = abi_.capacity;
  const uint32_t q_capacity = abi_.q_capacity;
  abi_ = {};
  abi_.struct_size = SLUICE_SIZE_THROUGH(sluice_draft_tree, q_prob);
  abi_.capacity = capacity;
  abi_.n = n_;
  abi_.q_form = q_form_;
  abi_.seq = seq_.data();
  abi_.token = token_.data();
  abi_.parent = parent_.data();
  abi_.flags = flags_.data();
  abi_.q = q_.data();
  abi_.score = score_.data();
  abi_.q_capacity = q_capacity;
  abi_.n_q = n_q_;
  abi_.q_indptr = q_indptr_.data();
  abi_.q_id = q_id_.data();
  abi_.q_prob = q_prob_.data();
  return &abi_;
}

std::string DraftTree::check(uint32_t host_q_rows) {
  const sluice_draft_tree &tree = abi_;
  const auto room = static_cast<uint32_t>(std::min<size_t>(size_t{n_seqs_} * std::max(needs_.max_nodes, needs_.max_fed),
                                                           seq_.size()));
  if (tree.n < n_ || tree.n > room) return fmt::format("{} nodes; it had {} and there is room for {}", tree.n, n_, room);
  if (!std::equal(old_seq_.begin(), old_seq_.end(), seq_.begin()) ||
      !std::equal(old_token_.begin(), old_token_.end(), token_.begin()) ||
      !std::equal(old_parent_.begin(), old_parent_.end(), parent_.begin()) ||
      !std::equal(old_q_.begin(), old_q_.end(), q_.begin()) ||
      !std::equal(old_score_.begin(), old_score_.end(), score_.begin()))
    return "a node of an earlier round was changed";
  if (tree.q_form != SLUICE_Q_HOST && tree.q_form != SLUICE_Q_SPARSE) return fmt::format("q_form is {}", tree.q_form);
  if (n_ > 0 && tree.q_form != q_form_) return "q_form was changed between rounds";
  uint32_t n_q_rows = host_q_rows;
  if (tree.q_form == SLUICE_Q_SPARSE) {
    if (auto wrong = check_own_q(tree); !wrong.empty()) return wrong;
    n_q_rows = tree.n_q;
  }
  for (uint32_t node = n_; node < tree.n; ++node) {
    if (auto wrong = check_node(node, n_q_rows); !wrong.empty()) return wrong;
    depth_[node] = parent_[node] < 0 ? 1 : depth_[static_cast<size_t>(parent_[node])] + 1;
    if (depth_[node] > needs_.max_depth)
      return fmt::format("node {} has depth {}, its needs say {}", node, depth_[node], needs_.max_depth);
  }
  n_ = tree.n;
  q_form_ = tree.q_form;
  n_q_ = tree.q_form == SLUICE_Q_SPARSE ? tree.n_q : 0;
  return {};
}

std::string DraftTree::check_node(uint32_t node, uint32_t n_q_rows) const {
  if (seq_[node] >= n_seqs_) return fmt::format("node {} is of sequence {}, there are {}", node, seq_[node], n_seqs_);
  if (token_[node] < 0 || static_cast<uint32_t>(token_[node]) >= vocab_size_)
    return fmt::format("node {} is token {}, the vocabulary has {}", node, token_[node], vocab_size_);
  const int32_t parent = parent_[node];
  if (parent < -1 || parent >= static_cast<int32_t>(node) ||
      (parent >= 0 && seq_[static_cast<size_t>(parent)] != seq_[node]))
    return fmt::format("node {} has parent {}; it must be -1 or an earlier node of its sequence", node, parent);
  if ((flags_[node] & ~SLUICE_NODE_FEED) != 0) return fmt::format("node {} has unknown flags {}", node, flags_[node]);
  if (std::isnan(score_[node])) return fmt::format("node {} has a score that is no number", node);
  if (q_[node] < -1 || q_[node] >= static_cast<int32_t>(n_q_rows))
    return fmt::format("node {} has q row {}, there are {}", node, q_[node], n_q_rows);
  for (uint32_t before = node; before > 0; --before) {
    if (seq_[before - 1] != seq_[node] || parent_[before - 1] != parent) continue;
    if (q_[before - 1] != q_[node]) return fmt::format("nodes {} and {} are siblings of different q", before - 1, node);
    break;
  }
  return {};
}

std::string DraftTree::check_own_q(const sluice_draft_tree &tree) const {
  if (size_t{tree.n_q} + 1 > q_indptr_.size() || tree.n_q < n_q_)
    return fmt::format("{} q rows; it had {} and there is room for {}", tree.n_q, n_q_, q_indptr_.size() - 1);
  if (q_indptr_[0] != 0) return "q_indptr does not begin with 0";
  for (uint32_t row = 0; row < tree.n_q; ++row) {
    const uint32_t begin = q_indptr_[row];
    const uint32_t end = q_indptr_[row + 1];
    if (end < begin || end > q_id_.size()) return fmt::format("q row {} is entries {} to {}", row, begin, end);
    float sum = 0;
    for (uint32_t i = begin; i < end; ++i) {
      if (q_id_[i] < 0 || static_cast<uint32_t>(q_id_[i]) >= vocab_size_ || !(q_prob_[i] >= 0))
        return fmt::format("q row {} gives token {} the probability {}", row, q_id_[i], q_prob_[i]);
      if (std::find(q_id_.begin() + begin, q_id_.begin() + i, q_id_[i]) != q_id_.begin() + i)
        return fmt::format("q row {} lists token {} twice", row, q_id_[i]);
      sum += q_prob_[i];
    }
    if (!(std::abs(sum - 1) <= kSumTolerance)) return fmt::format("q row {} sums to {}", row, sum);
  }
  return {};
}

DraftDistribution DraftTree::own_q(uint32_t row) const {
  const size_t begin = q_indptr_[row];
  const size_t n = q_indptr_[row + 1] - begin;
  return {{}, std::span(q_id_).subspan(begin, n), std::span(q_prob_).subspan(begin, n)};
}

void DraftTree::take(uint32_t seq, uint32_t budget, uint32_t max_depth, DraftTrim trim,
                     std::vector<DraftNode> &out) const {
  out.clear();
  std::vector<int32_t> kept(n_, -1);  // index in `out`
  for (uint32_t node = 0; node < n_; ++node) {
    if (seq_[node] != seq || depth_[node] > max_depth) continue;
    const int32_t parent = parent_[node] < 0 ? -1 : kept[static_cast<size_t>(parent_[node])];
    if (parent_[node] >= 0 && parent < 0) continue;  // below a twin
    const bool twin = std::any_of(out.begin(), out.end(), [&](const DraftNode &other) {
      return other.parent == parent && other.token == token_[node];
    });
    if (twin && trim == DraftTrim::kByScore) continue;
    if (trim == DraftTrim::kByOrder && out.size() == budget) break;
    kept[node] = static_cast<int32_t>(out.size());
    out.push_back({token_[node], parent, depth_[node], q_[node], node});
  }
  drop_smallest(budget, out);
  rank(out);
}

void DraftTree::rank(std::vector<DraftNode> &nodes) const {
  std::vector<uint32_t> order(nodes.size());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return score_[nodes[a].source] > score_[nodes[b].source];
  });
  for (uint32_t i = 0; i < order.size(); ++i) nodes[order[i]].rank = i;
}

void DraftTree::drop_smallest(uint32_t budget, std::vector<DraftNode> &nodes) const {
  if (nodes.size() <= budget) return;
  std::vector<uint32_t> children(nodes.size(), 0);
  for (const auto &node : nodes)
    if (node.parent >= 0) ++children[static_cast<size_t>(node.parent)];
  std::vector<uint8_t> dead(nodes.size(), 0);
  for (size_t left = nodes.size(); left > budget; --left) {
    size_t worst = nodes.size();
    for (size_t i = nodes.size(); i > 0; --i) {
      if (dead[i - 1] != 0 || children[i - 1] > 0) continue;
      if (worst == nodes.size() || score_[nodes[i - 1].source] < score_[nodes[worst].source]) worst = i - 1;
    }
    dead[worst] = 1;
    if (nodes[worst].parent >= 0) --children[static_cast<size_t>(nodes[worst].parent)];
  }
  drop_subtrees(nodes, dead);
}

void drop_subtrees(std::vector<DraftNode> &nodes, std::span<const uint8_t> dead) {
  std::vector<int32_t> kept(nodes.size(), -1);
  size_t n = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const bool orphan = nodes[i].parent >= 0 && kept[static_cast<size_t>(nodes[i].parent)] < 0;
    if (dead[i] != 0 || orphan) continue;
    kept[i] = static_cast<int32_t>(n);
    auto node = nodes[i];
    if (node.parent >= 0) node.parent = kept[static_cast<size_t>(node.parent)];
    nodes[n++] = node;
  }
  nodes.resize(n);
}

}  // namespace sluice::engine

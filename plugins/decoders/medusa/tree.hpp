// Which guesses of which heads are drafted: a tree whose nodes name a head by their depth and a guess by its rank.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::medusa {

/// How a node is reached from the root: the rank of the guess at every depth.
using Path = std::vector<uint32_t>;

struct TreeNode {
  int32_t parent = -1;  ///< index, -1 = the root, which is no node
  uint32_t head = 0;    ///< its depth - 1
  uint32_t rank = 0;    ///< 0 = the head's best guess
  float score = 0;      ///< how much it is wanted: at most the parent's
};

/// Always: nodes are sorted by depth, then by path; parents come first.
struct Tree {
  std::vector<TreeNode> nodes;
  /// [nodes] the indices of `nodes` from the most to the least wanted; parents come first here too.
  std::vector<uint32_t> by_score;
  uint32_t depth() const { return nodes.empty() ? 0 : nodes.back().head + 1; }
  bool is_chain() const { return nodes.size() == depth(); }
};

/// Share at which the guess of each rank is right, [heads][ranks].
using Accuracy = std::vector<std::vector<double>>;

// errors of all: sdk::Error INVALID_ARGUMENT, which names what is wrong with the text.

/// Paths as Medusa writes them, most wanted first: [[0], [0, 0], [1]].
std::vector<Path> parse_paths(std::string_view text);
/// The paths of one of SLUICE_MEDUSA_PRESETS.
std::vector<Path> preset_paths(std::string_view name);
/// One string of numbers per head: "0.61 0.1 0.05".
Accuracy parse_accuracy(const std::vector<std::string> &lines);

/// The tree of these paths, the first being the most wanted. Every prefix of a path must be there.
Tree tree_of(const std::vector<Path> &paths);
/// The max_nodes nodes with the largest product of accuracies on their way: how often a step gets there, if heads err
/// independently.
Tree grow_tree(const Accuracy &accuracy, uint32_t max_nodes);

#define SLUICE_MEDUSA_PRESETS                                                                                    \
  "mc_sim_7b_63|vicuna_7b_stage1|vicuna_7b_stage1_ablation|vicuna_7b_stage2|vicuna_13b_stage1|vicuna_13b_stage2" \
  "|vicuna_33b_stage1|vicuna_33b_stage2|zephyr_stage2"

}  // namespace sluice::medusa

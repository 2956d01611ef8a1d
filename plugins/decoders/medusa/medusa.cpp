// Medusa (Cai et al. 2024, arXiv:2401.10774): heads of the target guess the tokens behind the next one, and a tree says
// which of their guesses are tried together: a fixed one, or in every step that of the heads' own probabilities. The
// heads run with the model; here is only the tree.
#include "tree.hpp"

#include <sluice/sdk/decoder.hpp>

#include <algorithm>
#include <fstream>

namespace sluice::medusa {
namespace {
using namespace sdk;

constexpr const char *kDefaultTree = "mc_sim_7b_63";
constexpr const char *kDynamic = "dynamic";
constexpr size_t kMaxFileBytes = 1 << 20;

struct Sequence {
  uint32_t max_nodes = 0;
};

[[noreturn]] void refuse(const std::string &what, int32_t code = SLUICE_E_INVALID_ARGUMENT) { throw Error(code, what); }

std::string read_file(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(kMaxFileBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!in.eof() || in.bad()) refuse("tree_file '" + path + "' cannot be read, or is larger than 1 MiB", SLUICE_E_NOT_FOUND);
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

/// Whether a path asks for more than the model's heads give.
auto beyond(uint32_t n_heads, uint32_t head_top) {
  return [=](const Path &p) {
    return p.size() > n_heads || std::any_of(p.begin(), p.end(), [=](uint32_t rank) { return rank >= head_top; });
  };
}

void check_one_tree(const Config &config) {
  if ((config.str("tree", "auto") != "auto") + !config.str("tree_file").empty() + !config.list("accuracy").empty() > 1)
    refuse("tree, tree_file and accuracy each decide the tree; set one of them");
}

Tree build_tree(const Config &config, uint32_t n_heads, uint32_t head_top) {
  const std::string name = config.str("tree", "auto"), file = config.str("tree_file");
  const std::vector<std::string> measured = config.list("accuracy");
  if (!measured.empty()) {
    const Accuracy accuracy = parse_accuracy(measured);
    if (accuracy.size() > n_heads)
      refuse("accuracy has " + std::to_string(accuracy.size()) + " heads; the model has " + std::to_string(n_heads));
    for (const std::vector<double> &shares : accuracy)
      if (shares.size() > head_top)
        refuse("accuracy has " + std::to_string(shares.size()) + " ranks; a head gives " + std::to_string(head_top));
    return grow_tree(accuracy, static_cast<uint32_t>(config.i64("max_nodes", 63)));
  }
  if (!file.empty()) {
    const std::vector<Path> paths = parse_paths(read_file(file));
    if (std::any_of(paths.begin(), paths.end(), beyond(n_heads, head_top)))
      refuse("tree_file '" + file + "' asks for more than the model's " + std::to_string(n_heads) + " heads with " +
             std::to_string(head_top) + " guesses each");
    return tree_of(paths);
  }
  std::vector<Path> paths = preset_paths(name == "auto" ? kDefaultTree : name);
  paths.erase(std::remove_if(paths.begin(), paths.end(), beyond(n_heads, head_top)), paths.end());
  return tree_of(paths);
}

uint32_t heads_of(const sluice_decoder_setup &setup) {
  const uint32_t n = setup.target == nullptr ? 0 : setup.target->n_heads;
  if (n == 0) refuse("the model has no draft heads; set draft_heads of the model to a file of them", SLUICE_E_UNSUPPORTED);
  return n;
}

class Medusa final : public Decoder<Sequence> {
 public:
  Medusa(const sluice_host_api &, const Config &config, const sluice_decoder_setup &setup)
      : n_heads_(heads_of(setup)),
        dynamic_(config.str("tree", "auto") == kDynamic),
        adaptive_(config.flag("adaptive", true)) {
    max_nodes_ = static_cast<uint32_t>(config.i64("max_nodes", 63));
    check_one_tree(config);
    if (dynamic_) {
      open_.reserve(2 * max_nodes_ + 1);
      return;
    }
    tree_ = build_tree(config, n_heads_, setup.target->head_top);
    if (tree_.nodes.empty() && max_nodes_ > 0) refuse("the tree has no node");
    max_nodes_ = std::min(max_nodes_, static_cast<uint32_t>(tree_.nodes.size()));
    place_.resize(tree_.nodes.size());
  }

  void needs(sluice_decoder_needs &needs) const override {
    if (max_nodes_ == 0) return;
    needs.proposals = SLUICE_PROPOSE_DETERMINISTIC;
    needs.max_nodes = max_nodes_;
    needs.max_depth = needs.n_heads = dynamic_ ? n_heads_ : tree_.depth();
    needs.caps = !dynamic_ && tree_.is_chain() ? 0 : SLUICE_CAP_TREE | SLUICE_CAP_MOVE_SLOTS;
    needs.flags = adaptive_ ? 0 : SLUICE_DECF_PINNED;
  }

  Sequence open(const sluice_seq_start &, const Config &request) override {
    return {static_cast<uint32_t>(std::min<int64_t>(request.i64("max_nodes", max_nodes_), max_nodes_))};
  }
  uint32_t wish(const Sequence &s) const override { return s.max_nodes; }

  void draft(const sluice_draft_in &in, sdk::Tree &out) override {
    if (in.head_ids == nullptr) return;
    for (uint32_t i = 0; i < in.n_seqs; ++i) {
      const size_t first = size_t{i} * in.n_heads * in.head_top;
      const uint32_t budget = std::min(in.budget[i], seq(in.seq[i]).max_nodes);
      if (dynamic_)
        grow_one(i, budget, {in.head_ids + first, in.head_logprobs + first, in.n_heads, in.head_top}, out);
      else
        draft_one(i, budget, in.head_ids + first, in.n_heads, in.head_top, out);
    }
  }

 private:
  struct Guesses {
    const int32_t *ids;     ///< [n_heads, n_ranks], -1 where a head has none
    const float *logprobs;  ///< likewise
    uint32_t n_heads, n_ranks;
  };
  /// A node that could be next.
  struct Open {
    float logprob;  ///< of its path
    float above;    ///< of its parent's
    int32_t parent;
    uint32_t head, rank, order;  ///< order: the earlier wins among equals
    bool operator<(const Open &other) const {
      return logprob != other.logprob ? logprob < other.logprob : order > other.order;
    }
  };

  /// Best first: the most probable node, then its best child and its next sibling are open too.
  void grow_one(uint32_t i, uint32_t budget, const Guesses &g, sdk::Tree &out) {
    uint32_t order = 0;
    open_.clear();
    const auto offer = [&](float above, int32_t parent, uint32_t head, uint32_t rank) {
      if (head >= std::min(g.n_heads, n_heads_) || rank >= g.n_ranks) return;
      const size_t at = size_t{head} * g.n_ranks + rank;
      if (g.ids[at] < 0 || !(g.logprobs[at] <= 0)) return;
      open_.push_back({above + g.logprobs[at], above, parent, head, rank, order++});
      std::push_heap(open_.begin(), open_.end());
    };
    if (budget > 0) offer(0, -1, 0, 0);
    for (uint32_t n = 0; n < budget && !open_.empty(); ++n) {
      std::pop_heap(open_.begin(), open_.end());
      const Open best = open_.back();
      open_.pop_back();
      const int32_t at = out.add(i, best.parent, g.ids[size_t{best.head} * g.n_ranks + best.rank], best.logprob);
      if (at < 0) return;
      offer(best.logprob, at, best.head + 1, 0);
      offer(best.above, best.parent, best.head, best.rank + 1);
    }
  }

  /// guesses [n_heads, n_ranks] token ids, -1 where a head has none
  void draft_one(uint32_t i, uint32_t budget, const int32_t *guesses, uint32_t n_heads, uint32_t n_ranks,
                 sdk::Tree &out) {
    constexpr int32_t kLeftOut = -2;
    std::fill(place_.begin(), place_.end(), kLeftOut);
    for (uint32_t n = 0; n < budget; ++n) place_[tree_.by_score[n]] = -1;
    for (size_t n = 0; n < tree_.nodes.size(); ++n) {
      const TreeNode &node = tree_.nodes[n];
      const int32_t parent = node.parent < 0 ? -1 : place_[static_cast<size_t>(node.parent)];
      if (place_[n] == kLeftOut) continue;
      place_[n] = kLeftOut;  // until it stands
      if (parent == kLeftOut || node.head >= n_heads || node.rank >= n_ranks) continue;
      const int32_t token = guesses[size_t{node.head} * n_ranks + node.rank];
      if (token < 0) continue;
      const int32_t at = out.add(i, parent, token, node.score);
      if (at < 0) return;
      place_[n] = at;
    }
  }

  const uint32_t n_heads_;
  const bool dynamic_, adaptive_;
  uint32_t max_nodes_ = 0;
  medusa::Tree tree_;  ///< empty when dynamic
  // Scratch of draft().
  std::vector<int32_t> place_;  ///< [nodes] where a node of tree_ stands in the host's
  std::vector<Open> open_;      ///< a heap
};

constexpr sluice_config_field kFields[] = {
    str_field("tree",
              "guesses tried together: a published tree; dynamic = the most probable ones by the heads' own word, anew in "
              "each step; auto = grown from accuracy, else mc_sim_7b_63",
              "\"auto\"", "auto|dynamic|" SLUICE_MEDUSA_PRESETS),
    str_field("tree_file",
              "absolute path of a file with a tree of its own: paths of ranks such as [[0], [0, 0], [1]], most wanted first",
              nullptr),
    list_field("accuracy",
               "per head the share at which its best, second, ... guess is right, such as \"0.6 0.1 0.05\"; the tree is "
               "grown from it",
               "[]"),
    i64_field("max_nodes", "drafts per step at most, of the tree the most wanted; 0 = plain decoding", "63", 0, 1023,
              SLUICE_CFGF_PER_REQUEST),
    bool_field("adaptive", "draft less, or nothing, where it does not pay", "true")};

}  // namespace
}  // namespace sluice::medusa

SLUICE_DECODER_PLUGIN(sluice::medusa::Medusa, "medusa", "0.1.0", sluice::medusa::kFields);

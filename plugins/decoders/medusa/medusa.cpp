// Medusa (Cai et al. 2024, arXiv:2401.10774): heads of the target guess the tokens behind the next one, and a fixed tree
// says which of their guesses are tried together. The heads run with the model; here is only the tree.
#include "tree.hpp"

#include <sluice/sdk/decoder.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>

namespace sluice::medusa {
namespace {
using namespace sdk;

constexpr const char *kDefaultTree = "mc_sim_7b_63";
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

Tree build_tree(const Config &config, uint32_t n_heads, uint32_t head_top) {
  const std::string name = config.str("tree", "auto"), file = config.str("tree_file");
  const std::vector<std::string> measured = config.list("accuracy");
  if ((name != "auto") + !file.empty() + !measured.empty() > 1)
    refuse("tree, tree_file and accuracy each decide the tree; set one of them");
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
      : tree_(build_tree(config, heads_of(setup), setup.target->head_top)),
        max_nodes_(std::min(static_cast<uint32_t>(config.i64("max_nodes", 63)),
                            static_cast<uint32_t>(tree_.nodes.size()))),
        adaptive_(config.flag("adaptive", true)) {
    if (max_nodes_ == 0 && config.i64("max_nodes", 63) > 0) refuse("the tree has no node");
    place_.resize(tree_.nodes.size());
  }

  void needs(sluice_decoder_needs &needs) const override {
    if (max_nodes_ == 0) return;
    needs.proposals = SLUICE_PROPOSE_DETERMINISTIC;
    needs.max_nodes = max_nodes_;
    needs.max_depth = needs.n_heads = tree_.depth();
    needs.caps = tree_.is_chain() ? 0 : SLUICE_CAP_TREE | SLUICE_CAP_MOVE_SLOTS;
    needs.flags = adaptive_ ? 0 : SLUICE_DECF_PINNED;
  }

  Sequence open(const sluice_seq_start &, const Config &request) override {
    return {static_cast<uint32_t>(std::min<int64_t>(request.i64("max_nodes", max_nodes_), max_nodes_))};
  }
  uint32_t wish(const Sequence &s) const override { return s.max_nodes; }

  void draft(const sluice_draft_in &in, sdk::Tree &out) override {
    if (in.head_ids == nullptr) return;
    for (uint32_t i = 0; i < in.n_seqs; ++i) {
      const int32_t *guesses = in.head_ids + size_t{i} * in.n_heads * in.head_top;
      draft_one(i, std::min(in.budget[i], seq(in.seq[i]).max_nodes), guesses, in.n_heads, in.head_top, out);
    }
  }

 private:
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

  const medusa::Tree tree_;
  const uint32_t max_nodes_;
  const bool adaptive_;
  std::vector<int32_t> place_;  ///< [nodes] scratch of draft(): where a node stands in the host's tree
};

constexpr sluice_config_field kFields[] = {
    str_field("tree", "guesses tried together: a published tree; auto = grown from accuracy, else mc_sim_7b_63",
              "\"auto\"", "auto|" SLUICE_MEDUSA_PRESETS),
    str_field("tree_file", "file with a tree of its own: paths of ranks such as [[0], [0, 0], [1]], most wanted first",
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

#include "tree.hpp"

#include <sluice/sdk/config.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace sluice::medusa {
namespace {

constexpr uint32_t kMaxDepth = 32, kMaxRank = 1023;
constexpr size_t kMaxNodes = 4096;

[[noreturn]] void refuse_tree(const std::string &what) { throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, what); }

std::string path_text(const Path &path) {
  std::string text = "[";
  for (const uint32_t rank : path) text += (text.size() > 1 ? ", " : "") + std::to_string(rank);
  return text + "]";
}

/// Sorts scored paths into a tree; a child is wanted no more than its parent, so scores are carried upwards.
Tree make_tree(std::map<Path, float> scores) {
  std::vector<Path> paths;
  for (const auto &[path, score] : scores) paths.push_back(path);
  const auto shorter = [](const Path &a, const Path &b) { return a.size() < b.size(); };
  std::stable_sort(paths.begin(), paths.end(), shorter);  // they were in order already
  for (auto p = paths.rbegin(); p != paths.rend(); ++p) {
    if (p->size() == 1) continue;
    const auto parent = scores.find(Path(p->begin(), p->end() - 1));
    if (parent == scores.end())
      refuse_tree("the tree has " + path_text(*p) + " but not " + path_text(Path(p->begin(), p->end() - 1)));
    parent->second = std::max(parent->second, scores.at(*p));
  }
  Tree tree;
  std::map<Path, int32_t> index;
  for (const Path &path : paths) {
    const auto parent = index.find(Path(path.begin(), path.end() - 1));
    index.emplace(path, static_cast<int32_t>(tree.nodes.size()));
    tree.nodes.push_back({parent == index.end() ? -1 : parent->second, static_cast<uint32_t>(path.size() - 1),
                          path.back(), scores.at(path)});
  }
  tree.by_score.resize(tree.nodes.size());
  std::iota(tree.by_score.begin(), tree.by_score.end(), 0u);
  std::stable_sort(tree.by_score.begin(), tree.by_score.end(),
                   [&](uint32_t a, uint32_t b) { return tree.nodes[a].score > tree.nodes[b].score; });
  return tree;
}

}  // namespace

std::vector<Path> parse_paths(std::string_view text) {
  std::vector<Path> paths;
  uint32_t depth = 0;
  const auto bad = [&](size_t at) {
    refuse_tree("the tree cannot be read at byte " + std::to_string(at) +
           "; it is a list of paths such as [[0], [0, 0], [1]], of ranks up to " + std::to_string(kMaxRank));
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '[' && depth < 2 && (depth == 1 || paths.empty())) {
      if (++depth == 2) paths.emplace_back();
    } else if (c == ']' && depth > 0) {
      if (depth-- == 2 && paths.back().empty()) bad(i);
    } else if (c >= '0' && c <= '9' && depth == 2) {
      size_t end = i;
      while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
      uint32_t rank = 0;
      if (!sdk::detail::parse_whole(text.substr(i, end - i), rank) || rank > kMaxRank) bad(i);
      paths.back().push_back(rank);
      if (paths.back().size() > kMaxDepth || paths.size() > kMaxNodes)
        refuse_tree("the tree is deeper than " + std::to_string(kMaxDepth) + " or has more than " +
               std::to_string(kMaxNodes) + " paths");
      i = end - 1;
    } else if (c != ',' && c != ' ' && c != '\n' && c != '\r' && c != '\t') {
      bad(i);
    }
  }
  if (depth != 0 || paths.empty()) bad(text.size());
  return paths;
}

Accuracy parse_accuracy(const std::vector<std::string> &lines) {
  Accuracy accuracy;
  for (const std::string &line : lines) {
    std::vector<double> &shares = accuracy.emplace_back();
    double sum = 0;
    for (std::string_view rest = sdk::detail::trim(line); !rest.empty(); rest = sdk::detail::trim(rest)) {
      const std::string_view word = rest.substr(0, rest.find(' '));
      rest.remove_prefix(word.size());
      double share = 0;
      if (!sdk::detail::parse_whole(word, share) || !(share >= 0 && share <= 1))
        refuse_tree("accuracy of head " + std::to_string(accuracy.size() - 1) + ": '" + std::string(word) +
               "' is no share of 0..1");
      shares.push_back(share);
      sum += share;
    }
    if (sum > 1.001)
      refuse_tree("accuracy of head " + std::to_string(accuracy.size() - 1) + " adds up to " + std::to_string(sum) +
             "; give the share of each rank alone");
  }
  return accuracy;
}

Tree tree_of(const std::vector<Path> &paths) {
  std::map<Path, float> scores;
  for (size_t i = 0; i < paths.size(); ++i)
    if (!scores.emplace(paths[i], static_cast<float>(paths.size() - i) / static_cast<float>(paths.size())).second)
      refuse_tree("the tree has " + path_text(paths[i]) + " twice");
  return make_tree(std::move(scores));
}

Tree grow_tree(const Accuracy &accuracy, uint32_t max_nodes) {
  struct Candidate {
    double score;
    Path path;
    bool operator<(const Candidate &other) const {  // the largest is taken; among equals the shorter, then the lower
      if (score != other.score) return score < other.score;
      return path.size() != other.path.size() ? path.size() > other.path.size() : path > other.path;
    }
  };
  std::vector<Candidate> heap;
  const auto offer_children = [&](double score, const Path &path) {
    if (path.size() >= accuracy.size()) return;
    const std::vector<double> &shares = accuracy[path.size()];
    for (uint32_t rank = 0; rank < shares.size(); ++rank) {
      if (shares[rank] == 0) continue;
      Path child = path;
      child.push_back(rank);
      heap.push_back({score * shares[rank], std::move(child)});
      std::push_heap(heap.begin(), heap.end());
    }
  };
  std::map<Path, float> scores;
  offer_children(1, {});
  while (scores.size() < max_nodes && !heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate best = std::move(heap.back());
    heap.pop_back();
    scores.emplace(best.path, static_cast<float>(best.score));
    offer_children(best.score, best.path);
  }
  return make_tree(std::move(scores));
}

}  // namespace sluice::medusa

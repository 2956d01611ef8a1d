// Beam search as Hugging Face documents and runs it, written out naively over whole arrays, and the exhaustive search
// that it approximates. Nothing here is shared with the plugin.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace sluice::test {

/// Log-probabilities [vocab] of the token after these output tokens.
using Model = std::function<std::vector<double>(const std::vector<int32_t> &)>;

struct SearchCase {
  uint32_t beams = 2, answers = 1, max_new = 8;
  double length_penalty = 1;
  std::string early_stopping = "false";
  std::vector<int32_t> stops;
};

struct Found {
  std::vector<int32_t> tokens;
  double score = 0;
};

inline bool contains(const std::vector<int32_t> &list, int32_t token) {
  return std::find(list.begin(), list.end(), token) != list.end();
}

/// Indices of the k largest, the lower index first among equals.
inline std::vector<size_t> top_k(const std::vector<double> &values, size_t k) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] > values[b]; });
  order.resize(std::min(k, order.size()));
  return order;
}

/// The vectorised loop of transformers' _beam_search for one prompt, two or more beams: every array has one entry per
/// beam from the start, and what does not count has -1e9. The vocabulary has at least 2 * beams tokens.
inline std::vector<Found> hf_beam_search(const Model &model, const SearchCase &c) {
  constexpr double kNever = -1e9;
  const size_t beams = c.beams;
  const bool early = c.early_stopping == "true";
  std::vector<std::vector<int32_t>> running(beams), finished(beams);
  std::vector<double> running_score(beams, kNever), finished_score(beams, kNever);
  std::vector<bool> is_finished(beams, false);
  running_score[0] = 0;
  bool unsatisfied = true;  // the heuristic still expects better
  const auto all_finished = [&] { return std::all_of(is_finished.begin(), is_finished.end(), [](bool f) { return f; }); };

  for (uint32_t length = 0;;) {
    std::vector<double> accumulated;
    size_t vocab = 0;
    for (size_t b = 0; b < beams; ++b) {
      const auto row = model(running[b]);
      vocab = row.size();
      for (const double logprob : row) accumulated.push_back(running_score[b] + logprob);
    }
    const auto top = top_k(accumulated, std::max<size_t>(2, 1 + c.stops.size()) * beams);
    std::vector<std::vector<int32_t>> candidates;
    std::vector<double> score, open_score, end_score;
    std::vector<bool> hits, ends;
    for (size_t k = 0; k < top.size(); ++k) {
      auto tokens = running[top[k] / vocab];
      tokens.push_back(static_cast<int32_t>(top[k] % vocab));
      score.push_back(accumulated[top[k]]);
      hits.push_back(contains(c.stops, tokens.back()) || tokens.size() >= c.max_new);
      ends.push_back(hits[k] && k < beams);
      candidates.push_back(std::move(tokens));
      open_score.push_back(score[k] + (hits[k] ? kNever : 0));
      double final = score[k] / std::pow(length + 1, c.length_penalty);
      if (early && all_finished()) final += kNever;
      if (!unsatisfied) final += kNever;
      if (!ends[k]) final += kNever;
      end_score.push_back(final);
    }
    const auto next = top_k(open_score, beams);
    for (size_t b = 0; b < beams; ++b) running[b] = candidates[next[b]], running_score[b] = open_score[next[b]];

    auto merged = finished;
    auto merged_score = finished_score;
    auto merged_finished = is_finished;
    merged.insert(merged.end(), candidates.begin(), candidates.end());
    merged_score.insert(merged_score.end(), end_score.begin(), end_score.end());
    merged_finished.insert(merged_finished.end(), ends.begin(), ends.end());
    const auto best = top_k(merged_score, beams);
    for (size_t b = 0; b < beams; ++b)
      finished[b] = merged[best[b]], finished_score[b] = merged_score[best[b]], is_finished[b] = merged_finished[best[b]];

    ++length;
    const bool to_the_end = c.early_stopping == "never" && c.length_penalty > 0;
    const double possible = running_score[0] / std::pow(to_the_end ? c.max_new : length, c.length_penalty);
    const double least = *std::min_element(finished_score.begin(), finished_score.end());
    bool improves = false;
    for (size_t b = 0; b < beams; ++b) improves = improves || possible > (is_finished[b] ? least : kNever);
    unsatisfied = unsatisfied && improves;
    const bool all_hit = std::all_of(hits.begin(), hits.end(), [](bool hit) { return hit; });
    if (!unsatisfied || (early && all_finished()) || all_hit) break;
  }
  std::vector<Found> out;
  for (uint32_t k = 0; k < c.answers; ++k) out.push_back({finished[k], finished_score[k]});
  return out;
}

/// Every answer there is, scored; the best first.
inline std::vector<Found> brute_force(const Model &model, const SearchCase &c) {
  std::vector<Found> out;
  const std::function<void(std::vector<int32_t> &, double)> extend = [&](std::vector<int32_t> &tokens, double sum) {
    const auto row = model(tokens);
    for (size_t v = 0; v < row.size(); ++v) {
      tokens.push_back(static_cast<int32_t>(v));
      const double total = sum + row[v];
      if (contains(c.stops, tokens.back()) || tokens.size() == c.max_new)
        out.push_back({tokens, total / std::pow(static_cast<double>(tokens.size()), c.length_penalty)});
      else
        extend(tokens, total);
      tokens.pop_back();
    }
  };
  std::vector<int32_t> tokens;
  extend(tokens, 0);
  std::stable_sort(out.begin(), out.end(), [](const Found &a, const Found &b) { return a.score > b.score; });
  return out;
}

/// The score of an answer from nothing but its tokens.
inline double score_of(const Model &model, const SearchCase &c, const std::vector<int32_t> &tokens) {
  double sum = 0;
  for (size_t i = 0; i < tokens.size(); ++i)
    sum += model({tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(i)})[static_cast<size_t>(tokens[i])];
  return sum / std::pow(static_cast<double>(tokens.size()), c.length_penalty);
}

inline std::vector<double> log_softmax(const std::vector<double> &logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const double l : logits) total += std::exp(l - max);
  std::vector<double> out;
  for (const double l : logits) out.push_back(l - max - std::log(total));
  return out;
}

}  // namespace sluice::test

// The search of one request: ranks candidates, decides which answers are finished and when no better one can come.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace sluice::beam {

enum class EarlyStopping : uint8_t {
  kFalse,  ///< stops when the best that runs, at its present length, scores no better than the worst finished
  kTrue,   ///< stops when as many are finished as there are beams
  kNever,  ///< as kFalse, but gives those that run the length that favours them most
};

struct Settings {
  uint32_t beams = 4;
  double length_penalty = 1;  ///< score = sum of logprobs / (output tokens, the end token included)^length_penalty
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  uint32_t max_new = 1;  ///< output tokens
  std::vector<int32_t> stop_tokens;
};

/// A token that may come next, as the model sees it.
struct Candidate {
  uint32_t beam;
  int32_t token;
  double sum;  ///< of the logprobs of all output, with this token's
};

/// Beam search as Hugging Face transformers defines it for one prompt and do_sample = false: of all continuations the
/// `beams` best may finish, and the `beams` best that do not end go on. One beam is greedy search, as there.
/// What is not reproduced: where the vocabulary has fewer than 2 * beams tokens, there runs what fills the places with
/// copies of score -1e9; here fewer run.
/// source  transformers, GenerationMixin._beam_search
class Search {
 public:
  explicit Search(Settings settings) : settings_(std::move(settings)) {}

  struct Move {
    uint32_t beam;
    int32_t token;
    double score;   ///< of an answer: with length penalty; of a beam: the sum of its logprobs
    bool finishes;
  };
  /// The moves of a step, best first.
  ///   candidates  of all beams; at least the best beams + stop_tokens of each. Reordered
  ///   generated   output tokens so far
  void step(std::vector<Candidate> &candidates, uint32_t generated, std::vector<Move> &moves);
  /// No finished answer can be displaced any more. Known after step().
  bool done() const { return done_; }

 private:
  void finish(double score);
  bool can_improve(double best_sum, uint32_t generated) const;

  const Settings settings_;
  std::vector<double> finished_;  // scores of the best answers, best first, at most `beams`
  bool done_ = false;
};

}  // namespace sluice::beam

// Beam search: keeps the likeliest few beginnings of an answer and lets them grow side by side. The host forks and
// prunes; see search.hpp for what is kept.
#include "search.hpp"

#include <sluice/sdk/decoder.hpp>

#include <algorithm>
#include <memory>
#include <string>

namespace {
using namespace sluice::sdk;
using namespace sluice::beam;

constexpr uint32_t kStopTokens = 8;  // end tokens that a request may have besides its beams

/// A fork knows what its branch knew, and commit() tells it which of the ways on is its own.
struct Branch {
  std::shared_ptr<Search> search;                 // of the request
  double sum = 0;                                 // of the logprobs of its output
  std::vector<std::pair<int32_t, double>> ways;   // tokens that it may go on with, and its sum with each
};

class Beam final : public Decoder<Branch> {
 public:
  Beam(const sluice_host_api &, const Config &config, const sluice_decoder_setup &setup)
      : max_beams_(static_cast<uint32_t>(config.i64("max_beams", 8))),
        n_top_(std::min(max_beams_ + kStopTokens, setup.target->vocab_size)),
        num_beams_(static_cast<uint32_t>(config.i64("num_beams", 4))),
        length_penalty_(config.f64("length_penalty", 1)),
        early_stopping_(config.str("early_stopping", "false")) {
    if (num_beams_ > max_beams_)
      throw Error(SLUICE_E_INVALID_ARGUMENT, "num_beams is " + std::to_string(num_beams_) + ", above max_beams, which is " +
                                                 std::to_string(max_beams_));
  }

  void needs(sluice_decoder_needs &needs) const override {
    needs.max_branches = max_beams_;
    needs.n_top = n_top_;
    needs.logprobs_kind = SLUICE_LOGPROBS_RAW;
  }

  void validate(const Config &request) const override { beams_of(request); }

  Branch open(const sluice_seq_start &start, const Config &request) override {
    Settings settings;
    settings.beams = beams_of(request);
    settings.length_penalty = request.f64("length_penalty", length_penalty_);
    const std::string when = request.str("early_stopping", early_stopping_.c_str());
    settings.early_stopping = when == "true"    ? EarlyStopping::kTrue
                              : when == "never" ? EarlyStopping::kNever
                                                : EarlyStopping::kFalse;
    settings.max_new = start.max_new;
    settings.stop_tokens.assign(start.stop_tokens, start.stop_tokens + start.n_stop);
    if (settings.beams + start.n_stop > n_top_ && n_top_ == max_beams_ + kStopTokens)
      throw Error(SLUICE_E_INVALID_ARGUMENT, std::to_string(settings.beams) + " beams and " +
                                                 std::to_string(start.n_stop) + " end tokens; together at most " +
                                                 std::to_string(n_top_));
    return {std::make_shared<Search>(std::move(settings)), 0, {}};
  }

  void branch(const sluice_branch_in &in, sluice_branch_out &out) override {
    out.n = 0;
    for (uint32_t g = 0; g < in.n_groups; ++g) {
      const uint32_t begin = in.group_indptr[g], end = in.group_indptr[g + 1];
      if (begin == end) throw Error(SLUICE_E_INVALID_ARGUMENT, "a request without a branch");
      Search *search = seq(in.seq[begin]).search.get();
      candidates_.clear();
      for (uint32_t b = begin; b < end; ++b) {
        Branch &branch = seq(in.seq[b]);
        branch.ways.clear();
        for (uint32_t i = b * in.n_top; i < (b + 1) * in.n_top && in.top_ids[i] >= 0; ++i)
          candidates_.push_back({b - begin, in.top_ids[i], branch.sum + in.top_logprobs[i]});
      }
      search->step(candidates_, in.generated[begin], moves_);
      for (const auto &move : moves_) {
        if (search->done() && !move.finishes) continue;
        if (out.n == out.capacity) throw Error(SLUICE_E_RESOURCE_EXHAUSTED, "the host has room for too few branches");
        if (!move.finishes) seq(in.seq[begin + move.beam]).ways.emplace_back(move.token, move.score);
        out.from[out.n] = begin + move.beam;
        out.token[out.n] = move.token;
        out.score[out.n] = static_cast<float>(move.score);
        out.what[out.n++] = move.finishes ? SLUICE_BRANCH_FINISH : SLUICE_BRANCH_GROW;
      }
      out.group_done[g] = search->done() ? 1 : 0;
    }
  }

  void commit(const sluice_decoder_commit &told) override {
    for (uint32_t i = 0; i < told.n_seqs; ++i) {
      Branch &branch = seq(told.seq[i]);
      if (told.tok_indptr[i + 1] != told.tok_indptr[i] + 1) continue;
      for (const auto &[token, sum] : branch.ways)
        if (token == told.tok[told.tok_indptr[i]]) branch.sum = sum;
    }
  }

 private:
  uint32_t beams_of(const Config &request) const {
    const auto beams = static_cast<uint32_t>(request.i64("num_beams", num_beams_));
    if (beams > max_beams_)
      throw Error(SLUICE_E_INVALID_ARGUMENT, "num_beams is " + std::to_string(beams) + "; this model is configured for at most " +
                                                 std::to_string(max_beams_) + " (max_beams of its decoder)");
    return beams;
  }

  const uint32_t max_beams_, n_top_, num_beams_;
  const double length_penalty_;
  const std::string early_stopping_;
  std::vector<Candidate> candidates_;
  std::vector<Search::Move> moves_;
};

constexpr sluice_config_field kFields[] = {
    i64_field("max_beams", "most beams that a request may have; each takes a row of a step and cache of its own", "8", 2,
              256),
    bool_field("use_beam_search", "search instead of sampling", "false", SLUICE_CFGF_PER_REQUEST),
    i64_field("num_beams", "beams of a request that does not say how many; 1 = greedy", "4", 1, 256,
              SLUICE_CFGF_PER_REQUEST),
    f64_field("length_penalty",
              "an answer scores the sum of its logprobs divided by its tokens to this power; above 0 favours long ones",
              "1.0", -10, 10, SLUICE_CFGF_PER_REQUEST),
    str_field("early_stopping",
              "when to stop: true = as many answers as beams; false = no running beam scores better at its length; never "
              "= none can at any length",
              "\"false\"", "false|true|never", SLUICE_CFGF_PER_REQUEST)};
}  // namespace

SLUICE_DECODER_PLUGIN(Beam, "beam", "0.1.0", kFields);

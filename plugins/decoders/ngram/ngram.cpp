// Prompt lookup (Saxena 2023): what followed the last few tokens when they stood in the text before is drafted again.
// Costs no model. Good where answers repeat their prompt: summaries, edits, code.
#include <sluice/sdk/decoder.hpp>

#include <algorithm>
#include <vector>

namespace {
using namespace sluice::sdk;

struct Sequence {
  std::vector<int32_t> tokens;  // prompt and output
  uint32_t max_drafts = 0;
  uint32_t next = 0;  // where the text that was found goes on; 0 = nothing found
};

class Ngram final : public Decoder<Sequence> {
 public:
  Ngram(const sluice_host_api &, const Config &config, const sluice_decoder_setup &)
      : max_drafts_(static_cast<uint32_t>(config.i64("max_drafts", 4))),
        min_ngram_(static_cast<uint32_t>(config.i64("min_ngram", 2))),
        max_ngram_(static_cast<uint32_t>(config.i64("max_ngram", 5))),
        adaptive_(config.flag("adaptive", true)) {
    if (min_ngram_ > max_ngram_)
      throw Error(SLUICE_E_INVALID_ARGUMENT, "min_ngram is " + std::to_string(min_ngram_) + "; it must be at most max_ngram, " +
                                                 std::to_string(max_ngram_));
  }

  void needs(sluice_decoder_needs &needs) const override {
    needs.proposals = max_drafts_ == 0 ? 0 : SLUICE_PROPOSE_DETERMINISTIC;
    needs.max_nodes = needs.max_depth = max_drafts_;
    needs.flags = adaptive_ ? 0 : SLUICE_DECF_PINNED;
  }

  Sequence open(const sluice_seq_start &start, const Config &request) override {
    Sequence s;
    s.tokens.assign(start.prompt, start.prompt + start.n_prompt);
    s.max_drafts = static_cast<uint32_t>(std::min<int64_t>(request.i64("max_drafts", max_drafts_), max_drafts_));
    return s;
  }

  uint32_t wish(const Sequence &s) const override { return s.next == 0 ? 0 : s.max_drafts; }

  void draft(const sluice_draft_in &in, Tree &tree) override {
    for (uint32_t i = 0; i < in.n_seqs; ++i) {
      const Sequence &s = seq(in.seq[i]);
      const auto length = static_cast<uint32_t>(s.tokens.size());
      if (s.next == 0) continue;
      int32_t parent = -1;
      for (uint32_t k = 0; k < std::min(in.budget[i], s.max_drafts); ++k) {
        // Behind its end the text repeats what lies between the two places.
        const uint32_t at = s.next + k % (length - s.next);
        parent = tree.add(i, parent, s.tokens[at], -static_cast<float>(k));
        if (parent < 0) return;
      }
    }
  }

  void commit(const sluice_decoder_commit &c) override {
    for (uint32_t i = 0; i < c.n_seqs; ++i) {
      Sequence &s = seq(c.seq[i]);
      s.tokens.insert(s.tokens.end(), c.tok + c.tok_indptr[i], c.tok + c.tok_indptr[i + 1]);
      if (s.max_drafts > 0) look_up(s);
    }
  }

 private:
  /// The longest match of the text's end, the latest among equals.
  void look_up(Sequence &s) const {
    const int32_t *tokens = s.tokens.data();
    const auto length = static_cast<uint32_t>(s.tokens.size());
    uint32_t best = min_ngram_ - 1;
    s.next = 0;
    for (uint32_t end = length - 1; end >= min_ngram_; --end) {
      if (tokens[end - 1] != tokens[length - 1]) continue;
      const uint32_t longest = std::min(max_ngram_, end);
      uint32_t n = 1;
      while (n < longest && tokens[end - 1 - n] == tokens[length - 1 - n]) ++n;
      if (n <= best) continue;
      best = n, s.next = end;
      if (n == max_ngram_) return;
    }
  }

  const uint32_t max_drafts_, min_ngram_, max_ngram_;
  const bool adaptive_;
};

constexpr sluice_config_field kFields[] = {
    i64_field("max_drafts", "draft tokens per step at most; 0 = plain decoding", "4", 0, 64, SLUICE_CFGF_PER_REQUEST),
    i64_field("min_ngram", "tokens that must repeat before a draft is made", "2", 1, 64),
    i64_field("max_ngram", "longest repetition that is looked for", "5", 1, 64),
    bool_field("adaptive", "draft less, or nothing, where it does not pay", "true")};
}  // namespace

SLUICE_DECODER_PLUGIN(Ngram, "ngram", "0.1.0", kFields);

// Drafts for benchmarks: the first answer to a prompt is recorded, later answers to it are drafted from the recording,
// each token right with a set probability. So acceptance is an input, and what speculation costs can be measured.
#include <sluice/abi/rng.h>
#include <sluice/sdk/decoder.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

namespace {
using namespace sluice::sdk;

constexpr size_t kMaxRecordings = 4096;

using Recording = std::vector<int32_t>;  // output tokens

struct Sequence {
  std::shared_ptr<Recording> recording;
  uint64_t seed = 0;
  uint32_t n_prompt = 0, n_output = 0;
  uint32_t max_drafts = 0;
  bool diverged = false;  // says something else than the recording
};

class Replay final : public Decoder<Sequence> {
 public:
  Replay(const sluice_host_api &, const Config &config, const sluice_decoder_setup &setup)
      : vocab_size_(setup.target->vocab_size),
        max_drafts_(static_cast<uint32_t>(config.i64("max_drafts", 4))),
        acceptance_(static_cast<float>(config.f64("acceptance", 0.8))),
        adaptive_(config.flag("adaptive", true)) {}

  void needs(sluice_decoder_needs &needs) const override {
    needs.proposals = max_drafts_ == 0 ? 0 : SLUICE_PROPOSE_DETERMINISTIC;
    needs.max_nodes = needs.max_depth = max_drafts_;
    needs.flags = adaptive_ ? 0 : SLUICE_DECF_PINNED;
  }

  Sequence open(const sluice_seq_start &start, const Config &request) override {
    if (recordings_.size() >= kMaxRecordings) recordings_.clear();
    auto &recording = recordings_[std::vector<int32_t>(start.prompt, start.prompt + start.n_prompt)];
    if (!recording) recording = std::make_shared<Recording>();
    Sequence s;
    s.recording = recording;
    s.seed = start.seed;
    s.n_prompt = start.n_prompt;
    s.max_drafts = static_cast<uint32_t>(std::min<int64_t>(request.i64("max_drafts", max_drafts_), max_drafts_));
    return s;
  }

  uint32_t wish(const Sequence &s) const override {
    if (s.diverged || s.recording->size() <= s.n_output) return 0;
    return static_cast<uint32_t>(std::min<size_t>(s.max_drafts, s.recording->size() - s.n_output));
  }

  void draft(const sluice_draft_in &in, Tree &tree) override {
    for (uint32_t i = 0; i < in.n_seqs; ++i) {
      const Sequence &s = seq(in.seq[i]);
      int32_t parent = -1;
      for (uint32_t k = 0; k < std::min(in.budget[i], wish(s)); ++k) {
        const int32_t token = (*s.recording)[s.n_output + k];
        parent = tree.add(i, parent, is_right(s, s.n_output + k) ? token : wrong(token), -static_cast<float>(k));
        if (parent < 0) return;
      }
    }
  }

  void commit(const sluice_decoder_commit &c) override {
    for (uint32_t i = 0; i < c.n_seqs; ++i) {
      Sequence &s = seq(c.seq[i]);
      for (uint32_t t = c.tok_indptr[i]; t < c.tok_indptr[i + 1]; ++t) {
        Recording &recording = *s.recording;
        if (!s.diverged && s.n_output == recording.size()) recording.push_back(c.tok[t]);
        s.diverged |= s.n_output >= recording.size() || recording[s.n_output] != c.tok[t];
        ++s.n_output;
      }
    }
  }

 private:
  bool is_right(const Sequence &s, uint32_t output) const {
    uint32_t words[4];
    sluice_rng(s.seed, s.n_prompt + output, SLUICE_RNG_DRAFT, 0, words);
    return sluice_rng_unit(words[0]) < acceptance_;
  }
  int32_t wrong(int32_t token) const { return static_cast<int32_t>((static_cast<uint32_t>(token) + 1) % vocab_size_); }

  const uint32_t vocab_size_, max_drafts_;
  const float acceptance_;
  const bool adaptive_;
  std::map<std::vector<int32_t>, std::shared_ptr<Recording>> recordings_;  // by prompt
};

constexpr sluice_config_field kFields[] = {
    i64_field("max_drafts", "draft tokens per step; 0 = plain decoding", "4", 0, 64, SLUICE_CFGF_PER_REQUEST),
    f64_field("acceptance", "chance that a draft token is right", "0.8", 0, 1),
    bool_field("adaptive", "draft less, or nothing, where it does not pay", "true")};
}  // namespace

SLUICE_DECODER_PLUGIN(Replay, "replay", "0.1.0", kFields);

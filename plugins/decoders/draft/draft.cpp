// A small model drafts for a large one (Leviathan et al. 2023). The host runs it and draws from it with the target's own
// noise and samplers; what is decided here is the shape: a chain, and beside each of its links the next likely tokens.
#include <sluice/sdk/decoder.hpp>

#include <algorithm>

namespace {
using namespace sluice::sdk;

struct Sequence {
  uint32_t max_drafts = 0;
};

class Draft final : public Decoder<Sequence> {
 public:
  Draft(const sluice_host_api &, const Config &config, const sluice_decoder_setup &)
      : model_(config.str("model")),
        max_drafts_(static_cast<uint32_t>(config.i64("max_drafts", 4))),
        width_(static_cast<uint32_t>(config.i64("width", 1))),
        adaptive_(config.flag("adaptive", true)) {
    if (model_.empty())
      throw Error(SLUICE_E_INVALID_ARGUMENT, "model is not set; name the [models.X] that drafts");
  }

  void needs(sluice_decoder_needs &needs) const override {
    needs.flags = adaptive_ ? 0 : SLUICE_DECF_PINNED;
    if (max_drafts_ == 0) return;
    needs.proposals = SLUICE_PROPOSE_SAMPLED;
    needs.max_nodes = max_drafts_ * width_;
    needs.max_depth = max_drafts_;
    needs.max_fed = needs.max_rounds = max_drafts_ - 1;
    needs.draws = width_;
    needs.draft_model = model_.c_str();
  }

  Sequence open(const sluice_seq_start &, const Config &request) override {
    return {static_cast<uint32_t>(std::min<int64_t>(request.i64("max_drafts", max_drafts_), max_drafts_))};
  }

  uint32_t wish(const Sequence &s) const override { return s.max_drafts * width_; }

  void draft(const sluice_draft_in &in, Tree &tree) override {
    for (uint32_t f = 0; f < in.n_fed; ++f) {
      const int32_t from = in.fed_node[f];
      const uint32_t i = from < 0 ? static_cast<uint32_t>(-1 - from) : tree.raw().seq[from];
      const uint32_t deepest = std::min(seq(in.seq[i]).max_drafts, (in.budget[i] + width_ - 1) / width_);
      const uint32_t depth = in.round + 1;
      if (depth > deepest) continue;
      for (uint32_t k = 0; k < in.draws; ++k) {
        const int32_t token = in.fed_token[f * in.draws + k];
        if (token < 0) break;
        const bool goes_on = k == 0 && depth < deepest;
        tree.add(i, std::max(from, -1), token, -static_cast<float>(depth * in.draws + k), in.fed_q[f],
                 goes_on ? SLUICE_NODE_FEED : 0);
      }
    }
  }

 private:
  const std::string model_;
  const uint32_t max_drafts_, width_;
  const bool adaptive_;
};

constexpr sluice_config_field kFields[] = {
    str_field("model", "the [models.X] that drafts; its tokens must be the target's", "\"\""),
    i64_field("max_drafts", "draft tokens in a row; 0 = plain decoding", "4", 0, 32, SLUICE_CFGF_PER_REQUEST),
    i64_field("width", "tokens drafted for each place; above 1 the backend needs trees", "1", 1, 8),
    bool_field("adaptive", "draft less, or nothing, where it does not pay", "true")};
}  // namespace

SLUICE_DECODER_PLUGIN(Draft, "draft", "0.1.0", kFields);

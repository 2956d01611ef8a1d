// How much is drafted, in the engine: on a mock whose steps take as long as the test says, with drafts that are right
// as often as the test says.
#include <gtest/gtest.h>
#include <sluice/sdk/decoder.hpp>

#include <random>

#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::engine::testing {
namespace {

constexpr int32_t kCountVocab = 1000;

/// The mock counts, so what comes next is known: the first node of every depth is right with a chance, the rest are not.
struct Knowing {
  bool right = true;
};
class KnowingTrees final : public sdk::Decoder<Knowing> {
 public:
  static inline uint32_t nodes = 4, depth = 4;
  static inline double chance = 1;
  static inline bool pinned = false;
  KnowingTrees(const sluice_host_api &, const sdk::Config &, const sluice_decoder_setup &) {}
  void needs(sluice_decoder_needs &needs) const override {
    needs.proposals = SLUICE_PROPOSE_DETERMINISTIC;
    needs.max_nodes = nodes;
    needs.max_depth = depth;
    needs.flags = pinned ? SLUICE_DECF_PINNED : 0;
  }
  /// Whose prompt has an odd length gets drafts that are never right.
  Knowing open(const sluice_seq_start &start, const sdk::Config &) override { return {start.n_prompt % 2 == 0}; }
  uint32_t wish(const Knowing &) const override { return nodes; }
  void draft(const sluice_draft_in &in, sdk::Tree &tree) override {
    for (uint32_t i = 0; i < in.n_seqs; ++i) {
      // The chain first: what is trimmed are the others.
      std::vector<int32_t> chain;
      uint32_t left = in.budget[i];
      const auto truth = [&](uint32_t d) { return (in.root_token[i] + 1 + static_cast<int32_t>(d)) % kCountVocab; };
      for (uint32_t d = 0; d < depth && left > 0; ++d, --left) {
        const bool right = seq(in.seq[i]).right && unit_(random_) < chance;
        const int32_t token = right ? truth(d) : (truth(d) + 500) % kCountVocab;
        chain.push_back(tree.add(i, d == 0 ? -1 : chain[d - 1], token, -static_cast<float>(d)));
      }
      for (uint32_t k = 0; k + depth < nodes && left > 0; ++k, --left) {
        const uint32_t d = k % depth;
        tree.add(i, d == 0 ? -1 : chain[d - 1], (truth(d) + 100 + static_cast<int32_t>(k)) % kCountVocab,
                 -static_cast<float>(depth + k));
      }
    }
  }

 private:
  std::mt19937 random_{9};
  std::uniform_real_distribution<double> unit_;
};
const sluice_decoder_vtbl kKnowingTrees = sdk::DecoderAdapter<KnowingTrees>::vtbl();

struct PayCase {
  uint32_t step_us = 1000, token_us = 0;
  std::vector<uint32_t> prompts = {4};  ///< lengths; all arrive together
  uint32_t rounds = 1;                  ///< times that they do
  uint32_t max_new = 400;
  uint32_t prompt_every_step = 0;       ///< tokens of a prompt that arrives beside every step, for one token
  MockModel::Use decoder{"knowing trees", {}, &kKnowingTrees};
};

struct Paid {
  uint64_t ns = 0;
  request::GeneratorStats stats;
  std::vector<request::Event> ends;  ///< of the last round
};

Paid pay(const PayCase &c) {
  TestHost host;
  EngineLimits limits;
  limits.max_seqs = 16;
  limits.token_budget = 256;
  limits.max_rows = 256;
  limits.max_live = 64;
  limits.max_context = 1024;
  limits.block_size = 16;
  limits.kv_blocks = 1024;
  limits.prefix_cache = false;
  MockModel model(host, {{"script", "count"}, {"vocab_size", std::to_string(kCountVocab)}, {"eos_token", "-1"},
                         {"step_us", std::to_string(c.step_us)}, {"token_us", std::to_string(c.token_us)}},
                  limits, {"greedy"}, c.decoder);
  auto core = EngineCore::create(model.parts(load_plugin(host, "scheduler", "fcfs")->scheduler), limits);
  EXPECT_TRUE(core.has_value()) << (core ? "" : core.error().message);
  Paid out;
  uint64_t next_id = 0;
  const auto request_of = [&](uint32_t n_prompt, uint32_t max_new) {
    auto request = std::make_shared<request::Request>();
    request->id = ++next_id;
    request->prompt.assign(n_prompt, 7);
    request->max_new = max_new;
    request->events = std::make_shared<request::EventChannel>(nullptr);
    EXPECT_TRUE((*core)->submit(request).has_value());
    return request;
  };
  for (uint32_t round = 0; round < c.rounds; ++round) {
    out.ends.clear();
    std::vector<std::shared_ptr<request::Request>> requests;
    for (const uint32_t n : c.prompts) requests.push_back(request_of(n, c.max_new));
    std::vector<std::shared_ptr<request::Request>> beside;
    for (int i = 0; i < 1'000'000 && (*core)->live() > 0; ++i) {
      if (c.prompt_every_step > 0 && (*core)->live() == requests.size()) beside = {request_of(c.prompt_every_step, 1)};
      if ((*core)->step(0) != StepOutcome::kCommitted) host.clock.advance_ns(20'000);
      std::vector<request::Event> events;
      for (const auto &request : requests) {
        request->events->drain(events);
        if (!events.empty() && events.back().finish != request::FinishReason::kNone) out.ends.push_back(events.back());
      }
      if (out.ends.size() == requests.size()) break;
    }
    EXPECT_EQ(out.ends.size(), requests.size());
    std::sort(out.ends.begin(), out.ends.end(), [](const auto &a, const auto &b) { return a.draft_rounds < b.draft_rounds; });
  }
  out.ns = host.clock.now_ns();
  out.stats = (*core)->stats();
  EXPECT_EQ(out.stats.plugin_errors, 0U);
  return out;
}

TEST(DraftsPay, WideTreesOfWhichFewNodesAreRightGoOnWherePlacesAreFree) {
  KnowingTrees::nodes = 63;
  KnowingTrees::depth = 4;
  KnowingTrees::chance = 0.5;  // 0.94 accepted of 63
  KnowingTrees::pinned = true;
  const auto pinned = pay({});
  KnowingTrees::pinned = false;
  const auto adaptive = pay({});
  EXPECT_LT(static_cast<double>(adaptive.ns), 1.1 * static_cast<double>(pinned.ns));
  EXPECT_GT(adaptive.ends[0].draft_rounds, 180U) << "of about 210 steps";
  EXPECT_EQ(adaptive.stats.drafts_off_for_sequence, 0U);
  EXPECT_EQ(adaptive.ends[0].drafts_off, request::DraftsOff::kNone);
  KnowingTrees::chance = 1, KnowingTrees::nodes = 4;
}

TEST(DraftsPay, LongChainsThatBreakEarlyAreNotSlowerThanPinned) {
  const auto replay = [](const char *adaptive) {
    PayCase c;
    c.step_us = 4000;
    c.rounds = 3;
    c.decoder = {"replay", {{"max_drafts", "64"}, {"acceptance", "0.3"}, {"adaptive", adaptive}}};
    return pay(c);
  };
  const auto pinned = replay("false");
  const auto adaptive = replay("true");
  EXPECT_LT(static_cast<double>(adaptive.ns), 1.05 * static_cast<double>(pinned.ns));
  EXPECT_GT(adaptive.stats.draft_accepted_tokens, 150U);
}

TEST(DraftsPay, OneSequenceLosesItsDraftsAndTheRequestIsToldWhy) {
  KnowingTrees::nodes = KnowingTrees::depth = 4;
  PayCase c;
  c.token_us = 40;
  c.prompts = {4, 5};
  const auto paid = pay(c);
  EXPECT_EQ(paid.ends[0].drafts_off, request::DraftsOff::kSequence);
  EXPECT_LT(paid.ends[0].draft_rounds, 60U);
  EXPECT_EQ(paid.ends[0].draft_accepted_tokens, 0U);
  EXPECT_EQ(paid.ends[1].drafts_off, request::DraftsOff::kNone);
  EXPECT_GT(paid.ends[1].draft_rounds, 60U);
  EXPECT_GT(paid.ends[1].draft_accepted_tokens, 3 * paid.ends[1].draft_rounds);
  EXPECT_GT(paid.ends[1].draft_verify_ns, uint64_t{paid.ends[1].draft_rounds} * 1'000'000) << "a step takes 1 ms or more";
  EXPECT_EQ(paid.stats.drafts_off_for_sequence, 1U);
}

TEST(DraftsPay, ExpensiveDraftsAreSwitchedOffAndTheRequestIsToldWhy) {
  KnowingTrees::nodes = KnowingTrees::depth = 4;
  KnowingTrees::chance = 0.3;
  PayCase c;
  c.step_us = 10;
  c.token_us = 1000;
  const auto paid = pay(c);
  KnowingTrees::chance = 1;
  EXPECT_LT(paid.ends[0].draft_rounds, 60U);
  EXPECT_NE(paid.ends[0].drafts_off, request::DraftsOff::kNone);
  EXPECT_GT(paid.stats.drafts_off_for_sequence + paid.stats.drafts_off_for_cost + paid.stats.drafts_off_for_acceptance, 0U);
}

TEST(DraftsPay, BesidePromptsInEveryStep) {
  KnowingTrees::nodes = KnowingTrees::depth = 4;
  PayCase c;
  c.prompt_every_step = 40;
  const auto paid = pay(c);
  EXPECT_LT(paid.stats.plain_steps + paid.stats.draft_steps, paid.stats.steps / 4) << "the others feed prompts";
  EXPECT_GT(paid.ends[0].draft_rounds, 60U);
  EXPECT_GT(paid.ends[0].draft_accepted_tokens, 240U);
}

TEST(DraftsPay, ShortAnswersAreToldThatNothingWasMeasuredYet) {
  KnowingTrees::nodes = KnowingTrees::depth = 4;
  PayCase c;
  c.max_new = 4;
  const auto paid = pay(c);
  EXPECT_EQ(paid.ends[0].draft_rounds, 0U);
  EXPECT_EQ(paid.ends[0].drafts_off, request::DraftsOff::kNotMeasured);
}

}  // namespace
}  // namespace sluice::engine::testing

// Whatever a decoder drafts, the tokens are those of plain decoding: on the mock, whose cache refuses a step that reads
// a key or value of another text, with every kind of draft, sampler and shortage.
#include <gtest/gtest.h>
#include <sluice/sdk/decoder.hpp>

#include <random>

#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::engine::testing {
namespace {

using Answers = std::vector<std::vector<int32_t>>;

constexpr uint32_t kMockVocab = 40;

/// Drafts trees at random, and at every `garbage`-th call something that is no tree.
struct Anything {};
class RandomTrees final : public sdk::Decoder<Anything> {
 public:
  static inline uint32_t garbage_every = 0;
  static inline uint32_t depth = 6;
  RandomTrees(const sluice_host_api &, const sdk::Config &, const sluice_decoder_setup &) {}
  void needs(sluice_decoder_needs &needs) const override {
    needs.proposals = SLUICE_PROPOSE_DETERMINISTIC;
    needs.max_nodes = 12;
    needs.max_depth = depth;
    needs.flags = SLUICE_DECF_PINNED;
  }
  Anything open(const sluice_seq_start &, const sdk::Config &) override { return {}; }
  void draft(const sluice_draft_in &in, sdk::Tree &tree) override {
    std::vector<std::vector<int32_t>> own(in.n_seqs);
    for (uint32_t n = in.n_seqs * 12; n > 0; --n) {
      const auto i = static_cast<uint32_t>(random_() % in.n_seqs);
      int32_t parent = -1;
      if (!own[i].empty() && random_() % 4 != 0) parent = own[i][random_() % own[i].size()];
      if (parent >= 0 && depth_of(tree, parent) >= depth) continue;
      // Few tokens, so that some are right and siblings are twins now and then.
      const auto token = static_cast<int32_t>(random_() % kMockVocab);
      own[i].push_back(tree.add(i, parent, token, static_cast<float>(random_() % 8)));
    }
    if (garbage_every == 0 || ++calls_ % garbage_every != 0 || tree.size() == 0) return;
    auto &raw = tree.raw();
    const auto victim = static_cast<uint32_t>(random_() % raw.n);
    switch (random_() % 8) {
      case 0: raw.seq[victim] = 1'000'000; break;
      case 1: raw.token[victim] = -5; break;
      case 2: raw.token[victim] = kMockVocab; break;
      case 3: raw.parent[victim] = static_cast<int32_t>(victim); break;
      case 4: raw.n = raw.capacity + 1; break;
      case 5: raw.q[victim] = 3; break;
      case 6: raw.score[victim] = std::numeric_limits<float>::quiet_NaN(); break;
      case 7: throw sdk::Error(SLUICE_E_UNAVAILABLE, "no drafts today");
    }
  }

 private:
  static uint32_t depth_of(sdk::Tree &tree, int32_t node) {
    uint32_t n = 0;
    for (; node >= 0; node = tree.raw().parent[node]) ++n;
    return n;
  }
  std::mt19937 random_{5};
  uint32_t calls_ = 0;
};
const sluice_decoder_vtbl kRandomTrees = sdk::DecoderAdapter<RandomTrees>::vtbl();

struct Setting {
  MockModel::Use decoder{"plain"}, sampler{"chain"};
  const sluice_decoder_vtbl *own_decoder = nullptr;
  uint32_t company = 16, kv_blocks = 512, token_budget = 512;
  bool on_host = false, trees = true;
  int32_t stop_token = -1;
  bool logprobs = false;
  TestConfig draft_model = {};  ///< options that differ from the target's, for the decoder `draft`
};

struct Drafted {
  Answers tokens;
  std::vector<std::vector<float>> logprobs;  ///< of the token, then of the best ones
  request::GeneratorStats stats;
};

std::shared_ptr<request::Request> drafted_request(uint64_t id, const Setting &setting) {
  auto request = std::make_shared<request::Request>();
  request->id = id;
  for (uint64_t i = 0; i < 5 + id * 7 % 40; ++i)
    request->prompt.push_back(static_cast<int32_t>((id / 3 * 5 + i * 17) % 11));  // some begin alike, all repeat
  request->max_new = 30 + static_cast<uint32_t>(id);
  request->seed = id * 1000;
  request->n_answers = id % 4 == 0 ? 2 : 1;
  if (setting.stop_token >= 0) request->stop_tokens = {setting.stop_token};
  request->want_logprobs = setting.logprobs;
  request->n_top_logprobs = setting.logprobs ? 2 : 0;
  request->events = std::make_shared<request::EventChannel>(nullptr);
  return request;
}

Drafted run(const Setting &setting) {
  TestHost host;
  EngineLimits limits;
  limits.max_seqs = 16;
  limits.token_budget = setting.token_budget;
  limits.max_live = 64;
  limits.max_context = 256;
  limits.block_size = 8;
  limits.kv_blocks = setting.kv_blocks;
  limits.max_rows = 128;
  const TestConfig target = {{"script", "hash"}, {"vocab_size", std::to_string(kMockVocab)}, {"eos_token", "-1"},
                             {"spread", "4"}, {"hash_tokens", "2"}};
  MockModel model(host, target, limits, setting.sampler, setting.decoder);
  if (setting.on_host) model.forbid_device_sampling();
  auto parts = model.parts(load_plugin(host, "scheduler", "fcfs")->scheduler);
  auto small = setting.draft_model;
  small.insert(target.begin(), target.end());
  MockModel draft_model(host, small, limits, "greedy");
  if (setting.decoder.name == "draft") parts.draft_model = draft_model.drafting_parts(limits);
  sluice_decoder *own = nullptr;
  if (setting.own_decoder != nullptr) {
    parts.decoder = setting.own_decoder;
    sluice_decoder_setup setup{};
    EXPECT_EQ(parts.decoder->create(host.api(), nullptr, &setup, &own, nullptr), SLUICE_OK);
    parts.decoder_instance = own;
  }
  sluice_backend_vtbl without_trees = *parts.backend;
  if (!setting.trees) {
    static decltype(without_trees.model_info) real_info;
    real_info = parts.backend->model_info;
    without_trees.model_info = [](const sluice_model *m, sluice_model_info *out, sluice_status *st) {
      const int32_t code = real_info(m, out, st);
      out->caps &= ~uint64_t{SLUICE_CAP_TREE | SLUICE_CAP_MOVE_SLOTS};
      return code;
    };
    parts.backend = &without_trees;
  }
  Drafted out;
  {
    auto core = EngineCore::create(parts, limits);
    EXPECT_TRUE(core.has_value()) << (core ? "" : core.error().message);
    for (uint64_t first = 1; first <= 16; first += setting.company) {
      std::vector<std::shared_ptr<request::Request>> requests;
      for (uint64_t id = first; id < first + setting.company; ++id) {
        requests.push_back(drafted_request(id, setting));
        EXPECT_TRUE((*core)->submit(requests.back()).has_value());
      }
      for (int i = 0; i < 100'000 && (*core)->live() > 0; ++i) {
        (*core)->step(0);
        EXPECT_EQ((*core)->audit(), "");
      }
      for (const auto &request : requests) {
        std::vector<request::Event> events;
        request->events->drain(events);
        Answers own_answers(request->n_answers);
        std::vector<std::vector<float>> own_logprobs(request->n_answers);
        for (const auto &event : events) {
          EXPECT_NE(event.finish, request::FinishReason::kError) << (event.error ? event.error->message : "");
          own_answers[event.answer].push_back(event.token);
          if (!setting.logprobs) continue;
          own_logprobs[event.answer].push_back(event.logprob);
          for (const auto &top : *event.top) own_logprobs[event.answer].push_back(top.logprob);
        }
        out.logprobs.insert(out.logprobs.end(), own_logprobs.begin(), own_logprobs.end());
        for (auto &tokens : own_answers) {
          const bool stopped = setting.stop_token >= 0 && !tokens.empty() && tokens.back() == setting.stop_token;
          EXPECT_TRUE(stopped || tokens.size() == request->max_new) << tokens.size();
          EXPECT_EQ(std::count(tokens.begin(), tokens.end(), setting.stop_token), stopped ? 1 : 0);
          out.tokens.push_back(std::move(tokens));
        }
      }
    }
    out.stats = (*core)->stats();
    EXPECT_EQ(out.stats.kv_blocks_used, 0U);
    size_t n_tokens = 0;
    for (const auto &tokens : out.tokens) n_tokens += tokens.size();
    EXPECT_EQ(out.stats.output_tokens, n_tokens) << "rejected drafts are no output";
  }
  if (own != nullptr) setting.own_decoder->destroy(own);
  return out;
}

const char *const kOrder = "bias,repetition,frequency,presence,temperature,min_p,top_k,top_p";
const MockModel::Use kSamplers[] = {
    {"greedy"},
    {"chain", {{"order", kOrder}, {"temperature", "1"}}},
    {"chain", {{"order", kOrder}, {"temperature", "0.7"}, {"top_k", "5"}, {"min_p", "0.05"}}},
    {"chain", {{"order", kOrder}, {"temperature", "0.9"}, {"top_p", "0.8"}, {"repetition_penalty", "1.3"}, {"frequency_penalty", "0.4"}}},
    {"chain", {{"order", kOrder}, {"temperature", "0"}, {"presence_penalty", "1.5"}, {"penalty_last_n", "9"}}},
};

std::string name_of(const MockModel::Use &use) {
  std::string name = use.name;
  for (const auto &[key, value] : use.options) name += " " + key + "=" + value;
  return name;
}

TEST(Drafts, ChangeNoTokenWhateverTheSamplers) {
  for (const auto &sampler : kSamplers) {
    Setting plain;
    plain.sampler = sampler;
    const auto expected = run(plain);
    EXPECT_EQ(expected.stats.draft_tokens, 0U);
    for (const bool on_host : {false, true}) {
      Setting setting = plain;
      setting.on_host = on_host;
      setting.own_decoder = &kRandomTrees;
      const auto trees = run(setting);
      EXPECT_EQ(trees.tokens, expected.tokens) << name_of(sampler) << (on_host ? " on the host" : "");
      EXPECT_GT(trees.stats.draft_accepted_tokens, 20U) << name_of(sampler);
      EXPECT_LT(trees.stats.steps, expected.stats.steps);
      setting.own_decoder = nullptr;
      setting.decoder = {"ngram", {{"max_drafts", "5"}, {"min_ngram", "1"}, {"adaptive", "false"}}};
      const auto ngram = run(setting);
      EXPECT_EQ(ngram.tokens, expected.tokens) << name_of(sampler) << (on_host ? " on the host" : "");
      EXPECT_GT(ngram.stats.draft_tokens, 0U) << name_of(sampler);
    }
  }
}

TEST(Drafts, ChangeNoTokenWhenMemoryOrRoomInTheStepRunsShort) {
  Setting plain;
  plain.company = 1;
  const auto expected = run(plain);
  Setting setting;
  setting.own_decoder = &kRandomTrees;
  setting.kv_blocks = 24;
  setting.token_budget = 40;
  const auto tight = run(setting);
  EXPECT_EQ(tight.tokens, expected.tokens);
  EXPECT_GT(tight.stats.preemptions, 0U);
  EXPECT_GT(tight.stats.draft_tokens, 0U);
  setting.company = 1;
  EXPECT_EQ(run(setting).tokens, expected.tokens) << "alone";
}

TEST(Drafts, GarbageCostsItsStepTheDraftsAndNothingElse) {
  const auto expected = run({});
  Setting setting;
  setting.own_decoder = &kRandomTrees;
  RandomTrees::garbage_every = 2;
  const auto garbage = run(setting);
  RandomTrees::garbage_every = 0;
  EXPECT_EQ(garbage.tokens, expected.tokens);
  EXPECT_GT(garbage.stats.plugin_errors, 5U);
  EXPECT_GT(garbage.stats.draft_accepted_tokens, 0U) << "the other steps have drafts";
  EXPECT_TRUE(garbage.stats.healthy);
}

TEST(Drafts, EndWhereTheAnswerEnds) {
  Setting plain;
  plain.stop_token = 7;
  const auto expected = run(plain);
  Setting setting = plain;
  setting.own_decoder = &kRandomTrees;
  EXPECT_EQ(run(setting).tokens, expected.tokens);
  setting.own_decoder = nullptr;
  setting.decoder = {"ngram", {{"min_ngram", "1"}, {"adaptive", "false"}}};
  EXPECT_EQ(run(setting).tokens, expected.tokens);
}

TEST(Drafts, CarryTheLogprobsOfTheirRows) {
  for (const bool on_host : {false, true}) {
    Setting plain;
    plain.logprobs = true;
    plain.on_host = on_host;
    const auto expected = run(plain);
    Setting setting = plain;
    setting.own_decoder = &kRandomTrees;
    EXPECT_EQ(run(setting).logprobs, expected.logprobs);
  }
}

TEST(Drafts, AreChainsWhereTheBackendHasNoTrees) {
  const auto expected = run({});
  Setting setting;
  setting.own_decoder = &kRandomTrees;
  setting.trees = false;
  const auto chains = run(setting);
  EXPECT_EQ(chains.tokens, expected.tokens);
  EXPECT_GT(chains.stats.draft_accepted_tokens, 0U);
}

/// Its logits go with the target's, so it is right often, but not always.
MockModel::Use draft_decoder(const char *width) {
  return {"draft", {{"model", "small"}, {"max_drafts", "4"}, {"width", width}, {"adaptive", "false"}}};
}

TEST(Drafts, OfASecondModelChangeNoToken) {
  uint64_t preemptions = 0;
  for (const auto &sampler : kSamplers) {
    Setting plain;
    plain.sampler = sampler;
    const auto expected = run(plain);
    for (const char *width : {"1", "3"}) {
      Setting setting = plain;
      setting.decoder = draft_decoder(width);
      setting.draft_model = {{"spread", "2"}};
      const auto drafted = run(setting);
      EXPECT_EQ(drafted.tokens, expected.tokens) << name_of(sampler) << " width " << width;
      EXPECT_EQ(drafted.stats.plugin_errors, 0U);
      EXPECT_GT(drafted.stats.draft_accepted_tokens, drafted.stats.draft_tokens / 6) << name_of(sampler);
      setting.kv_blocks = 18;
      setting.token_budget = 40;
      const auto tight = run(setting);
      EXPECT_EQ(tight.tokens, expected.tokens) << name_of(sampler);
      EXPECT_EQ(tight.stats.plugin_errors, 0U);
      preemptions += tight.stats.preemptions;
    }
  }
  EXPECT_GT(preemptions, 20U);
}

TEST(Drafts, OfATwinAreAllRight) {
  // The draft model is the target, so the shared noise makes every draft right, at any temperature.
  Setting setting;
  setting.decoder = draft_decoder("1");
  const auto drafted = run(setting);
  EXPECT_EQ(drafted.tokens, run({}).tokens);
  EXPECT_EQ(drafted.stats.draft_accepted_tokens, drafted.stats.draft_tokens);
}

TEST(Drafts, EndWithABrokenDraftModelAndTheTargetGoesOn) {
  Setting setting;
  setting.decoder = draft_decoder("1");
  setting.draft_model = {{"lost_at", "20"}};
  const auto drafted = run(setting);
  EXPECT_EQ(drafted.tokens, run({}).tokens);
  EXPECT_GT(drafted.stats.draft_tokens, 0U);
  EXPECT_EQ(drafted.stats.plugin_errors, 1U) << "it is not asked again";
  EXPECT_TRUE(drafted.stats.healthy);
}

TEST(Drafts, ReplayIsRightAsOftenAsItIsTold) {
  Setting setting;
  setting.decoder = {"replay", {{"max_drafts", "4"}, {"acceptance", "0.8"}, {"adaptive", "false"}}};
  setting.company = 1;
  const auto expected = run({});
  const auto replayed = run(setting);  // answers 2 of a prompt are drawn with another seed and diverge
  EXPECT_EQ(replayed.tokens, expected.tokens);
}

}  // namespace
}  // namespace sluice::engine::testing

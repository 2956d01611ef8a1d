// Decoders that branch as a test tells them: what the host shares, copies and frees, and what it does not believe.
#include <sluice/sdk/decoder.hpp>

#include <cmath>
#include <functional>

#include "tests/core/engine/search_fixture.hpp"

namespace sluice::engine::testing {
namespace {

using request::FinishReason;

using Script = std::function<void(const sluice_branch_in &, sluice_branch_out &)>;

/// Says in branch() what the test wants, and counts the states that are open.
class Puppet final : public sdk::Decoder<std::shared_ptr<int>> {
 public:
  Puppet(const sluice_host_api &, const sdk::Config &, const sluice_decoder_setup &) {}
  void needs(sluice_decoder_needs &needs) const override {
    needs.max_branches = 8;
    needs.n_top = 4;
    needs.logprobs_kind = SLUICE_LOGPROBS_RAW;
  }
  std::shared_ptr<int> open(const sluice_seq_start &, const sdk::Config &) override { return alive; }
  void branch(const sluice_branch_in &in, sluice_branch_out &out) override { script(in, out); }
  void commit(const sluice_decoder_commit &told) override {
    for (uint32_t i = 0; i < told.n_seqs; ++i) committed.push_back(told.tok[told.tok_indptr[i]]);
  }

  static inline std::shared_ptr<int> alive = std::make_shared<int>(0);
  static inline Script script;
  static inline std::vector<int32_t> committed;
};

const sluice_decoder_vtbl *puppet() {
  static const auto vtbl = sdk::DecoderAdapter<Puppet>::vtbl();
  Puppet::script = nullptr;
  Puppet::committed.clear();
  return &vtbl;
}

struct Entry {
  uint32_t from;
  int32_t token;
  float score;
  uint8_t what;
};
constexpr uint8_t kGrow = SLUICE_BRANCH_GROW, kFinish = SLUICE_BRANCH_FINISH;

void write(sluice_branch_out &out, const std::vector<Entry> &entries) {
  out.n = 0;
  for (const auto &entry : entries) {
    out.from[out.n] = entry.from, out.token[out.n] = entry.token, out.score[out.n] = entry.score;
    out.what[out.n++] = entry.what;
  }
}

/// One request of 10 prompt tokens, two full blocks and a half, up to the row behind its prompt.
struct Scene {
  explicit Scene(SearchEngine::Options options = {}) : engine(with_puppet(options)) {
    request = engine.submit(some_prompt(1, 10, 32), {8, 2, 20, 1, "false", {31}});
  }
  static SearchEngine::Options with_puppet(SearchEngine::Options options) {
    options.decoder = puppet();
    return options;
  }
  void step(Script script) {
    Puppet::script = std::move(script);
    engine.step();
  }
  uint64_t used() const { return engine.core->stats().kv_blocks_used; }

  SearchEngine engine;
  std::shared_ptr<request::Request> request;
};

TEST(Branches, ForksShareCopyOnWriteAndArePrunedAtOnce) {
  for (const bool prefix_cache : {false, true}) {
    Scene scene({.prefix_cache = prefix_cache});
    const auto grow = [](std::vector<Entry> entries) {
      return [entries](const sluice_branch_in &, sluice_branch_out &out) { write(out, entries); };
    };
    scene.step(grow({{0, 1, -1, kGrow}, {0, 2, -2, kGrow}, {0, 3, -3, kGrow}}));
    EXPECT_EQ(scene.used(), 3U) << "three branches, the prompt's blocks";
    EXPECT_EQ(Puppet::alive.use_count(), 4) << "ours and one state per branch";
    scene.step(grow({{0, 1, -1, kGrow}, {1, 1, -2, kGrow}, {2, 1, -3, kGrow}}));
    EXPECT_EQ(scene.used(), 5U) << "two of them copied the half block, the third kept it";
    scene.step(grow({{0, 1, -1, kGrow}, {0, 2, -2, kGrow}, {2, 3, -3, kGrow}, {2, 4, -3, kGrow}}));
    EXPECT_EQ(scene.used(), 4U) << "the block of the branch that ends is free again";
    EXPECT_EQ(Puppet::alive.use_count(), 5);
    scene.step(grow({{3, 7, -1, kGrow}}));
    EXPECT_EQ(scene.used(), 4U) << "12 tokens are cached; the one of four that is left opened its own block";
    EXPECT_EQ(Puppet::alive.use_count(), 2);
    scene.step([](const sluice_branch_in &in, sluice_branch_out &out) {
      EXPECT_EQ(in.n_branches, 1U);
      EXPECT_EQ(in.generated[0], 4U);
      write(out, {{0, 31, -4, kFinish}, {0, -1, -5, kFinish}});
      out.group_done[0] = 1;
    });
    EXPECT_EQ(scene.used(), 0U);
    EXPECT_EQ(Puppet::alive.use_count(), 1);
    const auto answers = drain(*scene.request);
    EXPECT_EQ(answers.tokens[0], (std::vector<int32_t>{3, 1, 4, 7, 31}));
    EXPECT_EQ(answers.tokens[1], (std::vector<int32_t>{3, 1, 4, 7}));
    EXPECT_EQ(answers.ends[0], FinishReason::kStop);
    EXPECT_EQ(Puppet::committed, (std::vector<int32_t>{1, 2, 3, 1, 1, 1, 1, 2, 3, 4, 7}));
  }
}

TEST(Branches, TheBestAnswersAreKeptInTheirOrder) {
  Scene scene;
  scene.step([](const sluice_branch_in &, sluice_branch_out &out) {
    write(out, {{0, 5, -3, kFinish}, {0, 6, -1, kFinish}, {0, 1, -1, kGrow}});
  });
  scene.step([](const sluice_branch_in &, sluice_branch_out &out) {
    write(out, {{0, 7, -2, kFinish}, {0, 8, -1, kFinish}, {0, 9, -9, kGrow}});
    out.group_done[0] = 1;
  });
  EXPECT_EQ(scene.engine.core->live(), 0U);
  const auto answers = drain(*scene.request);
  EXPECT_EQ(answers.tokens[0], (std::vector<int32_t>{6})) << "the earlier of two equals";
  EXPECT_EQ(answers.tokens[1], (std::vector<int32_t>{1, 8}));
}

/// Runs everybody, or too little of those who have branches.
class Watcher final : public sdk::Scheduler {
 public:
  static constexpr uint32_t kFlags = 0;
  Watcher(const sdk::Config &, const sluice_sched_setup &) { last = this; }
  void plan(const sdk::View &view, sdk::Plan &plan) override {
    for (const auto ref : view.waiting()) plan.run(ref, view.t.pending[ref]);
    for (const auto ref : view.resident()) {
      EXPECT_TRUE(view.decodes(ref));
      EXPECT_EQ(view.t.pending[ref], view.t.width[ref]);
      widths.push_back(view.t.width[ref]);
      blocks.push_back({view.t.device_blocks[ref], view.t.exclusive_blocks[ref]});
      plan.run(ref, too_few ? 1 : view.t.pending[ref]);
    }
    plan.wake_at(view.v.now_ns + 1);
  }
  std::vector<uint32_t> widths;
  std::vector<std::pair<uint32_t, uint32_t>> blocks;
  bool too_few = false;
  static inline Watcher *last = nullptr;
};

TEST(Branches, TheSchedulerSeesOneRefAndItsWidth) {
  static const auto watcher = sdk::SchedulerAdapter<Watcher>::vtbl();
  Scene scene({.prefix_cache = false, .scheduler = &watcher});
  const auto three = [](const sluice_branch_in &in, sluice_branch_out &out) {
    std::vector<Entry> entries;
    for (uint32_t i = 0; i < 3; ++i) entries.push_back({std::min(i, in.n_branches - 1), 1, -1, kGrow});
    write(out, entries);
  };
  scene.step(three);
  scene.step(three);
  scene.step(three);
  EXPECT_EQ(Watcher::last->widths, (std::vector<uint32_t>{3, 3}));
  using Blocks = std::vector<std::pair<uint32_t, uint32_t>>;
  EXPECT_EQ(Watcher::last->blocks, (Blocks{{3, 3}, {5, 5}})) << "each block once, and preempting it frees them all";
  Watcher::last->too_few = true;
  scene.step(three);
  EXPECT_EQ(scene.engine.core->stats().plan_fallbacks, 1U) << "branches go on together";
}

TEST(Branches, GarbageFromBranchPoisonsAndLosesNothing) {
  const auto two = [](const sluice_branch_in &, sluice_branch_out &out) {
    write(out, {{0, 1, -1, kGrow}, {0, 2, -2, kGrow}});
  };
  const std::vector<std::pair<std::string, Script>> garbage = {
      {"n is 4294967295", [](const sluice_branch_in &, sluice_branch_out &out) { out.n = 0xFFFFFFFF; }},
      {"from[0] is 3, there are 3 branches",
       [](const sluice_branch_in &, sluice_branch_out &out) { write(out, {{3, 1, -1, kGrow}}); }},
      {"token[0] is 32", [](const sluice_branch_in &, sluice_branch_out &out) { write(out, {{0, 32, -1, kGrow}}); }},
      {"token[0] is -1", [](const sluice_branch_in &, sluice_branch_out &out) { write(out, {{0, -1, -1, kGrow}}); }},
      {"token[1] is -2",
       [](const sluice_branch_in &, sluice_branch_out &out) { write(out, {{0, 1, -1, kGrow}, {0, -2, -1, kFinish}}); }},
      {"what[0] is 3", [](const sluice_branch_in &, sluice_branch_out &out) { write(out, {{0, 1, -1, 3}}); }},
      {"score[0] is nan", [](const sluice_branch_in &, sluice_branch_out &out) { write(out, {{0, 1, NAN, kGrow}}); }},
      {"score[0] is inf", [](const sluice_branch_in &, sluice_branch_out &out) { write(out, {{0, 1, INFINITY, kFinish}}); }},
      {"has no branch left", [](const sluice_branch_in &, sluice_branch_out &out) { out.n = 0; }},
      {"has no branch left",
       [](const sluice_branch_in &, sluice_branch_out &out) { write(out, {{0, 1, -1, kFinish}}); }},
      {"is done without an answer", [](const sluice_branch_in &, sluice_branch_out &out) { out.group_done[0] = 1; }},
      {"group_done[0] is 7",
       [](const sluice_branch_in &, sluice_branch_out &out) { write(out, {{0, 1, -1, kGrow}}), out.group_done[0] = 7; }},
      {"grows 9 branches, its request has 8",
       [](const sluice_branch_in &, sluice_branch_out &out) {
         write(out, std::vector<Entry>(9, {0, 1, -1, kGrow}));
       }},
      {"oops", [](const sluice_branch_in &, sluice_branch_out &) { throw std::runtime_error("oops"); }},
  };
  for (const auto &[words, script] : garbage) {
    Scene scene;
    scene.step(two);
    const auto other = scene.engine.submit(some_prompt(2, 6, 32), {2, 1, 4, 1, "false", {}});
    scene.step(script);
    EXPECT_FALSE(scene.engine.core->stats().healthy) << words;
    scene.engine.run();
    const auto answers = drain(*scene.request);
    EXPECT_EQ(answers.ends, std::vector<FinishReason>(2, FinishReason::kError)) << words;
    EXPECT_TRUE(answers.error.find(words) != std::string::npos) << words << " in " << answers.error;
    EXPECT_NE(drain(*other).error, "") << "nobody is served by a damaged decoder";
    EXPECT_EQ(Puppet::alive.use_count(), 1) << words;
  }
}

TEST(Branches, AGroupThatReachesIntoAnotherIsGarbage) {
  Scene scene;
  const auto other = scene.engine.submit(some_prompt(2, 6, 32), {2, 1, 4, 1, "false", {}});
  scene.step([](const sluice_branch_in &in, sluice_branch_out &out) {
    ASSERT_EQ(in.n_groups, 2U);
    write(out, {{1, 1, -1, kGrow}, {0, 1, -1, kGrow}});
  });
  scene.engine.run();
  EXPECT_NE(drain(*scene.request).error.find("from[1] is 0, of a group that came before"), std::string::npos);
  EXPECT_NE(drain(*other).error, "");
}

TEST(Branches, AnAnswerHasItsLongestLength) {
  Scene scene;
  for (int i = 0; i < 19; ++i)
    scene.step([](const sluice_branch_in &, sluice_branch_out &out) { write(out, {{0, 1, -1, kGrow}}); });
  EXPECT_EQ(scene.engine.core->live(), 1U);
  scene.step([](const sluice_branch_in &, sluice_branch_out &out) { write(out, {{0, 1, -1, kGrow}}); });
  EXPECT_EQ(scene.engine.core->live(), 0U);
  EXPECT_NE(drain(*scene.request).error.find("as long as it may be"), std::string::npos);
}

TEST(Branches, AnErrorCostsItsRequestsAndNobodyElse) {
  Scene scene;
  scene.step([](const sluice_branch_in &, sluice_branch_out &) { throw sdk::Error(SLUICE_E_UNAVAILABLE, "not now"); });
  EXPECT_EQ(scene.engine.core->live(), 0U);
  EXPECT_TRUE(scene.engine.core->stats().healthy);
  EXPECT_EQ(scene.engine.core->stats().plugin_errors, 1U);
  EXPECT_NE(drain(*scene.request).error.find("not now"), std::string::npos);
  const auto next = scene.engine.submit(some_prompt(2, 6, 32), {2, 1, 4, 1, "false", {}});
  Puppet::script = [](const sluice_branch_in &, sluice_branch_out &out) {
    write(out, {{0, 1, -1, kFinish}});
    out.group_done[0] = 1;
  };
  scene.engine.run();
  EXPECT_EQ(drain(*next).tokens[0], (std::vector<int32_t>{1}));
}

TEST(Branches, AForkThatFailsEndsItsRequest) {
  static sluice_decoder_vtbl vtbl = *puppet();
  vtbl.seq_fork = [](sluice_decoder *, const sluice_decoder_seq *, sluice_decoder_seq **, sluice_status *) -> int32_t {
    return SLUICE_E_RESOURCE_EXHAUSTED;
  };
  Scene scene;
  SearchEngine engine({.decoder = &vtbl});
  const auto request = engine.submit(some_prompt(1, 10, 32), {8, 2, 20, 1, "false", {31}});
  Puppet::script = [](const sluice_branch_in &, sluice_branch_out &out) {
    write(out, {{0, 1, -1, kGrow}, {0, 2, -1, kGrow}, {0, 3, -1, kGrow}});
  };
  engine.run();
  EXPECT_NE(drain(*request).error.find("failed with code"), std::string::npos);
  EXPECT_TRUE(engine.core->stats().healthy);
}

TEST(Branches, ADecoderThatCannotBranchIsRefusedAtLoad) {
  auto refuse = [](sluice_decoder_vtbl vtbl, uint32_t token_budget) {
    TestHost host;
    EngineLimits limits;
    limits.max_seqs = 4;
    limits.token_budget = token_budget;
    limits.max_context = 64;
    limits.kv_blocks = 8;
    MockModel model(host, {{"script", "hash"}}, limits, MockModel::Use{"greedy"}, MockModel::Use{"puppet", {}, &vtbl});
    const auto made = EngineCore::create(model.parts(load_plugin(host, "scheduler", "fcfs")->scheduler), limits);
    return made ? std::string() : made.error().message;
  };
  EXPECT_EQ(refuse(*puppet(), 8), "");
  EXPECT_NE(refuse(*puppet(), 7).find("up to 8 branches, and token_budget is 7"), std::string::npos);
  auto mute = *puppet();
  mute.branch = nullptr;
  EXPECT_NE(refuse(mute, 8).find("no branch()"), std::string::npos);
  auto processed = *puppet();
  processed.needs = [](const sluice_decoder *, sluice_decoder_needs *out, sluice_status *) -> int32_t {
    out->max_branches = 2, out->n_top = 2, out->logprobs_kind = SLUICE_LOGPROBS_PROCESSED;
    return SLUICE_OK;
  };
  EXPECT_NE(refuse(processed, 8).find("logprobs_kind 1"), std::string::npos);
}

}  // namespace
}  // namespace sluice::engine::testing

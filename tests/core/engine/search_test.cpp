// A search through the whole engine: the answers of the reference, whatever happens to blocks, steps and seats.
#include "tests/core/engine/search_fixture.hpp"

namespace sluice::engine::testing {
namespace {

using request::CancelCause;
using request::FinishReason;

/// Feeds prompts in chunks of any size, leaves out whom it likes and takes everybody's blocks now and then, by dropping
/// or, where there is swap space, by moving them there.
class Restless final : public sdk::Scheduler {
 public:
  static constexpr uint32_t kFlags = 0;
  Restless(const sdk::Config &, const sluice_sched_setup &) {}
  void plan(const sdk::View &view, sdk::Plan &plan) override {
    uint32_t budget = view.v.token_budget;
    uint32_t seats = view.v.max_seqs;
    const auto consider = [&](sluice_seq_ref ref) {
      const uint32_t pending = view.t.pending[ref];
      if (pending == 0 || seats == 0 || random_() % 5 == 0) return;
      const uint32_t tokens = view.decodes(ref) ? pending : std::min<uint32_t>(pending, 1 + random_() % 24);
      if (tokens > budget) return;
      plan.run(ref, tokens);
      budget -= tokens;
      --seats;
    };
    for (const auto ref : view.resident()) {
      const uint32_t mood = random_() % 20;
      if (mood == 0)
        plan.preempt(ref);
      else if (mood < 3)
        view.v.host_total > 0 ? plan.swap_out(ref) : plan.preempt(ref);
      else
        consider(ref);
    }
    for (const auto ref : view.swapped())
      if (random_() % 2 == 0) plan.swap_in(ref);
    for (const auto ref : view.waiting()) consider(ref);
    for (const auto ref : view.resident()) plan.victim(ref);
    plan.wake_at(view.v.now_ns + 1'000'000);
  }

 private:
  std::mt19937 random_{5};
};

std::string name_of(const SearchCase &c, uint64_t seed) {
  return "beams " + std::to_string(c.beams) + ", length_penalty " + std::to_string(c.length_penalty) +
         ", early_stopping " + c.early_stopping + ", seed " + std::to_string(seed);
}

std::vector<SearchCase> cases(const std::vector<int32_t> &stops) {
  std::vector<SearchCase> out;
  const char *const kEarly[] = {"true", "false", "never"};
  const double kPenalties[] = {0, 0.5, 1, 2};
  for (uint32_t beams = 2; beams <= 8; ++beams)
    for (uint32_t i = 0; i < 4; ++i)
      out.push_back({beams, 1 + (beams + i) % beams, 6 + 3 * i, kPenalties[(beams + i) % 4], kEarly[(beams + 2 * i) % 3], stops});
  return out;
}

/// All cases at once, and beside them requests that sample. Returns the engine's statistics.
request::GeneratorStats expect_reference(const SearchEngine::Options &options) {
  SearchEngine engine(options);
  const auto all = cases({1, 2});
  std::vector<std::shared_ptr<request::Request>> requests, sampled;
  for (size_t i = 0; i < all.size(); ++i)
    requests.push_back(engine.submit(some_prompt(i, 1 + 5 * i % 23, options.vocab), all[i]));
  for (size_t i = 0; i < 6; ++i) {
    SearchCase none;
    auto request = engine.request(some_prompt(100 + i, 3 + i, options.vocab), none);
    request->n_branches = 0;
    request->decoder_options = nullptr;
    request->max_new = 12;
    request->seed = i;
    EXPECT_TRUE(engine.core->submit(request).has_value());
    sampled.push_back(request);
  }
  engine.run();
  for (size_t i = 0; i < all.size(); ++i)
    expect_answers(*requests[i], test::hf_beam_search(engine.reference(requests[i]->prompt), all[i]), name_of(all[i], i));
  for (const auto &request : sampled) EXPECT_EQ(drain(*request).tokens[0].size(), 12U);
  EXPECT_TRUE(engine.core->stats().healthy) << engine.core->stats().trouble;
  return engine.core->stats();
}

TEST(Search, GivesTheAnswersOfTheReference) {
  expect_reference({});
  SearchEngine::Options options;
  options.prefix_cache = false;
  options.rows_on_host = true;
  expect_reference(options);
}

TEST(Search, PreemptionInBetweenChangesNoAnswer) {
  static const auto restless = sdk::SchedulerAdapter<Restless>::vtbl();
  SearchEngine::Options options;
  options.scheduler = &restless;
  EXPECT_GT(expect_reference(options).preemptions, 50U);
  options.kv_blocks = 70;
  EXPECT_GT(expect_reference(options).preemptions, 50U);
  options.prefix_cache = false;
  EXPECT_GT(expect_reference(options).preemptions, 50U);
}

TEST(Search, SwapSpaceInBetweenChangesNoAnswer) {
  static const auto restless = sdk::SchedulerAdapter<Restless>::vtbl();
  SearchEngine::Options options;
  options.scheduler = &restless;
  options.host_blocks = 256;
  for (const uint32_t kv_blocks : {256U, 80U}) {
    for (const bool prefix_cache : {true, false}) {
      options.kv_blocks = kv_blocks;
      options.prefix_cache = prefix_cache;
      const auto stats = expect_reference(options);
      EXPECT_GT(stats.swaps_out, 20U);
      EXPECT_GT(stats.swaps_in, 20U);
    }
  }
  options.host_blocks = 20;  // too little for all
  EXPECT_GT(expect_reference(options).swaps_out, 10U);
}

TEST(Search, LittleMemoryUnderFcfsChangesNoAnswer) {
  SearchEngine::Options options;
  options.kv_blocks = 70;
  EXPECT_GT(expect_reference(options).preemptions, 0U);
}

TEST(Search, AnotherPolicyChangesNoAnswer) {
  TestHost host;
  SearchEngine::Options options;
  options.scheduler = load_plugin(host, "scheduler", "mlfq")->scheduler;
  for (const uint32_t host_blocks : {0U, 256U}) {
    options.kv_blocks = 80;
    options.host_blocks = host_blocks;
    EXPECT_EQ(expect_reference(options).plan_fallbacks, 0U);
  }
}

TEST(Search, FullWidthFindsWhatTryingAllFinds) {
  SearchEngine::Options options;
  options.vocab = 4;
  options.max_beams = 64;
  SearchEngine engine(options);
  for (const double penalty : {0.0, 0.5, 1.0, 2.0})
    for (const char *early : {"true", "false", "never"})
      for (uint64_t seed = 0; seed < 4; ++seed) {
        const SearchCase c{64, 3, 4, penalty, early, {3}};
        const auto request = engine.submit(some_prompt(seed, 6, 4), c);
        engine.run();
        auto expected = test::brute_force(engine.reference(request->prompt), c);
        expected.resize(3);
        expect_answers(*request, expected, name_of(c, seed));
      }
}

TEST(Search, OneBeamIsGreedy) {
  SearchEngine engine({.sampler = "greedy"});
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const SearchCase c{1, 1, 20, 1, "never", {1, 2}};
    const auto prompt = some_prompt(seed, 7, 32);
    const auto searched = engine.submit(prompt, c);
    auto greedy = engine.request(prompt, c);
    greedy->n_branches = 0;
    greedy->decoder_options = nullptr;
    ASSERT_TRUE(engine.core->submit(greedy).has_value());
    engine.run();
    const auto a = drain(*searched), b = drain(*greedy);
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.ends, b.ends);
  }
}

TEST(Search, LogprobsAreTheModelsOwn) {
  for (const bool on_host : {false, true}) {
    SearchEngine engine({.rows_on_host = on_host});
    const SearchCase c{3, 3, 10, 1, "false", {1}};
    auto request = engine.request(some_prompt(3, 9, 32), c);
    request->want_logprobs = true;
    request->n_top_logprobs = 14;  // more than the decoder looks at
    ASSERT_TRUE(engine.core->submit(request).has_value());
    engine.run();
    const auto model = engine.reference(request->prompt);
    std::vector<std::vector<int32_t>> said(3);
    std::vector<request::Event> events;
    request->events->drain(events);
    for (const auto &event : events) {
      ASSERT_GE(event.token, 0);
      const auto row = model(said[event.answer]);
      EXPECT_NEAR(event.logprob, row[static_cast<size_t>(event.token)], 1e-5);
      ASSERT_TRUE(event.top != nullptr);
      ASSERT_EQ(event.top->size(), 14U);
      EXPECT_EQ((*event.top)[0].token, static_cast<int32_t>(test::top_k(row, 1)[0]));
      said[event.answer].push_back(event.token);
    }
  }
}

TEST(Search, ACancelAtAnyStepEndsAllAnswersAndFreesAll) {
  for (size_t after = 0; after < 14; ++after) {
    SearchEngine engine({});
    const auto request = engine.submit(some_prompt(after, 9, 32), {4, 3, 12, 1, "never", {}});
    for (size_t i = 0; i < after; ++i) engine.step();
    ASSERT_EQ(engine.core->live(), after < 12 ? 1U : 0U);
    if (after % 2 == 0)
      engine.core->cancel(request->id, CancelCause::kClient);
    else
      request->events->close();
    engine.run();
    if (after % 2 != 0 || after >= 12) continue;
    EXPECT_EQ(drain(*request).ends, std::vector<FinishReason>(3, FinishReason::kCancelled));
  }
}

TEST(Search, WhatCanNeverFitIsRefused) {
  SearchEngine engine({.kv_blocks = 23});
  const auto check = [&](const SearchCase &c, size_t prompt) {
    const auto checked = EngineCore::check(*engine.request(some_prompt(1, prompt, 32), c), engine.core->limits());
    return checked ? std::string() : checked.error().message;
  };
  // 8 tokens of prompt are two blocks that all share; 8 more tokens are two for each beam, and one to copy into.
  EXPECT_EQ(check({7, 1, 9, 1, "false", {}}, 8), "");
  EXPECT_NE(check({8, 1, 9, 1, "false", {}}, 8).find("on each of 8 branches can never fit: they need 26 KV blocks"),
            std::string::npos);
  EXPECT_NE(check({9, 1, 2, 1, "false", {}}, 8).find("9 branches are asked for"), std::string::npos);
  EXPECT_NE(check({2, 3, 2, 1, "false", {}}, 8).find("n is 3, of 2 branches"), std::string::npos);
  const auto request = engine.submit(some_prompt(1, 8, 32), {7, 7, 9, 1, "never", {}});
  engine.run();
  expect_answers(*request, test::hf_beam_search(engine.reference(request->prompt), {7, 7, 9, 1, "never", {}}), "tight");
}

TEST(Search, ABackendThatFailsCostsItsRequestsAnErrorAndNoBlock) {
  for (const char *where : {"wait", "submit"}) {
    SearchEngine engine({.mock = {{"fail_every", "7"}, {"fail_in", where}, {"fail_code", "internal"}}});
    size_t failed = 0;
    for (uint64_t i = 0; i < 10; ++i) {
      const auto request = engine.submit(some_prompt(i, 9, 32), {4, 2, 9, 1, "never", {}});
      engine.run();
      const auto answers = drain(*request);
      if (answers.error.empty()) continue;
      ++failed;
      EXPECT_EQ(answers.ends, std::vector<FinishReason>(2, FinishReason::kError));
      EXPECT_NE(answers.error.find("injected fault"), std::string::npos);
    }
    EXPECT_GT(failed, 3U);
    EXPECT_TRUE(engine.core->stats().healthy);
  }
}

}  // namespace
}  // namespace sluice::engine::testing

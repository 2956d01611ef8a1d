// What the mock says, and that company, chunking and preemption do not change it.
#include "tests/backends/mock/mock_driver.hpp"

namespace sluice::test {
namespace {

using Ids = std::vector<int32_t>;

TEST(Mock, EchoRepeatsThePrompt) {
  Mock m(PluginConfig::Values{{"script", "echo"}});
  MockSeq s = m.seq(1, {10, 11, 12});
  EXPECT_EQ(m.answer(s, 7), (Ids{10, 11, 12, 10, 11, 12, 10}));
}

TEST(Mock, CountGoesOnFromTheLastTokenAndPassesEosBy) {
  Mock m({{"script", "count"}, {"vocab_size", "8"}, {"eos_token", "1"}});
  MockSeq s = m.seq(1, {5});
  EXPECT_EQ(m.answer(s, 5), (Ids{6, 7, 0, 2, 3}));
}

TEST(Mock, TextCyclesThroughItsTokens) {
  Mock m({{"script", "text"}, {"tokens", "7 8 9"}});
  MockSeq a = m.seq(1, {1, 2}), b = m.seq(2, {1, 2, 3, 4});
  EXPECT_EQ(m.answer(a, 4), (Ids{7, 8, 9, 7}));
  EXPECT_EQ(m.answer(b, 4), (Ids{7, 8, 9, 7}));
}

TEST(Mock, EosComesAtItsPlace) {
  Mock m({{"script", "echo"}, {"eos_at", "3"}, {"eos_token", "2"}});
  MockSeq s = m.seq(1, {10, 11, 12});
  EXPECT_EQ(m.answer(s, 4), (Ids{10, 11, 2, 10}));
}

TEST(Mock, EosComesAsOftenAsTold) {
  mock::ScriptOptions o;
  o.script = mock::Script::kCount, o.eos_probability = 0.1;
  int n_eos = 0;
  const int n = 20000;
  for (int i = 0; i < n; ++i) n_eos += mock::choose(o, Ids{i % 500, i / 500 + 3}, 2).token == o.eos_token;
  EXPECT_NEAR(n_eos, n * 0.1, 5 * std::sqrt(n * 0.1 * 0.9));
}

TEST(Mock, HeaderForetellsTheGreedyAnswer) {
  mock::ScriptOptions o;
  o.script = mock::Script::kHash, o.vocab_size = 300, o.seed = 9, o.eos_probability = 0.05, o.hash_tokens = 2;
  Mock m({{"script", "hash"}, {"vocab_size", "300"}, {"seed", "9"}, {"eos_probability", "0.05"}, {"hash_tokens", "2"}});
  for (uint64_t id = 1; id <= 4; ++id) {
    const Ids prompt{static_cast<int32_t>(id), 40, 41};
    const Ids expected = mock::greedy_answer(o, prompt, 12);
    MockSeq s = m.seq(id, prompt, 16);
    EXPECT_EQ(m.answer(s, static_cast<uint32_t>(expected.size())), expected);
  }
}

TEST(Mock, CompanyAndChunksChangeNoToken) {
  for (const std::string script : {"echo", "hash"}) {
    Mock alone({{"script", script}}), together({{"script", script}});
    std::vector<Ids> expected;
    std::vector<MockSeq> seqs;
    seqs.reserve(5);
    for (uint64_t id = 1; id <= 5; ++id) {
      Ids prompt;
      for (uint64_t i = 0; i < 3 + id * 2; ++i) prompt.push_back(static_cast<int32_t>(100 + (id * 31 + i * 7) % 50));
      MockSeq s = alone.seq(id, prompt, 32);
      expected.push_back(alone.answer(s, 10));
      seqs.push_back(together.seq(id, prompt, 32));
    }
    for (int step = 0; step < 40; ++step) {  // prompts in chunks of two, decodes among them
      MockStep batch;
      for (MockSeq &s : seqs) {
        const auto left = static_cast<uint32_t>(s.tokens.size()) - s.cached;
        if (s.tokens.size() < 3 + s.id * 2 + 10) batch.add(s, std::min(left, 2u));
      }
      if (!batch.parts.empty()) together.run(batch);
    }
    for (size_t i = 0; i < seqs.size(); ++i)
      EXPECT_EQ(Ids(seqs[i].tokens.end() - 10, seqs[i].tokens.end()), expected[i]) << script;
  }
}

TEST(Mock, RecomputeAfterPreemptionGoesOnWithTheSameAnswer) {
  Mock m(PluginConfig::Values{{"script", "echo"}});
  MockSeq s = m.seq(1, {10, 11, 12}), thief = m.seq(2, {1, 2, 3, 4, 5});
  m.answer(s, 4);
  thief.blocks = s.blocks;
  m.answer(thief, 2);
  s.cached = 0, s.blocks = m.seq(3, {0}).blocks;
  EXPECT_EQ(m.answer(s, 3), (Ids{11, 12, 10}));
}

TEST(Mock, TakesTokensOfThePreviousStepUnseen) {
  Mock m(PluginConfig::Values{{"script", "count"}});
  MockSeq s = m.seq(1, {20, 21});
  sluice_ticket first = 0, second = 0;
  MockStep prompt, decode;
  prompt.add(s, 2);
  m.check(m.submit(prompt, &first));
  s.cached = 2, s.tokens.push_back(-1);  // row 0 of the step before
  m.check(m.submit(decode.add(s, 1), &second));
  m.check(m.wait(second));
  EXPECT_EQ(m.result.token[0], 23);
  s.tokens.back() = -2;
  sluice_ticket third = 0;
  MockStep wrong;
  EXPECT_EQ(m.submit(wrong.add(s, 1), &third), SLUICE_E_INVALID_ARGUMENT) << "that step had one row";
}

TEST(Mock, DrawsAlongATree) {
  Mock m(PluginConfig::Values{{"script", "count"}});
  MockSeq s = m.seq(1, {30, 31});
  m.answer(s, 1);  // 32 is the root of the tree
  // root 32, children 33 and 50, 34 under 33
  MockStep step;
  sluice_ticket ticket = 0;
  step.ids = {1}, step.kv_len = {2}, step.tokens = {32, 33, 50, 34}, step.positions = {2, 3, 3, 4};
  step.slots = {2, 3, 4, 5}, step.q_indptr = {0, 4}, step.block_ids = s.blocks;
  step.block_indptr = {0, static_cast<uint32_t>(s.blocks.size())};
  step.row_token = {0, 1, 2, 3}, step.row_spec = {0, 0, 0, 0}, step.specs = {MockStep::greedy()};
  step.row_seed = {1, 1, 1, 1}, step.row_position = {3, 4, 4, 5}, step.want = {1, 1, 1, 1};
  const std::vector<int32_t> parent{-1, 0, 0, 1};
  const std::vector<uint32_t> mask_indptr{0, 4};
  std::vector<uint64_t> mask{0b0001, 0b0011, 0b0101, 0b1011};
  step.step.parent = parent.data(), step.step.tree_mask_indptr = mask_indptr.data();
  step.step.tree_mask = mask.data();
  m.check(m.submit(step, &ticket));
  m.check(m.wait(ticket));
  EXPECT_EQ(Ids(m.result.token, m.result.token + 4), (Ids{33, 34, 51, 35}));
  // The path 33, 34 is accepted: 34's slot moves up behind 33's, and decoding goes on with 35.
  ASSERT_EQ(m.kv_op(SLUICE_KV_MOVE_SLOTS, 5, 4), SLUICE_OK);
  s.tokens = {30, 31, 32, 33, 34, 35}, s.cached = 5;
  EXPECT_EQ(m.answer(s, 2), (Ids{36, 37}));
  mask[3] = 0b1101;
  EXPECT_EQ(m.submit(step, &ticket), SLUICE_E_INVALID_ARGUMENT) << "mask and parent disagree";
}

TEST(Mock, PublishesWhatItIs) {
  Mock m({{"vocab_size", "1000"}, {"max_context", "77"}, {"kv_tokens", "160"}});
  sluice_model_info info{};
  info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
  m.check(m.vtbl().model_info(m.model, &info, m.status));
  EXPECT_EQ(info.vocab_size, 1000u);
  EXPECT_EQ(info.max_context, 77u);
  EXPECT_STREQ(info.arch, "mock");
  sluice_model_setup setup{};
  setup.struct_size = SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs);
  sluice_memory_plan plan{};
  plan.struct_size = SLUICE_SIZE_THROUGH(sluice_memory_plan, host_bytes_available);
  m.check(m.vtbl().plan_memory(m.model, &setup, &plan, m.status));
  sluice_kv_group group{};
  group.struct_size = SLUICE_SIZE_THROUGH(sluice_kv_group, reserved);
  m.check(m.vtbl().kv_groups(m.model, &setup, &group, sizeof group, m.status));
  EXPECT_EQ(plan.block_size, group.block_size);
  EXPECT_EQ(plan.kv_bytes_available / group.bytes_per_block, 10u) << "160 tokens in blocks of 16";
  setup.kv_dtype = SLUICE_DT_I8;
  EXPECT_EQ(m.vtbl().plan_memory(m.model, &setup, &plan, m.status), SLUICE_E_UNSUPPORTED);
}

TEST(Mock, RefusesOptionsThatMakeNoSense) {
  const auto said = [](const PluginConfig::Values &options) -> std::string {
    try {
      Mock m(options);
    } catch (const std::runtime_error &e) {
      return e.what();
    }
    return "nothing";
  };
  EXPECT_EQ(said({{"script", "text"}}), "script is 'text'; set one of `tokens` and `replay`");
  EXPECT_EQ(said({{"script", "text"}, {"tokens", "7 x"}}), "tokens: 'x' is not an id of 0..511");
  EXPECT_EQ(said({{"script", "text"}, {"tokens", "512"}}), "tokens: '512' is not an id of 0..511");
  EXPECT_EQ(said({{"eos_token", "512"}}), "eos_token is 512; it must be below vocab_size, 512");
  EXPECT_EQ(said({{"step_table", "/no/such.csv"}}),
            "step_table '/no/such.csv' cannot be read; give a CSV file n_tokens,context,us");
  EXPECT_EQ(said({{"script", "text"}, {"replay", "/no/such"}}), "replay '/no/such' cannot be read");
}

TEST(Mock, RefusesMalformedStepsAndStaysUsable) {
  Mock m(PluginConfig::Values{{"script", "echo"}});
  MockSeq s = m.seq(1, {10, 11, 12});
  const std::vector<std::pair<std::string, std::function<void(MockStep &)>>> wrong{
      {"tokens[1] is 512; ids are 0..511, or -1-k for a row of the step before",
       [](MockStep &t) { t.tokens[1] = 512; }},
      {"positions[0] is 5; after the cached tokens comes 0", [](MockStep &t) { t.positions[0] = 5; }},
      {"slots[2] is 9; by the block table it is 2", [](MockStep &t) { t.slots[2] = 9; }},
      {"block_ids[0] is 64; there are 64 blocks", [](MockStep &t) { t.block_ids[0] = 64; }},
      {"q_indptr[1] is 4; the last must be 3", [](MockStep &t) { t.q_indptr[1] = 4; }},
      {"sequence 1: 0 blocks of 4 do not hold its 3 tokens", [](MockStep &t) { t.block_indptr[1] = 0; }},
      {"row_token[0] is 3; the step has fewer tokens", [](MockStep &t) { t.row_token[0] = 3; }},
      {"row_position[0] is 2; the row decides the token after its own", [](MockStep &t) { t.row_position[0] = 2; }},
      {"row_spec[0] is 1; there are fewer specs", [](MockStep &t) { t.row_spec[0] = 1; }},
      {"row_want 4 has forms not given here", [](MockStep &t) { t.want[0] = SLUICE_ROW_LOGITS_DEV; }},
      {"spec.stage 12 is not known here", [](MockStep &t) { t.specs[0].stage[0] = SLUICE_STAGE_XTC; }},
      {"spec[0]: temperature must be 0 or more", [](MockStep &t) { t.specs[0].temperature = NAN; }},
      {"spec.n_logprobs is 9; the setup allows 8", [](MockStep &t) { t.specs[0].n_logprobs = 9; }},
  };
  for (const auto &[words, spoil] : wrong) {
    MockStep step;
    step.add(s, 3);
    spoil(step);
    sluice_ticket ticket = 0;
    EXPECT_NE(m.submit(step, &ticket), SLUICE_OK) << words;
    EXPECT_EQ(m.status.text(), words);
    EXPECT_EQ(ticket, 0u);
  }
  MockStep twice;
  twice.add(s, 3).add(s, 3);
  sluice_ticket ticket = 0;
  EXPECT_EQ(m.submit(twice, &ticket), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(m.status.text(), "sequence 1 stands twice in the step");
  EXPECT_EQ(m.answer(s, 3), (Ids{10, 11, 12}));
}

}  // namespace
}  // namespace sluice::test

// A search over the model that ships: the answers of the reference, which asks the same engine for the logprobs of every
// prefix, one ordinary request each.
#include <filesystem>
#include <map>

#include "tests/core/engine/search_fixture.hpp"

namespace sluice::engine::testing {
namespace {

const std::string kModel = SLUICE_SOURCE_DIR "/examples/model/sluice-tiny-q8_0.gguf";

struct ModelEngine {
  ModelEngine() {
    limits.max_seqs = 8;
    limits.token_budget = 128;
    limits.max_live = 16;
    limits.max_context = 256;
    limits.block_size = 16;
    limits.kv_blocks = 256;
    limits.max_branches = 8;
    model = std::make_unique<MockModel>(host, TestConfig{}, limits, MockModel::Use{"greedy"},
                                        MockModel::Use{"beam", {{"max_beams", "8"}, {"num_beams", "2"}}}, "cpu", kModel);
    auto made = EngineCore::create(model->parts(load_plugin(host, "scheduler", "fcfs")->scheduler), limits);
    EXPECT_TRUE(made.has_value()) << (made ? "" : made.error().message);
    if (made) core = std::move(*made);
  }
  std::vector<request::Event> run(const std::shared_ptr<request::Request> &request) {
    request->id = ++next_id;
    request->events = std::make_shared<request::EventChannel>(nullptr);
    EXPECT_TRUE(core->submit(request).has_value());
    while (core->live() > 0) core->step(1'000'000'000);
    EXPECT_EQ(core->audit(), "");
    std::vector<request::Event> events;
    request->events->drain(events);
    return events;
  }
  /// Logprobs of the 20 best after a prefix; more than a step of eight beams and two ends can look at.
  std::vector<double> row(const std::vector<int32_t> &prefix) {
    auto &known = rows[prefix];
    if (!known.empty()) return known;
    auto request = std::make_shared<request::Request>();
    request->prompt = prefix;
    request->want_logprobs = true;
    request->n_top_logprobs = 20;
    known.assign(core->limits().vocab_size, -1e6);
    const auto events = run(request);
    for (const auto &entry : *events.at(0).top) known[static_cast<size_t>(entry.token)] = entry.logprob;
    return known;
  }

  TestHost host;
  EngineLimits limits;
  std::unique_ptr<MockModel> model;
  std::unique_ptr<EngineCore> core;
  std::map<std::vector<int32_t>, std::vector<double>> rows;
  uint64_t next_id = 0;
};

TEST(SearchModel, GivesTheAnswersOfTheReference) {
  ASSERT_TRUE(std::filesystem::exists(kModel));
  ModelEngine engine;
  ASSERT_TRUE(engine.core != nullptr);
  const std::vector<int32_t> prompt = {1, 310, 402, 277, 350, 290};
  auto greedy = std::make_shared<request::Request>();
  greedy->prompt = prompt;
  greedy->max_new = 8;
  const auto said = engine.run(greedy);
  ASSERT_EQ(said.size(), 8U);
  // Tokens that the model likes to say, so that answers end at several lengths.
  const std::vector<int32_t> stops = {said[4].token, said[6].token};
  const SearchCase cases[] = {{2, 2, 10, 1, "false", stops}, {3, 3, 10, 0, "never", stops}, {4, 4, 10, 2, "true", stops},
                              {5, 2, 10, 0.5, "false", stops}, {8, 8, 10, 1, "never", stops}, {8, 8, 6, 1, "false", {}}};
  for (const auto &c : cases) {
    const test::Model model = [&](const std::vector<int32_t> &tokens) {
      auto prefix = prompt;
      prefix.insert(prefix.end(), tokens.begin(), tokens.end());
      return engine.row(prefix);
    };
    const auto expected = test::hf_beam_search(model, c);
    auto request = std::make_shared<request::Request>();
    request->prompt = prompt;
    request->n_answers = c.answers;
    request->n_branches = c.beams;
    request->max_new = c.max_new;
    request->stop_tokens = c.stops;
    const auto options = search_options(c);
    request->decoder_options = {options, reinterpret_cast<const plugin::Options *>(options.get())};
    std::vector<std::vector<int32_t>> found(c.answers);
    for (const auto &event : engine.run(request)) found[event.answer].push_back(event.token);
    for (size_t k = 0; k < c.answers; ++k)
      EXPECT_EQ(found[k], expected[k].tokens) << c.beams << " beams, early_stopping " << c.early_stopping << ", answer " << k;
  }
}

}  // namespace
}  // namespace sluice::engine::testing

#pragma once
#include <sluice/sdk/scheduler.hpp>

#include <memory>
#include <random>

#include "backends/mock/script.hpp"
#include "tests/core/engine/plugin_fixture.hpp"
#include "tests/samplers/beam/reference.hpp"

namespace sluice::engine::testing {

using test::Found;
using test::SearchCase;

/// What the mock's hash script says after a prompt, for the reference.
inline test::Model mock_model(mock::ScriptOptions script, std::vector<int32_t> prompt) {
  return [script, prompt](const std::vector<int32_t> &tokens) {
    auto all = prompt;
    all.insert(all.end(), tokens.begin(), tokens.end());
    std::vector<float> row(script.vocab_size);
    mock::fill_row(script, mock::choose(script, all, static_cast<uint32_t>(prompt.size())), row.data());
    return test::log_softmax({row.begin(), row.end()});
  };
}

/// What the decoder is to know of a search, as an engine of these tests passes it.
inline std::shared_ptr<TestConfig> search_options(const SearchCase &c) {
  return std::make_shared<TestConfig>(TestConfig{{"use_beam_search", "true"},
                                                 {"num_beams", std::to_string(c.beams)},
                                                 {"length_penalty", std::to_string(c.length_penalty)},
                                                 {"early_stopping", c.early_stopping}});
}

/// An engine core over the mock, whose hash script knows no end token of its own, and a decoder that branches.
class SearchEngine {
 public:
  struct Options {
    uint32_t vocab = 32, kv_blocks = 256, host_blocks = 0, token_budget = 64, max_seqs = 8, max_beams = 8;
    bool prefix_cache = true, rows_on_host = false;
    std::string sampler = "chain";
    TestConfig mock = {};
    const sluice_scheduler_vtbl *scheduler = nullptr;  ///< null = fcfs
    const sluice_decoder_vtbl *decoder = nullptr;      ///< null = beam
  };

  explicit SearchEngine(const Options &options) {
    script.script = mock::Script::kHash;
    script.vocab_size = options.vocab;
    script.eos_token = -1;
    TestConfig config = options.mock;
    config.insert({{"script", "hash"}, {"vocab_size", std::to_string(options.vocab)}, {"eos_token", "-1"}});
    limits.max_seqs = options.max_seqs;
    limits.token_budget = options.token_budget;
    limits.max_live = 64;
    limits.max_context = 256;
    limits.block_size = 4;
    limits.kv_blocks = options.kv_blocks;
    limits.prefix_cache = options.prefix_cache;
    limits.host_blocks = options.host_blocks;
    limits.bytes_per_block = 1024;
    limits.max_branches = options.max_beams;
    const MockModel::Use decoder{
        "beam", {{"max_beams", std::to_string(options.max_beams)}, {"num_beams", "2"}}, options.decoder};
    model = std::make_unique<MockModel>(host, config, limits, MockModel::Use{options.sampler}, decoder);
    if (options.rows_on_host) model->forbid_device_sampling();
    const auto *scheduler =
        options.scheduler != nullptr ? options.scheduler : load_plugin(host, "scheduler", "fcfs")->scheduler;
    auto made = EngineCore::create(model->parts(scheduler), limits);
    EXPECT_TRUE(made.has_value()) << (made ? "" : made.error().message);
    if (made) core = std::move(*made);
  }

  std::shared_ptr<request::Request> request(std::vector<int32_t> prompt, const SearchCase &c) {
    auto out = std::make_shared<request::Request>();
    out->id = ++next_id;
    out->prompt = std::move(prompt);
    out->n_answers = c.answers;
    out->n_branches = c.beams;
    out->max_new = c.max_new;
    out->stop_tokens = c.stops;
    out->events = std::make_shared<request::EventChannel>(nullptr);
    const auto options = search_options(c);
    out->decoder_options = {options, reinterpret_cast<const plugin::Options *>(options.get())};
    return out;
  }
  std::shared_ptr<request::Request> submit(std::vector<int32_t> prompt, const SearchCase &c) {
    auto out = request(std::move(prompt), c);
    const auto checked = EngineCore::check(*out, core->limits());
    EXPECT_TRUE(checked.has_value()) << (checked ? "" : checked.error().message);
    const auto submitted = core->submit(out);
    EXPECT_TRUE(submitted.has_value()) << (submitted ? "" : submitted.error().message);
    return out;
  }

  /// Steps with an audit after each, until nobody lives.
  void run(size_t most_steps = 100'000) {
    for (size_t i = 0; i < most_steps && core->live() > 0; ++i) {
      step();
      if (::testing::Test::HasFatalFailure()) return;
    }
    ASSERT_EQ(core->live(), 0U) << "the engine stands still";
    EXPECT_EQ(core->stats().kv_blocks_used, 0U);
    EXPECT_EQ(core->stats().host_blocks_used, 0U);
  }
  void step() {
    const auto outcome = core->step(0);
    const std::string wrong = core->audit();
    ASSERT_EQ(wrong, "");
    host.clock.advance_ns(outcome == StepOutcome::kCommitted ? 1'000 : 200'000);
  }

  test::Model reference(const std::vector<int32_t> &prompt) const { return mock_model(script, prompt); }

  mock::ScriptOptions script;
  TestHost host;
  EngineLimits limits;
  std::unique_ptr<MockModel> model;
  std::unique_ptr<EngineCore> core;
  uint64_t next_id = 0;
};

/// The answers that came, and how each ended.
struct Answers {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> logprobs;
  std::vector<request::FinishReason> ends;
  std::string error;
};

inline Answers drain(const request::Request &request) {
  Answers out;
  out.tokens.resize(request.n_answers);
  out.logprobs.resize(request.n_answers);
  out.ends.assign(request.n_answers, request::FinishReason::kNone);
  std::vector<request::Event> events;
  request.events->drain(events);
  for (const auto &event : events) {
    EXPECT_LT(event.answer, request.n_answers);
    if (event.answer >= request.n_answers) continue;
    EXPECT_EQ(out.ends[event.answer], request::FinishReason::kNone) << "an event behind the end";
    if (event.token >= 0) {
      out.tokens[event.answer].push_back(event.token);
      out.logprobs[event.answer].push_back(event.logprob);
    }
    out.ends[event.answer] = event.finish;
    if (event.error != nullptr) out.error = event.error->message;
  }
  return out;
}

inline void expect_answers(const request::Request &request, const std::vector<Found> &expected, const std::string &what) {
  const auto answers = drain(request);
  EXPECT_EQ(answers.error, "") << what;
  for (size_t k = 0; k < expected.size(); ++k) {
    EXPECT_EQ(answers.tokens[k], expected[k].tokens) << what << ", answer " << k;
    const bool stopped = !expected[k].tokens.empty() && test::contains(request.stop_tokens, expected[k].tokens.back());
    EXPECT_EQ(answers.ends[k], stopped ? request::FinishReason::kStop : request::FinishReason::kLength) << what;
  }
}

inline std::vector<int32_t> some_prompt(uint64_t seed, size_t length, uint32_t vocab) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> out(length);
  for (auto &token : out) token = static_cast<int32_t>(random() % vocab);
  return out;
}

}  // namespace sluice::engine::testing

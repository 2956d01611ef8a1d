#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/lifecycle/generation.hpp"
#include "core/lifecycle/service.hpp"
#include "tests/core/lifecycle/fake_generator.hpp"
#include "tests/core/lifecycle/tiny_tokenizer.hpp"

namespace sluice::test {

/// Everything a generation said, in order.
struct Recorder final : lifecycle::GenerationConsumer {
  void on_admitted() override { admitted = true; }
  void on_delta(uint32_t answer, std::string_view text, const lifecycle::ChosenToken *chosen) override {
    if (texts.size() <= answer) texts.resize(answer + 1);
    texts[answer] += text;
    ++deltas;
    if (chosen != nullptr) {
      tokens.push_back(chosen->token);
      token_text += chosen->bytes;
    }
  }
  void on_answer_end(uint32_t answer, lifecycle::AnswerEnd end) override {
    if (texts.size() <= answer) texts.resize(answer + 1);
    ends.emplace_back(answer, end);
  }
  void on_batch_end() override { ++batches; }
  bool writable() override { return open; }
  void on_end(const lifecycle::Outcome &o) override {
    ++n_ends;
    outcome = o;
  }

  bool admitted = false, open = true;
  int deltas = 0, batches = 0, n_ends = 0;
  std::vector<std::string> texts;
  std::vector<std::pair<uint32_t, lifecycle::AnswerEnd>> ends;
  std::vector<int32_t> tokens;
  std::string token_text;
  lifecycle::Outcome outcome;
};

/// A service with one model over a FakeGenerator; its strand is a queue that the test empties.
struct World {
  explicit World(lifecycle::ServiceOptions options = {}) : service(options, clock) {
    model->name = "tiny";
    model->tokenizer = tiny_tokenizer();
    model->generator = generator;
    model->metrics = metrics::ModelMetrics(registry, "tiny");
    model->state.ready();
    (void)service.add(model);
  }
  ~World() { generator->stop(); }  // ends what still runs while there is a place to post it to

  lifecycle::GenerationSpec spec(std::string prompt = "hi", uint32_t max_tokens = 5) {
    lifecycle::GenerationSpec s;
    s.model = model;
    s.request_id = "r";
    s.route = "/test";
    s.prompts.emplace_back(std::in_place_type<lifecycle::TextPrompt>, std::move(prompt));
    s.max_tokens = max_tokens;
    return s;
  }
  std::shared_ptr<lifecycle::Generation> start(lifecycle::GenerationSpec s) {
    kept.push_back(lifecycle::Generation::start(service, std::move(s), recorder, [this](std::function<void()> f) {
      const std::lock_guard lock(mutex);
      posted.push_back(std::move(f));
    }));
    return kept.back();
  }
  /// Runs what was posted, also what that posts.
  void run_posted() {
    for (;;) {
      std::function<void()> f;
      {
        const std::lock_guard lock(mutex);
        if (posted.empty()) return;
        f = std::move(posted.front());
        posted.pop_front();
      }
      f();
    }
  }
  void wait_posted() {
    for (int i = 0; i < 5000; ++i) {
      {
        const std::lock_guard lock(mutex);
        if (!posted.empty()) return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void step(int n = 1) {
    for (int i = 0; i < n; ++i) {
      generator->step();
      run_posted();
    }
  }

  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  metrics::Registry registry;
  std::shared_ptr<FakeGenerator> generator = std::make_shared<FakeGenerator>();
  std::shared_ptr<lifecycle::ServedModel> model = std::make_shared<lifecycle::ServedModel>();
  std::mutex mutex;
  std::deque<std::function<void()>> posted;
  lifecycle::Service service;
  std::shared_ptr<Recorder> recorder = std::make_shared<Recorder>();
  std::vector<std::shared_ptr<lifecycle::Generation>> kept;  ///< as a connection would keep them
};

}  // namespace sluice::test

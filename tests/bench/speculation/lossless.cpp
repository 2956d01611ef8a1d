// Counts answers that differ from plain decoding's, over many prompts on the model that ships: every decoder, greedy and
// seeded, alone and in batches in which sequences lose their cache. Exit code 1 if there is one.
//
//   build/release/tests/bench/speculation/speculation_lossless [--backend cpu] [--prompts 200] [--tokens 48]
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tests/plugins/decoders/speculation/cases.hpp"

int main(int argc, char **argv) {
  using namespace sluice::test;
  std::string backend = "cpu";
  size_t n_prompts = 200, longest_prompt = 96;
  uint32_t max_new = 48, company = 8;
  CLI::App app("Answers under speculation against plain ones");
  app.add_option("--backend", backend, "cpu or reference");
  app.add_option("--prompts", n_prompts, "prompts of all kinds");
  app.add_option("--prompt-tokens", longest_prompt, "of a prompt at most");
  app.add_option("--tokens", max_new, "output tokens of an answer at most");
  app.add_option("--company", company, "sequences of a batch");
  CLI11_PARSE(app, argc, argv);

  const auto model = ShippedModel::find();
  if (!model.exists) {
    fmt::print(stderr, "no model at {}\n", model.target);
    return 2;
  }
  auto prompts = mixed_prompts(model, n_prompts);
  for (auto &prompt : prompts) prompt.resize(std::min(prompt.size(), longest_prompt));
  size_t wrong = 0;
  fmt::print("backend {}, {} prompts, {} tokens each\n\n{:<16} {:<10} {:>8} {:>10} {:>12} {:>11} {:>12}\n", backend,
             prompts.size(), max_new, "decoder", "sampling", "answers", "different", "tokens/step", "acceptance",
             "preemptions");
  for (const auto &sampling : sampling_cases()) {
    Decoding plain;
    plain.backend = backend;
    plain.model = model.target;
    plain.stop_tokens = model.stop_tokens();
    plain.max_new = max_new;
    plain.sampler_options = sampling.options;
    const auto expected = decode(plain, prompts);
    if (!expected.failure.empty()) {
      fmt::print(stderr, "{}\n", expected.failure);
      return 2;
    }
    for (const auto &speculation : speculation_cases(model)) {
      Decoding how = plain;
      how.decoder = speculation.how.decoder;
      how.decoder_options = speculation.how.decoder_options;
      how.draft_model = speculation.how.draft_model;
      how.heads = speculation.how.heads;
      how.twice = speculation.how.twice;
      const auto verdict = compare_with_plain(how, prompts, expected.answers, company);
      const auto real = [](uint64_t n) { return static_cast<double>(n); };
      const auto &s = verdict.alone;
      fmt::print("{:<16} {:<10} {:>8} {:>10} {:>12.2f} {:>11.3f} {:>12} {}\n", speculation.name, sampling.name,
                 verdict.answers, verdict.different, 1 + real(s.draft_accepted_tokens) / std::max(1.0, real(s.draft_rounds)),
                 real(s.draft_accepted_tokens) / std::max(1.0, real(s.draft_tokens)), verdict.in_company.preemptions,
                 verdict.failure);
      std::fflush(stdout);
      wrong += verdict.different + (verdict.failure.empty() ? 0 : 1);
    }
  }
  return wrong == 0 ? 0 : 1;
}

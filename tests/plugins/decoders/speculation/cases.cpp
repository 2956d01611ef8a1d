#include "tests/plugins/decoders/speculation/cases.hpp"

namespace sluice::test {

std::vector<SpeculationCase> speculation_cases(const ShippedModel &model) {
  std::vector<SpeculationCase> cases;
  const auto add = [&](const char *name, const char *decoder, TestConfig options) -> Decoding & {
    options.emplace("adaptive", "false");
    SpeculationCase c{name, {}};
    c.how.decoder = decoder;
    c.how.decoder_options = std::move(options);
    cases.push_back(std::move(c));
    return cases.back().how;
  };
  add("ngram", "ngram", {{"max_drafts", "4"}, {"min_ngram", "1"}});
  add("draft", "draft", {{"model", "small"}, {"max_drafts", "4"}}).draft_model = model.draft;
  add("draft, width 3", "draft", {{"model", "small"}, {"max_drafts", "3"}, {"width", "3"}}).draft_model = model.draft;
  add("medusa", "medusa", {}).heads = model.heads;
  add("replay", "replay", {{"max_drafts", "4"}, {"acceptance", "0.8"}}).twice = true;
  return cases;
}

const std::vector<SamplingCase> &sampling_cases() {
  static const std::vector<SamplingCase> cases = {
      {"greedy", {{"temperature", "0"}}},
      {"seeded", {{"temperature", "0.8"}, {"top_p", "0.95"}}},
      {"penalised", {{"temperature", "0.7"}, {"min_p", "0.05"}, {"frequency_penalty", "0.5"}, {"repetition_penalty", "1.2"}}},
  };
  return cases;
}

std::vector<Tokens> mixed_prompts(const ShippedModel &model, size_t n) {
  static const char *const kKinds[] = {"story", "world", "sum", "told"};
  std::vector<std::vector<Tokens>> of_kind;
  for (const char *kind : kKinds) of_kind.push_back(model.prompts(kind, n));
  std::vector<Tokens> out;
  for (size_t i = 0; out.size() < n; ++i) {
    bool any = false;
    for (const auto &prompts : of_kind) {
      if (i >= prompts.size() || out.size() == n) continue;
      out.push_back(prompts[i]);
      any = true;
    }
    if (!any) break;
  }
  // There are fewer prompts of some lengths than asked for: go on with beginnings of those that are there.
  for (size_t i = 0; !out.empty() && out.size() < n; ++i)
    out.emplace_back(out[i].begin(), out[i].begin() + static_cast<ptrdiff_t>(std::max<size_t>(1, out[i].size() * 2 / 3)));
  return out;
}

Verdict compare_with_plain(const Decoding &how, const std::vector<Tokens> &prompts, const std::vector<Tokens> &expected,
                           uint32_t company) {
  Verdict verdict;
  const auto compare = [&](const Decoded &is) {
    if (!is.failure.empty()) verdict.failure = is.failure;
    for (size_t i = 0; i < expected.size(); ++i, ++verdict.answers)
      verdict.different += i >= is.answers.size() || is.answers[i] != expected[i];
  };
  Decoding alone = how;
  alone.company = 1;
  const auto by_itself = decode(alone, prompts);
  compare(by_itself);
  verdict.alone = by_itself.stats;
  Decoding together = how;
  together.company = company;
  size_t longest = 0;
  for (const auto &prompt : prompts) longest = std::max(longest, prompt.size());
  // The longest fits, with room for a tree, and little more.
  together.kv_blocks = static_cast<uint32_t>((longest + how.max_new + 80) / 16 + 2);
  const auto in_company = decode(together, prompts);
  compare(in_company);
  verdict.in_company = in_company.stats;
  return verdict;
}

}  // namespace sluice::test

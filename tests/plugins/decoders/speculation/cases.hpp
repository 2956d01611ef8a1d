// Which decoders, samplers and circumstances are compared with plain decoding on the model that ships.
#pragma once
#include "tests/plugins/decoders/medusa/decoding.hpp"

namespace sluice::test {

struct SpeculationCase {
  std::string name;
  Decoding how;  ///< without model and prompts
};

/// ngram, draft (a chain, and three tokens at each place), medusa and replay, all pinned.
std::vector<SpeculationCase> speculation_cases(const ShippedModel &model);

struct SamplingCase {
  const char *name;
  TestConfig options;
};
/// Greedy, seeded and seeded with penalties.
const std::vector<SamplingCase> &sampling_cases();

/// n prompts of all kinds in turn.
std::vector<Tokens> mixed_prompts(const ShippedModel &model, size_t n);

struct Verdict {
  size_t answers = 0, different = 0;
  request::GeneratorStats alone, in_company;
  std::string failure;
};

/// Every prompt alone, and all in batches of `company` with so few blocks that some lose theirs in between, against
/// `expected`, which plain decoding gave alone.
Verdict compare_with_plain(const Decoding &how, const std::vector<Tokens> &prompts, const std::vector<Tokens> &expected,
                           uint32_t company);

}  // namespace sluice::test

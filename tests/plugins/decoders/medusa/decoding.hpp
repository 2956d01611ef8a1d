// A model file with heads, decoded by the engine core with one decoder; and heads that know the answer.
#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::test {

using engine::testing::TestConfig;
using Tokens = std::vector<int32_t>;

struct Decoding {
  std::string backend = "cpu";
  TestConfig backend_options;
  std::string model, heads;  ///< paths; heads may be empty
  std::string draft_model;   ///< path, for a decoder that needs one
  std::string decoder = "plain";
  TestConfig decoder_options, sampler_options;
  uint32_t company = 1;  ///< requests at a time
  uint32_t max_new = 40, kv_blocks = 0;  ///< 0 = room for all
  Tokens stop_tokens;
  bool twice = false;  ///< all of it once more on the same engine; the answers are those of the second time
};

struct Decoded {
  std::vector<Tokens> answers;  ///< output, per prompt
  request::GeneratorStats stats;
  double cpu_seconds = 0;  ///< of all steps; one thread does everything
  std::string failure;
  /// Output tokens per step behind the one that ends the prompt; for company 1 and prompts of one step.
  double tokens_per_step() const {
    size_t n = 0;
    for (const Tokens &a : answers) n += a.size() - std::min<size_t>(a.size(), 1);
    return static_cast<double>(n) / static_cast<double>(stats.steps - answers.size());
  }
};

/// Heads that replay what is known to come: instead of the backend's own, or where it has none. While one of these
/// lives every Decoding goes through it; head h of the row that chooses token p of prompt i guesses known[i][p + 1 + h],
/// on rank (p + i) % 3.
class OracleHeads {
 public:
  static constexpr uint32_t kHeads = 4, kTop = 5;
  /// known  output per prompt, from plain decoding
  OracleHeads(const std::vector<Tokens> &prompts, const std::vector<Tokens> &known);
  ~OracleHeads();
  OracleHeads(const OracleHeads &) = delete;
  OracleHeads &operator=(const OracleHeads &) = delete;
};

/// Runs all prompts to their ends; request i has the seed 1000 * i.
Decoded decode(const Decoding &how, const std::vector<Tokens> &prompts);

/// What the backend says of the model.
sluice_model_info info_of(const Decoding &how);

/// Guesses of the heads along a text in one step. returns [tokens, n_heads, head_top]
struct HeadGuesses {
  uint32_t n_heads = 0, head_top = 0;
  Tokens ids;
};
HeadGuesses guess_along(const Decoding &how, const Tokens &text);

/// examples/model, if it is there: target, heads, and prompts of a kind as tokens.
struct ShippedModel {
  std::string target, heads, draft;
  bool exists = false;
  static ShippedModel find();
  /// "story" (openings to continue), "world", "sum", ... as eval/chats.jsonl names them.
  std::vector<Tokens> prompts(const std::string &kind, size_t most) const;
  Tokens stop_tokens() const;
};

}  // namespace sluice::test

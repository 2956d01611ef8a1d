#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/conformance/stages.hpp"

namespace sluice::conformance {

/// A sequence of tokens and the blocks that its cached ones lie in.
struct BackendSequence {
  uint64_t id = 0;
  std::vector<int32_t> tokens;
  std::vector<uint32_t> blocks;
  uint32_t cached = 0;
};
/// Feed the next n tokens of a sequence. parent  of each, counted from the first; empty = one after the other. Of a tree
/// every token's row is wanted, otherwise the last one's.
struct BackendPart {
  BackendSequence *sequence;
  uint32_t n;
  std::vector<int32_t> parent = {};
};
using Logits = std::vector<float>;

/// Drives a backend plugin as the engine would, one step at a time, and reports what goes wrong (F0 to F3).
class BackendDriver {
 public:
  static constexpr uint32_t kMaxTokens = 64, kMaxSeqs = 4, kBlocks = 48, kHostBlocks = 16, kMaxContext = 128;

  explicit BackendDriver(Findings &findings) : findings_(findings) {}
  /// false: reported or skipped
  bool load(const plugin::Library &library, const sluice_host_api *api, const plugin::Options &options,
            const std::string &path);

  plugin::LoadedModel &model() { return *model_; }
  Result<> health() const { return backend_->health(); }
  uint64_t caps() const { return model_->info().caps; }
  bool exact() const { return exact_; }  ///< not a bit may differ between two ways to the same logits
  uint32_t block_size() const { return block_size_; }
  const std::vector<int32_t> &prompt() const { return prompt_; }

  /// A sequence with its own blocks, in the order that `first` and `stride` give.
  BackendSequence make(const std::vector<int32_t> &tokens, uint32_t first, int32_t stride);
  /// One step; the wanted rows in order. Empty after a failure, which is reported. Tokens of a tree are not counted as
  /// cached.
  std::vector<Logits> step(const std::vector<BackendPart> &parts, const std::string &doing);
  /// Feeds a whole sequence in chunks of at most these sizes, the last one repeated. returns  the last row
  Logits feed(BackendSequence &s, const std::vector<uint32_t> &chunks, const std::string &doing);
  Logits whole(const std::vector<int32_t> &tokens);
  /// false: refused, and reported under `rule`
  bool kv_ops(uint8_t op, const std::vector<uint32_t> &src, const std::vector<uint32_t> &dst, const char *rule);
  /// code  of a submit of the first tokens of the prompt with this flags word and first token, which is then waited for
  int32_t submit_with(uint32_t flags, int32_t first_token);
  void expect_same(const Logits &is, const Logits &should, const char *rule, const std::string &what, const std::string &fix);

 private:
  struct Arrays;
  bool refused(const char *call, const Error &error);
  void fill(Arrays &arrays, const std::vector<BackendPart> &parts);
  std::vector<Logits> failed(const std::string &doing, const char *call, int32_t code, const sluice_status &st);

  Findings &findings_;
  std::unique_ptr<plugin::Backend> backend_;
  std::unique_ptr<plugin::LoadedModel> model_;
  bool exact_ = false;
  uint32_t block_size_ = 0;
  uint64_t next_id_ = 0, step_no_ = 0;
  std::vector<int32_t> prompt_;
};

// The checks of stage F, by what they are about.
void check_trees(BackendDriver &driver, Findings &findings);
void check_swap(BackendDriver &driver, Findings &findings);
/// Against the reference backend, where both read the same model.
void check_against_oracle(BackendDriver &driver, const sluice_host_api *api, const std::string &model, Findings &findings);

}  // namespace sluice::conformance

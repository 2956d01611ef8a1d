// sluice/sdk/token_history.hpp - the tokens of a sequence, counted for penalties.
#pragma once
#include <sluice/abi/sampling.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sluice::sdk {
inline namespace v0 {

/// How often a token occurs in the scopes of the penalties.
struct TokenCount {
  int32_t token;
  uint32_t in_prompt, in_output;
};

/// Prompt and output of one sequence with running counts. Copying it is a fork. Not thread-safe.
/// Always: counts_ holds each token of prompt_ and output_ once, and slots_ finds it.
class TokenHistory {
 public:
  /// Forgets everything; room for `capacity` tokens, so that appending up to there does not allocate.
  void reset(size_t capacity = 0) {
    prompt_.clear(), output_.clear(), counts_.clear();
    prompt_.reserve(capacity), output_.reserve(capacity), counts_.reserve(capacity);
    rehash(capacity);
  }
  void append_prompt(const int32_t *tokens, size_t n) {
    prompt_.insert(prompt_.end(), tokens, tokens + n);
    for (size_t i = 0; i < n; ++i) ++entry(tokens[i]).in_prompt;
  }
  void append_output(const int32_t *tokens, size_t n) {
    output_.insert(output_.end(), tokens, tokens + n);
    for (size_t i = 0; i < n; ++i) ++entry(tokens[i]).in_output;
  }
  const std::vector<int32_t> &prompt() const { return prompt_; }
  const std::vector<int32_t> &output() const { return output_; }
  /// Each distinct token once, in order of first appearance; whole history.
  const std::vector<TokenCount> &counts() const { return counts_; }

  /// The counts for a row of a draft tree or for a window; `out` is reused memory.
  /// path    draft tokens between the committed state and the row; they count as output
  /// last_n  spec.penalty_last_n: only the last n tokens of a scope; 0 = all. A scope of output alone and one of
  ///         prompt and output end in the same tokens, so one window serves both.
  void counts(const int32_t *path, size_t n_path, uint32_t last_n, TokenHistory &out) const {
    if (last_n == 0) {
      out = *this;
      out.append_output(path, n_path);
      return;
    }
    out.reset(last_n);
    const size_t from_path = n_path < last_n ? n_path : last_n;
    const size_t from_output = tail(output_, last_n - from_path);
    const size_t from_prompt = tail(prompt_, last_n - from_path - from_output);
    out.append_prompt(prompt_.data() + prompt_.size() - from_prompt, from_prompt);
    out.append_output(output_.data() + output_.size() - from_output, from_output);
    out.append_output(path + n_path - from_path, from_path);
  }

 private:
  static constexpr uint32_t kEmpty = UINT32_MAX;
  static size_t tail(const std::vector<int32_t> &v, size_t n) { return v.size() < n ? v.size() : n; }
  static size_t hash(int32_t token) { return static_cast<uint32_t>(token) * 0x9E3779B1u; }

  void rehash(size_t n_distinct) {
    size_t size = 16;
    while (size < 2 * n_distinct) size *= 2;
    slots_.assign(size, kEmpty);
    for (uint32_t i = 0; i < counts_.size(); ++i) slots_[find(counts_[i].token)] = i;
  }
  size_t find(int32_t token) const {
    const size_t mask = slots_.size() - 1;
    size_t s = (hash(token) >> 7) & mask;
    while (slots_[s] != kEmpty && counts_[slots_[s]].token != token) s = (s + 1) & mask;
    return s;
  }
  TokenCount &entry(int32_t token) {
    if (slots_.size() < 2 * (counts_.size() + 1)) rehash(2 * (counts_.size() + 1));
    const size_t s = find(token);
    if (slots_[s] == kEmpty) {
      slots_[s] = static_cast<uint32_t>(counts_.size());
      counts_.push_back({token, 0, 0});
    }
    return counts_[slots_[s]];
  }

  std::vector<int32_t> prompt_, output_;
  std::vector<TokenCount> counts_;
  std::vector<uint32_t> slots_;  // open addressing, a power of two, at most half full; index into counts_
};

}  // namespace v0
}  // namespace sluice::sdk

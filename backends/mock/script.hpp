// What the mock says: the token after a context, or a made-up row of logits, as a pure function of the context.
// Tests use this header to foretell what a server must answer.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace sluice::mock {

/// Steele et al. 2014 (splitmix64), the finalizer.
inline uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

constexpr uint64_t kEmptyContext = 0x5106ce5106ce5106ull;
/// The context that follows when `token` is appended.
inline uint64_t extend(uint64_t context, int32_t token) {
  return mix(context * 0x9e3779b97f4a7c15ull + static_cast<uint32_t>(token) + 1);
}
inline uint64_t context_of(const std::vector<int32_t> &tokens) {
  uint64_t context = kEmptyContext;
  for (const int32_t t : tokens) context = extend(context, t);
  return context;
}

enum class Script : uint8_t {
  kEcho,   // the prompt, again and again
  kCount,  // the last token's successor
  kText,   // the tokens of `text`, again and again
  kHash,   // rows of pseudo-random logits that depend on the last `hash_tokens` tokens
};

struct ScriptOptions {
  Script script = Script::kCount;
  uint32_t vocab_size = 512;
  int32_t eos_token = 2;       // -1 = none
  double eos_probability = 0;  // of each output token
  uint32_t eos_at = 0;         // the output token, counted from 1, that is eos_token; 0 = none
  uint32_t hash_tokens = 3;
  double spread = 3;  // standard deviation of kHash logits
  uint64_t seed = 0;
  std::vector<int32_t> text;
};

/// In a scripted row the chosen token has this logit and all others 0. THE DRAW adds noise between -2.9 and 16.7, so at
/// any temperature up to kSureTemperature the scripted token wins, whatever the seed.
constexpr float kPeakLogit = 100.0f;
constexpr float kSureTemperature = 4.0f;
constexpr float kEosFloor = -100.0f;  // of eos in a kHash row: eos comes by eos_probability and eos_at only

/// A row in short: scripted (token >= 0) or pseudo-random (token == -1, from `key`).
struct Choice {
  int32_t token = -1;
  uint64_t key = 0;
};

/// What follows `position` tokens of context.
///
/// context   extend() over all of them
/// n_prompt  how many of them are prompt; 1..position
/// token_at  int32_t(uint32_t i), the token at position i < position
template <class TokenAt>
Choice choose(const ScriptOptions &o, uint64_t context, uint32_t position, uint32_t n_prompt, const TokenAt &token_at) {
  const uint32_t n_output = position - n_prompt;
  if (o.eos_token >= 0) {
    if (o.eos_at != 0 && n_output + 1 == o.eos_at) return {o.eos_token, 0};
    const double coin = static_cast<double>(mix(context ^ o.seed ^ 0xe05e05ull) >> 11) * 0x1.0p-53;
    if (coin < o.eos_probability) return {o.eos_token, 0};
  }
  switch (o.script) {
    case Script::kEcho:
      return {token_at(n_output % n_prompt), 0};
    case Script::kText:
      return {o.text[n_output % o.text.size()], 0};
    case Script::kCount: {
      const auto next = static_cast<int32_t>((static_cast<uint32_t>(token_at(position - 1)) + 1) % o.vocab_size);
      return {next == o.eos_token ? static_cast<int32_t>((static_cast<uint32_t>(next) + 1) % o.vocab_size) : next, 0};
    }
    case Script::kHash:
      break;
  }
  uint64_t key = mix(o.seed + kEmptyContext);
  for (uint32_t i = position - std::min(position, o.hash_tokens); i < position; ++i) key = extend(key, token_at(i));
  return {-1, key};
}

/// The same from all tokens at once, for tests.
inline Choice choose(const ScriptOptions &o, const std::vector<int32_t> &tokens, uint32_t n_prompt) {
  return choose(o, context_of(tokens), static_cast<uint32_t>(tokens.size()), n_prompt,
                [&](uint32_t i) { return tokens[i]; });
}

/// A logit of a kHash row: the sum of four 16-bit uniforms, close to normal, the same bits on every machine.
inline float hash_logit(const ScriptOptions &o, uint64_t key, int32_t token) {
  if (token == o.eos_token) return kEosFloor;
  const uint64_t bits = mix(key + 0x9e3779b97f4a7c15ull * (static_cast<uint32_t>(token) + 1));
  const auto sum = static_cast<int32_t>((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
  const auto scale = static_cast<float>(o.spread / 37837.2);  // 65536 * sqrt(4 / 12)
  return static_cast<float>(sum - 2 * 65535) * scale;
}

/// row [vocab_size] f32.
inline void fill_row(const ScriptOptions &o, const Choice &choice, float *row) {
  if (choice.token >= 0) {
    std::fill_n(row, o.vocab_size, 0.0f);
    row[choice.token] = kPeakLogit;
  } else {
    for (uint32_t v = 0; v < o.vocab_size; ++v) row[v] = hash_logit(o, choice.key, static_cast<int32_t>(v));
  }
}

/// The best id of the row, the lowest on ties, without writing the row.
inline int32_t best_of(const ScriptOptions &o, const Choice &choice) {
  if (choice.token >= 0) return choice.token;
  int32_t best = 0;
  float top = hash_logit(o, choice.key, 0);
  for (int32_t v = 1; v < static_cast<int32_t>(o.vocab_size); ++v)
    if (const float l = hash_logit(o, choice.key, v); l > top) top = l, best = v;
  return best;
}

/// The greedy answer to a prompt: at most max_new tokens, the last one eos_token if it came.
inline std::vector<int32_t> greedy_answer(const ScriptOptions &o, std::vector<int32_t> tokens, uint32_t max_new) {
  const auto n_prompt = static_cast<uint32_t>(tokens.size());
  while (tokens.size() < n_prompt + max_new) {
    tokens.push_back(best_of(o, choose(o, tokens, n_prompt)));
    if (tokens.back() == o.eos_token) break;
  }
  return {tokens.begin() + n_prompt, tokens.end()};
}

}  // namespace sluice::mock

#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/api/openai_parse.hpp"
#include "core/lifecycle/generation.hpp"

namespace sluice::text {
class Tokenizer;
}

namespace sluice::api {

std::string_view finish_reason(lifecycle::AnswerEnd end);  ///< "stop", "length", "cancelled"
void append_usage(std::string &out, const lifecycle::Usage &usage);

/// Log-probabilities in either dialect's shape, one token after the other.
class LogprobsWriter {
 public:
  LogprobsWriter(Dialect dialect, const text::Tokenizer &tokenizer) : dialect_(dialect), tokenizer_(tokenizer) {}
  void add(const lifecycle::ChosenToken &chosen);
  void append_and_clear(std::string &out);  ///< the object; `null` never

 private:
  const Dialect dialect_;
  const text::Tokenizer &tokenizer_;
  std::string content_;                              ///< chat: entries
  std::string tokens_, logprobs_, top_, offsets_;    ///< completion: columns
  uint64_t offset_ = 0;                              ///< characters of earlier tokens
};

/// Writes one reply's JSON: the chunks of a stream, or the whole. What does not change between chunks is written once,
/// so that a token costs an escape and a few copies.
class ReplyFormat {
 public:
  ReplyFormat(Dialect dialect, const ParsedRequest &request, std::string fingerprint, uint32_t n_answers);

  /// Each appends one JSON object.
  void append_first(std::string &out, uint32_t answer) const;  ///< chat's role chunk
  void append_delta(std::string &out, uint32_t answer, std::string_view text, const lifecycle::ChosenToken *chosen);
  void append_end(std::string &out, uint32_t answer, lifecycle::AnswerEnd end) const;
  void append_usage_chunk(std::string &out, const lifecycle::Usage &usage) const;

  struct Answer {
    std::string text;
    lifecycle::AnswerEnd end = lifecycle::AnswerEnd::kStop;
  };
  void collect_logprobs(uint32_t answer, const lifecycle::ChosenToken &chosen) { logprobs_[answer].add(chosen); }
  void append_whole(std::string &out, const std::vector<Answer> &answers, const lifecycle::Usage &usage);

  bool has_first() const { return dialect_ == Dialect::kChat; }
  const std::string &id() const { return id_; }

 private:
  const Dialect dialect_;
  const bool with_usage_, with_logprobs_;
  std::string id_, head_, whole_head_;
  std::string delta_open_, delta_close_, end_close_;
  std::vector<LogprobsWriter> logprobs_;  ///< one per answer
};

}  // namespace sluice::api

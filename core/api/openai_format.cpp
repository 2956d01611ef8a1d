#include "core/api/openai_format.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <random>

#include "core/net/error_reply.hpp"
#include "core/text/tokenizer.hpp"
#include "core/text/utf8.hpp"

namespace sluice::api {
namespace {

using lifecycle::AnswerEnd;
using lifecycle::ChosenToken;
using lifecycle::Usage;
using net::append_json_escaped;

constexpr double kLowestLogprob = -9999.0;  // JSON has no -Infinity; OpenAI's and vLLM's stand-in

std::string fresh_id(std::string_view prefix) {
  thread_local std::mt19937_64 random{(uint64_t{std::random_device{}()} << 32) ^ std::random_device{}()};
  return fmt::format("{}{:016x}{:08x}", prefix, random(), static_cast<uint32_t>(random()));
}

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void append_number(std::string &out, double value) {
  fmt::format_to(std::back_inserter(out), "{}", static_cast<float>(std::isfinite(value) ? value : kLowestLogprob));
}

// A token may be half a character; its text is then repaired, and its bytes are told apart.
void append_token_string(std::string &out, std::string_view bytes) {
  out += '"';
  if (text::is_utf8(bytes)) {
    append_json_escaped(out, bytes);
  } else {
    append_json_escaped(out, text::repair_utf8(bytes));
  }
  out += '"';
}

void append_token_entry(std::string &out, std::string_view bytes, double logprob) {
  out += R"({"token":)";
  append_token_string(out, bytes);
  out += R"(,"logprob":)";
  append_number(out, logprob);
  out += R"(,"bytes":[)";
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0) out += ',';
    out += std::to_string(static_cast<unsigned char>(bytes[i]));
  }
  out += ']';
}

uint64_t count_characters(std::string_view text) {
  uint64_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return n;
}

}  // namespace

std::string_view finish_reason(AnswerEnd end) {
  switch (end) {
    case AnswerEnd::kStop: return "stop";
    case AnswerEnd::kLength: return "length";
    case AnswerEnd::kCancelled: return "cancelled";
  }
  return "stop";
}

void append_usage(std::string &out, const Usage &usage) {
  fmt::format_to(std::back_inserter(out),
                 R"({{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{}}})",
                 usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens + usage.completion_tokens,
                 usage.cached_tokens);
  if (usage.draft_tokens > 0)
    fmt::format_to(std::back_inserter(out),
                   R"(,"completion_tokens_details":{{"accepted_prediction_tokens":{},"rejected_prediction_tokens":{}}})",
                   usage.draft_accepted_tokens, usage.draft_tokens - usage.draft_accepted_tokens);
  out += '}';
}

// ---- log-probabilities ------------------------------------------------------------------------------------------

void LogprobsWriter::add(const ChosenToken &chosen) {
  if (dialect_ == Dialect::kChat) {
    if (!content_.empty()) content_ += ',';
    append_token_entry(content_, chosen.bytes, chosen.logprob);
    content_ += R"(,"top_logprobs":[)";
    if (chosen.top != nullptr) {
      for (size_t i = 0; i < chosen.top->size(); ++i) {
        if (i > 0) content_ += ',';
        append_token_entry(content_, tokenizer_.piece((*chosen.top)[i].token), (*chosen.top)[i].logprob);
        content_ += '}';
      }
    }
    content_ += "]}";
    return;
  }
  const char *comma = tokens_.empty() ? "" : ",";
  tokens_ += comma;
  append_token_string(tokens_, chosen.bytes);
  logprobs_ += comma;
  append_number(logprobs_, chosen.logprob);
  fmt::format_to(std::back_inserter(offsets_), "{}{}", comma, offset_);
  offset_ += count_characters(chosen.bytes);
  top_ += comma;
  top_ += '{';
  if (chosen.top != nullptr) {
    for (size_t i = 0; i < chosen.top->size(); ++i) {
      if (i > 0) top_ += ',';
      append_token_string(top_, tokenizer_.piece((*chosen.top)[i].token));
      top_ += ':';
      append_number(top_, (*chosen.top)[i].logprob);
    }
  }
  top_ += '}';
}

void LogprobsWriter::append_and_clear(std::string &out) {
  if (dialect_ == Dialect::kChat) {
    out += R"({"content":[)" + content_ + R"(],"refusal":null})";
  } else {
    out += R"({"tokens":[)" + tokens_ + R"(],"token_logprobs":[)" + logprobs_ + R"(],"top_logprobs":[)" + top_ +
           R"(],"text_offset":[)" + offsets_ + "]}";
  }
  content_.clear();
  tokens_.clear();
  logprobs_.clear();
  top_.clear();
  offsets_.clear();
}

// ---- replies ----------------------------------------------------------------------------------------------------

ReplyFormat::ReplyFormat(Dialect dialect, const ParsedRequest &request, std::string fingerprint, uint32_t n_answers)
    : dialect_(dialect),
      with_usage_(request.include_usage),
      with_logprobs_(request.spec.logprobs),
      id_(fresh_id(dialect == Dialect::kChat ? "chatcmpl-" : "cmpl-")) {
  const auto head = [&](const char *object) {
    std::string model;
    append_json_escaped(model, request.spec.model->name);
    return fmt::format(R"({{"id":"{}","object":"{}","created":{},"model":"{}","system_fingerprint":"{}","choices":[)", id_,
                       object, unix_seconds(), model, fingerprint);
  };
  const bool chat = dialect == Dialect::kChat;
  head_ = head(chat ? "chat.completion.chunk" : "text_completion");
  whole_head_ = head(chat ? "chat.completion" : "text_completion");
  const std::string usage = with_usage_ ? R"(,"usage":null)" : "";
  delta_open_ = chat ? R"(,"delta":{"content":")" : R"(,"text":")";
  delta_close_ = R"(,"finish_reason":null}])" + usage + "}";
  end_close_ = "\"}]" + usage + "}";
  for (uint32_t i = 0; i < n_answers; ++i) logprobs_.emplace_back(dialect, *request.spec.model->tokenizer);
}

void ReplyFormat::append_first(std::string &out, uint32_t answer) const {
  out += head_;
  fmt::format_to(std::back_inserter(out), R"({{"index":{},"delta":{{"role":"assistant","content":""}},"logprobs":null)", answer);
  out += delta_close_;
}

void ReplyFormat::append_delta(std::string &out, uint32_t answer, std::string_view text, const ChosenToken *chosen) {
  out += head_;
  out += R"({"index":)";
  if (answer < 10) {
    out += static_cast<char>('0' + answer);
  } else {
    out += std::to_string(answer);
  }
  out += delta_open_;
  append_json_escaped(out, text);
  out += dialect_ == Dialect::kChat ? R"("},"logprobs":)" : R"(","logprobs":)";
  if (chosen != nullptr) {
    logprobs_[answer].add(*chosen);
    logprobs_[answer].append_and_clear(out);
  } else {
    out += "null";
  }
  out += delta_close_;
}

void ReplyFormat::append_end(std::string &out, uint32_t answer, AnswerEnd end) const {
  out += head_;
  fmt::format_to(std::back_inserter(out), R"({{"index":{},{},"logprobs":null,"finish_reason":"{}{})", answer,
                 dialect_ == Dialect::kChat ? R"("delta":{})" : R"("text":"")", finish_reason(end), end_close_);
}

void ReplyFormat::append_usage_chunk(std::string &out, const Usage &usage) const {
  out += head_;
  out += R"(],"usage":)";
  append_usage(out, usage);
  out += '}';
}

void ReplyFormat::append_whole(std::string &out, const std::vector<Answer> &answers, const Usage &usage) {
  out += whole_head_;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (i > 0) out += ',';
    fmt::format_to(std::back_inserter(out), R"({{"index":{},)", i);
    out += dialect_ == Dialect::kChat ? R"("message":{"role":"assistant","content":")" : R"("text":")";
    append_json_escaped(out, answers[i].text);
    out += dialect_ == Dialect::kChat ? R"(","refusal":null},"logprobs":)" : R"(","logprobs":)";
    if (with_logprobs_) {
      logprobs_[i].append_and_clear(out);
    } else {
      out += "null";
    }
    fmt::format_to(std::back_inserter(out), R"(,"finish_reason":"{}"}})", finish_reason(answers[i].end));
  }
  out += R"(],"usage":)";
  append_usage(out, usage);
  out += '}';
}

}  // namespace sluice::api

#include "core/text/pretokenize.hpp"

#include <fmt/format.h>
#include <string>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace sluice::text {
namespace {

// The patterns are facts of the models' tokenizers (tokenizer.json, "pre_tokenizer"), by the name GGUF gives them.
constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kOneDigit = R"(\p{N})";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kThreeDigits = R"(\p{N}{1,3})";
constexpr std::string_view kDeepseekCjk =
    "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+";
constexpr std::string_view kDeepseekV3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Names {
  std::vector<std::string_view> names;
  std::vector<std::string_view> patterns;
  bool whole_words_first = false;
  bool adds_bos = false;
};

const std::vector<Names> &known() {
  static const std::vector<Names> kKnown = {
      {{"gpt-2", "default", "phi-2", "olmo", "mpt", "jais", "trillion", "exaone4", "gigachat", "mellum"}, {kGpt2}},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"}, {kLlama3}, true, true},
      {{"glm4", "chatglm-bpe", "dbrx", "smaug-bpe"}, {kLlama3}},
      {{"qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"}, {kQwen2}},
      {{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"}, {kOneDigit, kGpt2}},
      {{"tekken"}, {kTekken}, true, true},
      {{"gpt-4o", "llama4"}, {kGpt4o}},
      {{"deepseek-v3"}, {kThreeDigits, kDeepseekCjk, kDeepseekV3}},
  };
  return kKnown;
}

// A pattern steps over a text once; these are far beyond what a sane text needs and far below what hurts.
constexpr uint32_t kMatchLimit = 50'000'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;
constexpr size_t kJitStackStartBytes = 32 << 10;
constexpr size_t kJitStackMaxBytes = 1 << 20;

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char *>(text);
}

}  // namespace

Result<PreKind> find_pre_kind(std::string_view name) {
  std::string all;
  for (const Names &entry : known()) {
    for (const std::string_view candidate : entry.names) {
      if (candidate == name) return PreKind{candidate, entry.patterns, entry.whole_words_first, entry.adds_bos};
      all += fmt::format(" {}", candidate);
    }
  }
  return Error{Code::kUnsupported, fmt::format("tokenizer.ggml.pre '{}' is not known; known:{}", name, all), {}};
}

Pretokenizer::Scratch::Scratch() = default;

Pretokenizer::Scratch::~Scratch() {
  pcre2_match_data_free(match_);
  pcre2_match_context_free(context_);
  pcre2_jit_stack_free(stack_);
}

void Pretokenizer::FreeCode::operator()(pcre2_real_code_8 *code) const { pcre2_code_free(code); }

Result<Pretokenizer> Pretokenizer::compile(const PreKind &kind) {
  Pretokenizer out;
  for (const std::string_view pattern : kind.patterns) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error,
                            &offset, nullptr));
    if (!code)
      return Error{
          sluice::Code::kInternal,
          fmt::format("the pattern of '{}' does not compile at {}: {}", kind.name, offset, pcre2_message(error)),
          {}};
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, pcre2_match() interprets
    out.codes_.push_back(std::move(code));
  }
  return out;
}

Result<> Pretokenizer::split(std::string_view text, Scratch &scratch, std::vector<std::string_view> &words) const {
  words.assign(1, text);
  for (const Code &code : codes_) {
    scratch.previous_.swap(words);
    words.clear();
    for (const std::string_view stretch : scratch.previous_)
      if (auto r = split_by(code, stretch, scratch, words); !r) return r;
  }
  return {};
}

Result<> Pretokenizer::split_by(const Code &code, std::string_view text, Scratch &s,
                                std::vector<std::string_view> &words) {
  if (s.context_ == nullptr) {
    s.match_ = pcre2_match_data_create(1, nullptr);
    s.context_ = pcre2_match_context_create(nullptr);
    if (s.match_ == nullptr || s.context_ == nullptr)
      return Error{sluice::Code::kResourceExhausted, "no memory to split the text into words", {}};
    pcre2_set_match_limit(s.context_, kMatchLimit);
    pcre2_set_heap_limit(s.context_, kHeapLimitKib);
  }
  const auto *subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  // The text was checked once; PCRE2 would check the rest of it again at every word.
  constexpr uint32_t kOptions = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
  for (size_t at = 0; at < text.size();) {
    const auto match = [&] {
      return pcre2_match(code.get(), subject, text.size(), at, kOptions, s.match_, s.context_);
    };
    int found = match();
    if (found == PCRE2_ERROR_JIT_STACKLIMIT && s.stack_ == nullptr) {  // rare, so the stack is not made for every text
      s.stack_ = pcre2_jit_stack_create(kJitStackStartBytes, kJitStackMaxBytes, nullptr);
      if (s.stack_ != nullptr) pcre2_jit_stack_assign(s.context_, nullptr, s.stack_);
      found = match();
    }
    if (found == PCRE2_ERROR_NOMATCH) {
      words.push_back(text.substr(at));
      return {};
    }
    if (found < 0)
      return Error{sluice::Code::kResourceExhausted,
                   fmt::format("splitting the text into words failed at byte {}: {}", at, pcre2_message(found)),
                   {}};
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(s.match_);
    if (range[0] > at) words.push_back(text.substr(at, range[0] - at));  // what no pattern takes is a word of its own
    words.push_back(text.substr(range[0], range[1] - range[0]));
    at = range[1];
  }
  return {};
}

}  // namespace sluice::text

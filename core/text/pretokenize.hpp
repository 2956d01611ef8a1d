#pragma once
#include "core/base/error.hpp"

#include <memory>
#include <string_view>
#include <vector>

// PCRE2's own names, so that its header stays out of ours.
struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace sluice::text {

/// What a `tokenizer.ggml.pre` name stands for.
struct PreKind {
  std::string_view name;
  std::vector<std::string_view> patterns;  ///< applied one after the other, each to what the one before left
  bool whole_words_first = false;          ///< a word that is a token is taken without merging
  bool adds_bos = false;                   ///< unless the file says otherwise
};

/// errors  kUnsupported  a name not known here; the message lists those that are
Result<PreKind> find_pre_kind(std::string_view name);

/// Splits text into the words that byte-level BPE merges within. Immutable. [any]
class Pretokenizer {
 public:
  /// Match state of one thread; made on first use.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;

   private:
    friend class Pretokenizer;
    pcre2_real_match_data_8 *match_ = nullptr;
    pcre2_real_match_context_8 *context_ = nullptr;
    pcre2_real_jit_stack_8 *stack_ = nullptr;
    std::vector<std::string_view> previous_;
  };

  static Result<Pretokenizer> compile(const PreKind &kind);

  /// Replaces words by views into text; one after the other they are the whole text.
  /// text    valid UTF-8
  /// errors  kResourceExhausted  a pattern needs more steps or memory than it may
  Result<> split(std::string_view text, Scratch &scratch, std::vector<std::string_view> &words) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8 *code) const;
  };
  using Code = std::unique_ptr<pcre2_real_code_8, FreeCode>;
  static Result<> split_by(const Code &code, std::string_view text, Scratch &scratch,
                           std::vector<std::string_view> &words);

  std::vector<Code> codes_;
};

}  // namespace sluice::text

#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/conformance/subject.hpp"

namespace sluice::conformance {

/// A decoder under test, created for a model with heads, and its sequences.
class DecoderSubject {
 public:
  static constexpr uint32_t kVocab = 512;
  using Seq = sluice_decoder_seq *;
  using Tokens = std::vector<int32_t>;
  /// A sequence and everything that was committed to it.
  struct Text {
    Seq seq = nullptr;
    Tokens tokens;
  };

  DecoderSubject(const Subject &subject, Findings &to)
      : findings(to), v(*subject.desc().decoder), target(plain_model(kVocab)), subject_(subject) {}

  /// Creates it and looks at its needs; false after a finding that ends the check.
  bool create();
  void fail(const char *rule, const std::string &message, const char *fix) { findings.fail(rule, message, fix); }

  Text open(const Tokens &tokens, uint64_t id = 1);
  Seq fork(Seq from);  ///< null after a failure
  void commit(Text &text, const Tokens &more);
  void close(Seq seq);

  Findings &findings;
  const sluice_decoder_vtbl &v;
  const sluice_model_info target;
  sluice_decoder *decoder = nullptr;
  sluice_decoder_needs needs{};

 private:
  const Subject &subject_;
  std::unique_ptr<plugin::Decoder> instance_;
};

void check_drafts(DecoderSubject &subject);    ///< of one that drafts
void check_branches(DecoderSubject &subject);  ///< of one that branches

}  // namespace sluice::conformance

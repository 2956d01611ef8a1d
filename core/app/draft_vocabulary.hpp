#pragma once
#include <string>

#include "core/base/error.hpp"
#include "core/text/tokenizer.hpp"

namespace sluice::app {

/// Whether a draft model's file has the target's tokens: every id spelled alike, and the same ones ending an answer.
/// Drafts of other tokens would all be wrong, and nothing else would tell.
/// target_path, draft_path  for messages; the draft's is read. errors: InvalidArgument (names the first id that differs),
/// as Tokenizer::from_gguf
Result<> check_same_tokens(const text::Tokenizer &target, const std::string &target_path, const std::string &draft_path);

}  // namespace sluice::app

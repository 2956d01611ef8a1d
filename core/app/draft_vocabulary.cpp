#include "core/app/draft_vocabulary.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/model_file/gguf.hpp"

namespace sluice::app {
namespace {

constexpr size_t kShownBytes = 40;

std::string quoted(std::string_view token) {
  std::string out = "'";
  for (const char c : token.substr(0, kShownBytes)) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out + "'";
}

}  // namespace

Result<> check_same_tokens(const text::Tokenizer &target, const std::string &target_path, const std::string &draft_path) {
  auto file = model_file::Gguf::open(draft_path);
  if (!file) return file.error();
  const auto draft = text::Tokenizer::from_gguf(*file);
  if (!draft) return draft.error();
  const text::Tokenizer &other = **draft;
  const auto differ = [&](const std::string &what) {
    return invalid_argument(fmt::format("the draft model {} has other tokens than {}: {}; a draft model must have the "
                                        "target's tokens", draft_path, target_path, what), "decoder");
  };
  for (size_t i = 0; i < std::min(target.vocab_size(), other.vocab_size()); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (target.token_text(id) != other.token_text(id))
      return differ(fmt::format("token {} is {} there and {} here", id, quoted(other.token_text(id)),
                                quoted(target.token_text(id))));
    if (target.is_end(id) != other.is_end(id))
      return differ(fmt::format("token {}, {}, ends an answer only {}", id, quoted(target.token_text(id)),
                                target.is_end(id) ? "here" : "there"));
  }
  if (target.vocab_size() != other.vocab_size())
    return differ(fmt::format("it has {} of them, not {}; the first that differs is {}", other.vocab_size(),
                              target.vocab_size(), std::min(target.vocab_size(), other.vocab_size())));
  return {};
}

}  // namespace sluice::app

#include "core/lifecycle/prompt.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "core/text/chat_template.hpp"
#include "core/text/tokenizer.hpp"

namespace sluice::lifecycle {
namespace {

size_t json_bytes(const boost::json::value &value) {
  if (const auto *text = value.if_string()) return text->size();
  size_t total = 8;
  if (const auto *array = value.if_array()) {
    for (const auto &item : *array) total += json_bytes(item);
  } else if (const auto *object = value.if_object()) {
    for (const auto &item : *object) total += item.key().size() + json_bytes(item.value());
  }
  return total;
}

using Tokens = boost::system::result<std::vector<int32_t>, Failure>;

Tokens encode(const ServedModel &model, std::string_view text, bool add_bos, const char *param) {
  auto tokens = model.tokenizer->encode(text, text::EncodeOptions{.add_bos = add_bos, .parse_special = true});
  if (!tokens) return Failure{FailureKind::kBadRequest, tokens.error().message, param, {}};
  if (tokens->empty()) return Failure{FailureKind::kBadRequest, fmt::format("{} has no tokens", param), param, {}};
  return std::move(*tokens);
}

bool writes_bos(const text::Tokenizer &tokenizer, std::string_view text) {
  if (tokenizer.bos() == text::kNoToken) return false;
  const auto bos = tokenizer.token_text(tokenizer.bos());
  return !bos.empty() && text.starts_with(bos);
}

Tokens from_messages(const ServedModel &model, const boost::json::array &messages) {
  if (model.chat_template == nullptr) {
    return Failure{FailureKind::kBadRequest,
                   "the model '" + model.name + "' has no chat template; use /v1/completions", "messages", {}};
  }
  const auto &tokenizer = *model.tokenizer;
  const auto spelled = [&](int32_t id) { return id == text::kNoToken ? std::string_view() : tokenizer.token_text(id); };
  text::RenderOptions options;
  options.bos_token = spelled(tokenizer.bos());
  options.eos_token = spelled(tokenizer.eos());
  const auto text = model.chat_template->render(messages, options);
  if (!text) return Failure{FailureKind::kBadRequest, text.error().message, "messages", {}};
  // Many templates write the BOS piece themselves; two of them would change what the model sees.
  return encode(model, *text, tokenizer.adds_bos() && !writes_bos(tokenizer, *text), "messages");
}

Tokens from_ids(const ServedModel &model, const std::vector<int32_t> &ids) {
  if (ids.empty()) return Failure{FailureKind::kBadRequest, "prompt has no tokens", "prompt", {}};
  const auto vocab_size = static_cast<int64_t>(model.tokenizer->vocab_size());
  for (const int32_t id : ids) {
    if (id >= 0 && id < vocab_size) continue;
    return Failure{FailureKind::kBadRequest, fmt::format("prompt holds token id {}; it must be 0..{}", id, vocab_size - 1),
                   "prompt", {}};
  }
  return ids;
}

}  // namespace

size_t prompt_bytes(const Prompt &prompt) {
  if (const auto *text = std::get_if<TextPrompt>(&prompt)) return text->text.size();
  if (const auto *chat = std::get_if<ChatPrompt>(&prompt)) {
    size_t total = 0;
    for (const auto &message : *chat->messages) total += json_bytes(message);
    return total;
  }
  return 0;
}

Tokens prompt_tokens(const ServedModel &model, const Prompt &prompt) {
  if (const auto *text = std::get_if<TextPrompt>(&prompt)) {
    return encode(model, text->text, model.tokenizer->adds_bos(), "prompt");
  }
  if (const auto *chat = std::get_if<ChatPrompt>(&prompt)) return from_messages(model, *chat->messages);
  return from_ids(model, std::get<TokenPrompt>(prompt).tokens);
}

boost::system::result<uint32_t, Failure> allowed_new_tokens(const request::GeneratorLimits &limits, size_t n_prompt,
                                                            std::optional<uint32_t> wanted, uint32_t otherwise,
                                                            uint32_t unbounded) {
  uint64_t room = limits.max_context;
  if (limits.max_kv_tokens != 0) room = room == 0 ? limits.max_kv_tokens : std::min(room, limits.max_kv_tokens);
  if (room == 0) return wanted.value_or(otherwise != 0 ? otherwise : unbounded);
  const char *whose = room == limits.max_context ? "the model's context" : "the KV memory this server has for the model";
  if (n_prompt >= room) {
    return Failure{FailureKind::kContextLength,
                   fmt::format("the prompt has {} tokens and {} is {} tokens, which leaves no room for an answer; shorten "
                               "the prompt",
                               n_prompt, whose, room),
                   "prompt",
                   {}};
  }
  const uint64_t left = room - n_prompt;
  if (wanted && *wanted > left) {
    return Failure{FailureKind::kContextLength,
                   fmt::format("the prompt has {} tokens and max_tokens is {}, together {}; {} is {} tokens; ask for at most "
                               "{} tokens or shorten the prompt",
                               n_prompt, *wanted, n_prompt + *wanted, whose, room, left),
                   "max_tokens",
                   {}};
  }
  if (wanted) return *wanted;
  return static_cast<uint32_t>(otherwise != 0 ? std::min<uint64_t>(otherwise, left) : left);
}

}  // namespace sluice::lifecycle

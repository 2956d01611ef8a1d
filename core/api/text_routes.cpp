#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "core/api/error_reply.hpp"
#include "core/api/fields.hpp"
#include "core/api/handlers.hpp"
#include "core/text/tokenizer.hpp"
#include "core/text/utf8.hpp"

namespace sluice::api {
namespace {

namespace json = boost::json;
using lifecycle::Failure;
using Answer = boost::system::result<json::object, Failure>;

constexpr size_t kMaxModelNameBytes = 256;

boost::system::result<std::shared_ptr<lifecycle::ServedModel>, Failure> model_of(Fields &fields, const Context &context) {
  const auto name = fields.text("model", kMaxModelNameBytes);
  if (fields.failed()) return fields.failure();
  return context.service.find_ready(name.value_or(""));
}

// {"prompt": text} as vLLM spells it, or {"content": text} as llama-server does.
Answer tokenize(const Context &context, std::string_view body) {
  const auto object = parse_object(body);
  if (!object) return object.error();
  Fields fields(*object);
  const auto model = model_of(fields, context);
  if (!model) return model.error();
  auto text = fields.text("prompt", body.size());
  if (!text) text = fields.text("content", body.size());
  const bool add_special = fields.flag("add_special_tokens").value_or(true);
  const bool parse_special = fields.flag("parse_special").value_or(true);
  if (fields.failed()) return fields.failure();
  if (!text) return bad_request("prompt is missing; it must be the text to tokenize", "prompt");
  const auto &tokenizer = *(*model)->tokenizer;
  const auto tokens = tokenizer.encode(
      *text, text::EncodeOptions{.add_bos = add_special && tokenizer.adds_bos(), .parse_special = parse_special});
  if (!tokens) return bad_request(tokens.error().message, "prompt");
  return json::object{{"tokens", json::array(tokens->begin(), tokens->end())},
                      {"count", tokens->size()},
                      {"max_model_len", (*model)->generator->limits().max_context}};
}

Answer detokenize(const Context &context, std::string_view body) {
  const auto object = parse_object(body);
  if (!object) return object.error();
  Fields fields(*object);
  const auto model = model_of(fields, context);
  if (!model) return model.error();
  const auto *tokens = fields.get("tokens");
  if (fields.failed()) return fields.failure();
  if (tokens == nullptr || !tokens->is_array()) return bad_request("tokens must be an array of token ids", "tokens");
  const auto &tokenizer = *(*model)->tokenizer;
  const auto vocab_size = static_cast<int64_t>(tokenizer.vocab_size());
  std::string bytes;
  for (const auto &item : tokens->get_array()) {
    const auto *id = item.if_int64();
    if (id == nullptr || *id < 0 || *id >= vocab_size) {
      return bad_request(fmt::format("tokens holds {}; each must be an id from 0 to {}", shown(item), vocab_size - 1), "tokens");
    }
    bytes += tokenizer.piece(static_cast<int32_t>(*id));
  }
  const std::string text = text::repair_utf8(bytes);
  return json::object{{"prompt", text}, {"content", text}};
}

// A long text takes its time, which is the workers' and not the connection's.
void answer_with(Context &context, const ExchangePtr &exchange, Answer (*function)(const Context &, std::string_view)) {
  const auto respond = [](net::Exchange &to, const Answer &answer) {
    if (!answer) return respond_error(to, answer.error());
    to.respond({200, "application/json", json::serialize(*answer), {}});
  };
  if (exchange->body().size() <= context.service.options().inline_prompt_bytes) {
    return respond(*exchange, function(context, exchange->body()));
  }
  context.service.workers().run([&context, exchange, function, respond, post = exchange->post()]() mutable {
    auto answer = std::make_shared<Answer>(function(context, exchange->body()));
    post([exchange = std::move(exchange), respond, answer] { respond(*exchange, *answer); });
  });
}

}  // namespace

void post_tokenize(Context &context, const ExchangePtr &exchange) { answer_with(context, exchange, tokenize); }
void post_detokenize(Context &context, const ExchangePtr &exchange) { answer_with(context, exchange, detokenize); }

}  // namespace sluice::api

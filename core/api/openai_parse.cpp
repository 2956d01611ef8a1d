#include "core/api/openai_parse.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>

#include "core/api/error_reply.hpp"
#include "core/api/fields.hpp"
#include "core/api/sampling_fields.hpp"

namespace sluice::api {
namespace {

namespace json = boost::json;
using lifecycle::GenerationSpec;
using lifecycle::Prompt;
using lifecycle::ServiceOptions;

constexpr uint32_t kDefaultCompletionTokens = 16;  // source: OpenAI's API reference
constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxIgnoredNamed = 16;

bool is_text(const json::value &value, std::string_view text) {
  const auto *string = value.if_string();
  return string != nullptr && std::string_view(*string) == text;
}

// What would change the answer if it were ignored. Values that ask for nothing pass.
void refuse_unsupported(Fields &fields) {
  const auto refuse = [&](const char *name, auto &&asks_for_nothing) {
    const auto *value = fields.get(name);
    if (value != nullptr && !asks_for_nothing(*value)) {
      fields.fail(unsupported(fmt::format("{} is not supported by this server; leave it out", name), name));
    }
  };
  const auto empty = [](const json::value &v) {
    return (v.is_array() && v.get_array().empty()) || (v.is_string() && v.get_string().empty()) ||
           (v.is_bool() && !v.get_bool());
  };
  const auto none = [](const json::value &v) { return is_text(v, "none"); };
  const auto auto_or_none = [](const json::value &v) { return is_text(v, "none") || is_text(v, "auto"); };
  for (const char *name : {"tools", "functions", "suffix", "echo", "stop_token_ids", "audio", "prediction",
                           "web_search_options", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
                           "grammar", "json_schema", "chat_template"}) {
    refuse(name, empty);
  }
  refuse("tool_choice", auto_or_none);
  refuse("function_call", none);
  refuse("best_of", [](const json::value &v) { return v.is_int64() && v.get_int64() == 1; });
  refuse("min_tokens", [](const json::value &v) { return v.is_int64() && v.get_int64() == 0; });
  refuse("response_format", [](const json::value &v) {
    const auto *type = v.is_object() ? v.get_object().if_contains("type") : nullptr;
    return type != nullptr && is_text(*type, "text");
  });
  refuse("modalities", [](const json::value &v) {
    return v.is_array() && v.get_array().size() == 1 && is_text(v.get_array()[0], "text");
  });
  for (const char *name : {"user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier",
                           "prompt_cache_key"}) {
    fields.ignore(name);
  }
}

void read_stop(Fields &fields, const ServiceOptions &limits, GenerationSpec &spec) {
  const auto *value = fields.get("stop");
  if (value == nullptr) return;
  const auto add = [&](const json::value &item) {
    const auto *text = item.if_string();
    if (text == nullptr || text->empty() || text->size() > limits.max_stop_bytes) {
      return fields.fail(bad_request(fmt::format("stop holds {}; each entry must be a string of 1 to {} bytes", shown(item),
                                                 limits.max_stop_bytes),
                                     "stop"));
    }
    spec.stop.emplace_back(*text);
  };
  if (const auto *list = value->if_array()) {
    if (list->size() > limits.max_stop_strings) {
      return fields.fail(
          bad_request(fmt::format("stop has {} entries; at most {} are allowed", list->size(), limits.max_stop_strings), "stop"));
    }
    for (const auto &item : *list) add(item);
  } else {
    add(*value);
  }
}

void read_stream(Fields &fields, ParsedRequest &out) {
  out.stream = fields.flag("stream").value_or(false);
  const auto *options = fields.get("stream_options");
  if (options == nullptr) return;
  const auto *object = options->if_object();
  if (object == nullptr) {
    return fields.fail(bad_request("stream_options is " + shown(*options) + "; it must be an object", "stream_options"));
  }
  if (!out.stream) return fields.fail(bad_request("stream_options is only allowed with stream: true", "stream_options"));
  Fields inner(*object);
  out.include_usage = inner.flag("include_usage").value_or(false);
  if (inner.failed()) fields.fail(bad_request(inner.failure().message, "stream_options." + inner.failure().param));
}

void read_logprobs(Fields &fields, Dialect dialect, int64_t max_logprobs, GenerationSpec &spec) {
  if (dialect == Dialect::kCompletion) {
    if (const auto n = fields.integer("logprobs", 0, max_logprobs)) {
      spec.logprobs = true;
      spec.top_logprobs = static_cast<uint32_t>(*n);
    }
    return;
  }
  spec.logprobs = fields.flag("logprobs").value_or(false);
  if (const auto n = fields.integer("top_logprobs", 0, max_logprobs)) {
    if (!spec.logprobs && *n > 0) {
      fields.fail(bad_request("top_logprobs needs logprobs: true", "top_logprobs"));
    }
    spec.top_logprobs = spec.logprobs ? static_cast<uint32_t>(*n) : 0;
  }
}

void read_limits(Fields &fields, const ServiceOptions &limits, GenerationSpec &spec) {
  const auto max_tokens = fields.integer("max_tokens", 1, UINT32_MAX);
  const auto max_completion_tokens = fields.integer("max_completion_tokens", 1, UINT32_MAX);
  const auto chosen = max_completion_tokens ? max_completion_tokens : max_tokens;
  if (chosen) spec.max_tokens = static_cast<uint32_t>(*chosen);
  if (const auto n = fields.integer("n", 1, limits.max_answers)) spec.n = static_cast<uint32_t>(*n);
  if (const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX)) spec.seed = static_cast<uint64_t>(*seed);
  if (const auto priority = fields.integer("priority", INT32_MIN, INT32_MAX)) spec.priority = static_cast<int32_t>(*priority);
  spec.ignore_eos = fields.flag("ignore_eos").value_or(false);
  // Where no draft is drawn it means nothing: it stays unread and is listed as ignored.
  const auto &decoder = spec.model->decoder;
  if (decoder && decoder->samples_drafts) spec.exact_rejection = fields.flag("rejection_sampling").value_or(false);
  if (spec.exact_rejection && spec.seed)
    fields.fail(bad_request("rejection_sampling keeps the distribution of an answer but not the tokens of a seed; leave "
                            "out one of the two", "rejection_sampling"));
}

// ---- prompts ----------------------------------------------------------------------------------------------------

// Text of a message: a string, or parts of which every one is text. False: another shape.
bool content_text(const json::value &content, std::string &out) {
  if (const auto *text = content.if_string()) {
    out = *text;
    return true;
  }
  const auto *parts = content.if_array();
  if (parts == nullptr || parts->empty()) return false;
  for (const auto &part : *parts) {
    const auto *object = part.if_object();
    const auto *type = object != nullptr ? object->if_contains("type") : nullptr;
    const auto *text = object != nullptr ? object->if_contains("text") : nullptr;
    if (type == nullptr || !is_text(*type, "text") || text == nullptr || !text->is_string()) return false;
    out += std::string_view(text->get_string());
  }
  return true;
}

void read_messages(Fields &fields, GenerationSpec &spec) {
  const auto *value = fields.get("messages");
  const auto *list = value != nullptr ? value->if_array() : nullptr;
  if (list == nullptr || list->empty() || list->size() > kMaxMessages) {
    return fields.fail(bad_request(fmt::format("messages must be an array of 1 to {} messages", kMaxMessages), "messages"));
  }
  auto messages = std::make_shared<json::array>();
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string at = fmt::format("messages[{}]", i);
    const auto *object = (*list)[i].if_object();
    if (object == nullptr) return fields.fail(bad_request(at + " must be an object with role and content", at));
    const auto *role = object->if_contains("role");
    static constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool"};
    if (role == nullptr || !role->is_string() ||
        std::find(std::begin(kRoles), std::end(kRoles), std::string_view(role->get_string())) == std::end(kRoles)) {
      return fields.fail(bad_request(at + ".role must be system, developer, user, assistant or tool", at + ".role"));
    }
    const bool assistant = is_text(*role, "assistant");
    if (const auto *calls = object->if_contains("tool_calls"); calls != nullptr && calls->is_array() && !calls->get_array().empty()) {
      return fields.fail(unsupported(at + ".tool_calls is not supported by this server", at + ".tool_calls"));
    }
    const auto *content = object->if_contains("content");
    std::string text;
    const bool absent = content == nullptr || content->is_null();
    if (absent ? !assistant : !content_text(*content, text)) {
      return fields.fail(
          bad_request(at + ".content must be a string or an array of {\"type\":\"text\",\"text\":...}", at + ".content"));
    }
    json::object message{{"role", is_text(*role, "developer") ? json::string("system") : role->get_string()},
                         {"content", text}};
    if (const auto *name = object->if_contains("name"); name != nullptr && name->is_string()) message["name"] = *name;
    messages->push_back(std::move(message));
  }
  spec.prompts.emplace_back(std::in_place_type<lifecycle::ChatPrompt>, std::move(messages));
}

bool token_list(const json::array &list, std::vector<int32_t> &out) {
  for (const auto &item : list) {
    const auto *id = item.if_int64();
    if (id == nullptr || *id < 0 || *id > INT32_MAX) return false;
    out.push_back(static_cast<int32_t>(*id));
  }
  return !out.empty();
}

void read_prompt(Fields &fields, const ServiceOptions &limits, GenerationSpec &spec) {
  const auto refuse = [&] {
    fields.fail(bad_request("prompt must be a string, an array of strings, an array of token ids, or an array of those",
                            "prompt"));
  };
  const auto *value = fields.get("prompt");
  if (value == nullptr) return refuse();
  if (const auto *text = value->if_string()) {
    if (text->empty()) return fields.fail(bad_request("prompt is empty", "prompt"));
    spec.prompts.emplace_back(std::in_place_type<lifecycle::TextPrompt>, std::string(*text));
    return;
  }
  const auto *list = value->if_array();
  if (list == nullptr || list->empty()) return refuse();
  if (list->front().is_number()) {
    lifecycle::TokenPrompt prompt;
    if (!token_list(*list, prompt.tokens)) return refuse();
    spec.prompts.emplace_back(std::in_place_type<lifecycle::TokenPrompt>, std::move(prompt.tokens));
    return;
  }
  if (list->size() > limits.max_prompts) {
    return fields.fail(
        bad_request(fmt::format("prompt holds {} prompts; at most {} are allowed", list->size(), limits.max_prompts), "prompt"));
  }
  for (const auto &item : *list) {
    lifecycle::TokenPrompt tokens;
    if (const auto *text = item.if_string(); text != nullptr && !text->empty()) {
      spec.prompts.emplace_back(std::in_place_type<lifecycle::TextPrompt>, std::string(*text));
    } else if (const auto *ids = item.if_array(); ids != nullptr && token_list(*ids, tokens.tokens)) {
      spec.prompts.emplace_back(std::in_place_type<lifecycle::TokenPrompt>, std::move(tokens.tokens));
    } else {
      return refuse();
    }
  }
}

// A header value: names only of plain characters, and not many.
std::string ignored_header(const std::vector<std::string_view> &names) {
  std::string out;
  size_t n = 0;
  for (const auto name : names) {
    const bool plain = name.size() <= 64 && std::all_of(name.begin(), name.end(), [](unsigned char c) {
                         return std::isalnum(c) || c == '_' || c == '-' || c == '.';
                       });
    if (!plain || ++n > kMaxIgnoredNamed) continue;
    out += (out.empty() ? "" : ", ") + std::string(name);
  }
  return out;
}

}  // namespace

boost::system::result<ParsedRequest, lifecycle::Failure> parse_request(Dialect dialect, const json::object &body,
                                                                      const lifecycle::Service &service) {
  const ServiceOptions &limits = service.options();
  ParsedRequest out;
  Fields fields(body);
  const auto name = fields.text("model", 256);
  if (fields.failed()) return fields.failure();
  auto model = service.find_ready(name.value_or(""));
  if (!model) return model.error();
  out.spec.model = std::move(*model);
  if (dialect == Dialect::kChat) {
    read_messages(fields, out.spec);
  } else {
    read_prompt(fields, limits, out.spec);
    out.spec.default_max_tokens = kDefaultCompletionTokens;
  }
  refuse_unsupported(fields);
  read_stream(fields, out);
  read_limits(fields, limits, out.spec);
  read_stop(fields, limits, out.spec);
  const uint32_t model_logprobs = out.spec.model->generator->limits().max_top_logprobs;
  read_logprobs(fields, dialect, std::min(limits.max_logprobs, model_logprobs), out.spec);
  std::vector<std::string_view> ignored;
  read_sampling(fields, body, *out.spec.model, out.spec, ignored);
  if (fields.failed()) return fields.failure();
  out.ignored_fields = ignored_header(ignored);
  return out;
}

}  // namespace sluice::api

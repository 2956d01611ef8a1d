#include "core/text/chat_template.hpp"

#include "core/text/jinja/json.hpp"
#include "core/text/jinja/parser.hpp"
#include "core/text/jinja/renderer.hpp"

#include <fmt/format.h>
#include <boost/json.hpp>

namespace sluice::text {

const std::string_view ChatTemplate::kChatMl =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

struct ChatTemplate::Program {
  jinja::Body body;
};

Result<ChatTemplate> ChatTemplate::compile(std::string source) {
  if (source.size() > kMaxSourceBytes)
    return invalid_argument(
        fmt::format("the chat template has {} bytes; the limit is {}", source.size(), kMaxSourceBytes));
  try {
    ChatTemplate out;
    out.program_ = std::make_shared<const Program>(Program{jinja::Parser(jinja::tokenize(source)).parse()});
    return out;
  } catch (const jinja::Failure &failure) {
    return Error{failure.code, fmt::format("chat template, {}", failure.message), {}};
  }
}

Result<ChatTemplate> ChatTemplate::from_gguf(const model_file::Gguf &file) {
  auto source = file.string_or("tokenizer.chat_template", kChatMl);
  if (!source) return source.error();
  auto compiled = compile(std::string(*source));
  if (!compiled) return Error{compiled.error().code, fmt::format("{}: {}", file.name(), compiled.error().message), {}};
  return compiled;
}

Result<std::string> ChatTemplate::render(const boost::json::array &messages, const RenderOptions &options) const {
  const auto now = options.now.value_or(std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now()));
  jinja::Limits limits;
  limits.max_output_bytes = options.max_output_bytes;
  jinja::Renderer renderer(program_->body, limits, now);
  try {
    if (options.extra != nullptr)
      for (const auto &[key, value] : *options.extra)
        renderer.define(std::string_view(key.data(), key.size()), jinja::from_json(value));
    renderer.define("messages", jinja::from_json(messages));
    renderer.define("add_generation_prompt", options.add_generation_prompt);
    renderer.define("bos_token", options.bos_token);
    renderer.define("eos_token", options.eos_token);
    return renderer.run();
  } catch (const jinja::Failure &failure) {
    if (failure.raised) return Error{failure.code, failure.message, "messages"};
    return Error{failure.code, fmt::format("the model's chat template, line {}: {}", renderer.line(), failure.message),
                 "messages"};
  }
}

}  // namespace sluice::text

#pragma once
#include "core/base/error.hpp"
#include "core/model_file/gguf.hpp"

#include <boost/json/fwd.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::text {

struct RenderOptions {
  bool add_generation_prompt = true;  ///< end with the words that make the model answer
  std::string_view bos_token;         ///< as the vocabulary spells it; templates write it themselves
  std::string_view eos_token;
  const boost::json::object *extra = nullptr;   ///< further variables (`tools`, `enable_thinking`); may be null
  std::optional<std::chrono::sys_seconds> now;  ///< for strftime_now, in UTC; the system's clock when empty
  size_t max_output_bytes = 16u << 20;
};

/// A model's chat template, in the part of Jinja that such templates use. Pure: a template sees its variables and
/// nothing else, and costs at most a million steps (about 0.1 s). Copies share one immutable program. [any]
///
/// Differs from Python's Jinja: case changes within ASCII only; no include, import, call or filter blocks, no recursive
/// loops; namespaces are the only values that change.
class ChatTemplate {
 public:
  static constexpr size_t kMaxSourceBytes = 512u << 10;

  /// <|im_start|>role ... <|im_end|>: for models that bring none.
  static const std::string_view kChatMl;

  /// errors  kInvalidArgument  names the line
  static Result<ChatTemplate> compile(std::string source);

  /// From `tokenizer.chat_template`; kChatMl when the file has none.
  static Result<ChatTemplate> from_gguf(const model_file::Gguf &file);

  /// messages  objects with `role` and `content`, checked by whoever read the request
  /// errors    kInvalidArgument    the template refuses (raise_exception, its text as it is) or cannot treat the
  /// messages
  ///           kResourceExhausted  too many steps, too much output, too deep
  Result<std::string> render(const boost::json::array &messages, const RenderOptions &options) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

}  // namespace sluice::text

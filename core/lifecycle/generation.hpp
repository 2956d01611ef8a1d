#pragma once
#include <atomic>
#include <boost/json/fwd.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/lifecycle/failure.hpp"
#include "core/lifecycle/served_model.hpp"
#include "core/request/request.hpp"

namespace sluice::lifecycle {

class Service;

struct TextPrompt {
  std::string text;
};
struct TokenPrompt {
  std::vector<int32_t> tokens;  ///< checked against the vocabulary by Generation
};
struct ChatPrompt {
  std::shared_ptr<const boost::json::array> messages;
};
using Prompt = std::variant<TextPrompt, TokenPrompt, ChatPrompt>;

/// One validated request as api understood it.
struct GenerationSpec {
  std::shared_ptr<ServedModel> model;
  std::string request_id, route;  ///< for the log line
  uint32_t client = 0;
  std::vector<Prompt> prompts;    ///< at least one
  uint32_t n = 1;                 ///< answers per prompt
  std::optional<uint32_t> max_tokens;  ///< of one answer; absent: default_max_tokens
  uint32_t default_max_tokens = 0;     ///< 0 = what is left of the context
  std::optional<uint64_t> seed;        ///< answer i draws with seed + i
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool exact_rejection = false;        ///< as request::Request says; without a seed
  bool logprobs = false;
  uint32_t top_logprobs = 0;
  uint32_t beams = 0;  ///< above 0: the decoder searches with so many, and its n best are the answers
  int32_t priority = 0;
  std::vector<std::shared_ptr<const plugin::Options>> sampler_options;
  std::shared_ptr<const plugin::Options> decoder_options;
};

struct Usage {
  uint64_t prompt_tokens = 0;      ///< each prompt once
  uint64_t completion_tokens = 0;  ///< of all answers, end-of-sequence tokens included
  uint64_t cached_tokens = 0;
  uint64_t draft_tokens = 0, draft_accepted_tokens = 0;  ///< verified, and right; those that were wrong are no output
  uint64_t draft_rounds = 0, draft_verify_ns = 0;  ///< steps that verified them, and the device time of these steps
  request::DraftsOff drafts_off = request::DraftsOff::kNone;  ///< of the answer that ended last without
};

/// What consumers get per token when the request asked for log-probabilities.
struct ChosenToken {
  int32_t token = -1;
  float logprob = 0;
  std::string_view bytes;  ///< of the token; valid during the call
  const std::vector<request::TokenLogprob> *top = nullptr;  ///< best first; null when none were asked for
};

enum class AnswerEnd : uint8_t { kStop, kLength, kCancelled };

/// How a generation ended: `failure` is set, or every answer got its end.
struct Outcome {
  Usage usage;
  std::optional<Failure> failure;
  bool cancelled = false;  ///< by the client's own cancel
};

/// Who takes a generation's output. All calls on its strand, in the order: on_admitted, then deltas and ends, then
/// on_end; or on_end alone, when it was refused. None after detach().
class GenerationConsumer {
 public:
  virtual ~GenerationConsumer() = default;
  virtual void on_admitted() = 0;
  /// One token's worth. text  new, valid UTF-8; may be empty. chosen  null unless log-probabilities were asked for.
  virtual void on_delta(uint32_t answer, std::string_view text, const ChosenToken *chosen) = 0;
  virtual void on_answer_end(uint32_t answer, AnswerEnd end) = 0;
  virtual void on_batch_end() = 0;  ///< everything that has arrived was delivered: the moment to write
  virtual bool writable() = 0;      ///< false: stop, until Generation::resume()
  virtual void on_end(const Outcome &outcome) = 0;
};

/// One request's life: template, tokens, admission, events, text, end.
///
/// Lives on one strand: every call and callback happens there, except what says [any]. Each answer is a request of its
/// own to the generator, so that one can stop early while the others go on. Answer index = prompt * n + i.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  using Post = std::function<void(std::function<void()>)>;

  /// Starts at once. The result may arrive inside this call.
  /// consumer  kept until on_end or detach()
  static std::shared_ptr<Generation> start(Service &service, GenerationSpec spec, std::shared_ptr<GenerationConsumer> consumer,
                                           Post post);
  ~Generation();
  Generation(const Generation &) = delete;
  Generation &operator=(const Generation &) = delete;

  /// The client asked for the end: the consumer still gets on_end, with `cancelled`. Idempotent.
  void cancel(request::CancelCause cause);
  /// Nobody listens any more: cancels everything and calls nothing. Idempotent.
  void detach(request::CancelCause cause);
  void resume();  ///< the consumer is writable again

  static void cancel_from_any_thread(std::shared_ptr<Generation> generation, request::CancelCause cause);  ///< [any]

 private:
  struct Answer;
  struct Wake;
  struct Prepared;

  Generation(Service &service, GenerationSpec spec, std::shared_ptr<GenerationConsumer> consumer, Post post);
  void prepare();
  static Prepared tokenize(const ServedModel &model, const std::vector<Prompt> &prompts);
  void on_prepared(Prepared prepared);
  std::optional<Failure> submit(Prepared &prepared);
  void pump();
  void take(Answer &answer, request::Event &event);
  void take_text(Answer &answer, std::string_view text, const ChosenToken *chosen);
  void end_answer(Answer &answer, AnswerEnd end);
  void account(Answer &answer, const char *reason);
  void fail(Failure failure);
  void finish();
  void drop_answers(std::optional<request::CancelCause> cause);

  Service &service_;
  GenerationSpec spec_;
  std::shared_ptr<GenerationConsumer> consumer_;
  const Post post_;
  std::shared_ptr<Wake> wake_;
  std::vector<std::unique_ptr<Answer>> answers_;
  std::vector<request::Event> events_;  ///< scratch of pump()
  std::string text_, emit_;             ///< scratch of take()
  std::string finish_reasons_;          ///< of the answers in the order of their ends, for the log
  Usage usage_;
  std::optional<Failure> failure_;
  std::optional<request::CancelCause> cancelled_;
  uint32_t reserved_ = 0, open_ = 0;
  uint64_t arrival_ns_ = 0, first_token_ns_ = 0, deadline_ns_ = 0, pump_ns_ = 0;
  bool admitted_ = false, over_ = false, blocked_ = false, pumping_ = false;
};

}  // namespace sluice::lifecycle

#include "core/api/error_reply.hpp"
#include "core/api/fields.hpp"
#include "core/api/handlers.hpp"
#include "core/api/openai_format.hpp"

namespace sluice::api {
namespace {

using lifecycle::AnswerEnd;
using lifecycle::ChosenToken;
using lifecycle::Generation;
using lifecycle::Outcome;
using Parsed = boost::system::result<ParsedRequest, lifecycle::Failure>;

/// Server-sent events, one per token.
class StreamReply final : public lifecycle::GenerationConsumer {
 public:
  StreamReply(ExchangePtr exchange, ReplyFormat format, uint32_t n_answers, bool include_usage)
      : exchange_(std::move(exchange)), format_(std::move(format)), n_answers_(n_answers), include_usage_(include_usage) {}

  // The 200 is held back until here, so that everything refused before keeps its own status.
  void on_admitted() override {
    exchange_->start_stream();
    started_ = true;
    if (!format_.has_first()) return;
    for (uint32_t i = 0; i < n_answers_; ++i) event([&](std::string &out) { format_.append_first(out, i); });
  }
  void on_delta(uint32_t answer, std::string_view text, const ChosenToken *chosen) override {
    event([&](std::string &out) { format_.append_delta(out, answer, text, chosen); });
  }
  void on_answer_end(uint32_t answer, AnswerEnd end) override {
    event([&](std::string &out) { format_.append_end(out, answer, end); });
  }
  void on_batch_end() override { exchange_->flush(); }
  bool writable() override { return exchange_->writable(); }

  void on_end(const Outcome &outcome) override {
    if (outcome.failure) {
      if (!started_) return respond_error(*exchange_, *outcome.failure);
      event([&](std::string &out) { out += net::error_body(to_reply(*outcome.failure)); });
      return exchange_->finish(net::Exchange::End::kClose);
    }
    if (include_usage_) event([&](std::string &out) { format_.append_usage_chunk(out, outcome.usage); });
    exchange_->out() += "data: [DONE]\n\n";
    exchange_->finish(net::Exchange::End::kComplete);
  }

 private:
  template <class Write> void event(Write &&write) {
    std::string &out = exchange_->out();
    out += "data: ";
    write(out);
    out += "\n\n";
  }

  const ExchangePtr exchange_;
  ReplyFormat format_;
  const uint32_t n_answers_;
  const bool include_usage_;
  bool started_ = false;
};

/// One JSON body at the end.
class WholeReply final : public lifecycle::GenerationConsumer {
 public:
  WholeReply(ExchangePtr exchange, ReplyFormat format, uint32_t n_answers)
      : exchange_(std::move(exchange)), format_(std::move(format)), answers_(n_answers) {}

  void on_admitted() override {}
  void on_delta(uint32_t answer, std::string_view text, const ChosenToken *chosen) override {
    answers_[answer].text += text;
    if (chosen != nullptr) format_.collect_logprobs(answer, *chosen);
  }
  void on_answer_end(uint32_t answer, AnswerEnd end) override { answers_[answer].end = end; }
  void on_batch_end() override {}
  bool writable() override { return true; }
  void on_end(const Outcome &outcome) override {
    if (outcome.failure) return respond_error(*exchange_, *outcome.failure);
    net::Response response;
    format_.append_whole(response.body, answers_, outcome.usage);
    exchange_->respond(std::move(response));
  }

 private:
  const ExchangePtr exchange_;
  ReplyFormat format_;
  std::vector<ReplyFormat::Answer> answers_;
};

request::CancelCause cause_of(net::Gone why) {
  switch (why) {
    case net::Gone::kDisconnected: return request::CancelCause::kDisconnect;
    case net::Gone::kStalled: return request::CancelCause::kSlowConsumer;
    case net::Gone::kShutdown: return request::CancelCause::kDrain;
  }
  return request::CancelCause::kDisconnect;
}

void start(Context &context, const ExchangePtr &exchange, Dialect dialect, const char *route, Parsed parsed) {
  if (!exchange->open()) return;
  if (!parsed) return respond_error(*exchange, parsed.error());
  if (parsed->stream && parsed->spec.beams > 0) {
    return respond_error(*exchange, bad_request("stream is true, but a beam search has nothing to say before its end; "
                                                "leave stream or use_beam_search out",
                                                "stream"));
  }
  const auto n_answers = static_cast<uint32_t>(parsed->spec.prompts.size()) * parsed->spec.n;
  parsed->spec.request_id = exchange->request_id();
  parsed->spec.client = exchange->client();
  parsed->spec.route = route;
  if (!parsed->ignored_fields.empty()) exchange->add_header("x-sluice-ignored-fields", parsed->ignored_fields);
  ReplyFormat format(dialect, *parsed, context.fingerprint, n_answers);
  std::shared_ptr<lifecycle::GenerationConsumer> reply;
  if (parsed->stream) {
    reply = std::make_shared<StreamReply>(exchange, std::move(format), n_answers, parsed->include_usage);
  } else {
    reply = std::make_shared<WholeReply>(exchange, std::move(format), n_answers);
  }
  const auto generation = Generation::start(context.service, std::move(parsed->spec), std::move(reply), exchange->post());
  // The exchange keeps the generation alive as long as it is open.
  if (!exchange->open()) return generation->detach(request::CancelCause::kDisconnect);
  exchange->on_gone([generation](net::Gone why) { generation->detach(cause_of(why)); });
  exchange->on_writable([generation] { generation->resume(); });
}

Parsed parse(const lifecycle::Service &service, const ExchangePtr &exchange, Dialect dialect) {
  auto object = parse_object(exchange->body());
  if (!object) return object.error();
  return parse_request(dialect, *object, service);
}

// Answers from body to end, streamed or whole.
void serve_generation(Context &context, const ExchangePtr &exchange, Dialect dialect, const char *route) {
  if (exchange->body().size() <= context.options.inline_body_bytes) {
    return start(context, exchange, dialect, route, parse(context.service, exchange, dialect));
  }
  context.service.workers().run([&context, exchange, dialect, route, post = exchange->post()]() mutable {
    auto parsed = std::make_shared<Parsed>(parse(context.service, exchange, dialect));
    post([&context, exchange = std::move(exchange), dialect, route, parsed] {
      start(context, exchange, dialect, route, std::move(*parsed));
    });
  });
}

}  // namespace

void post_chat_completions(Context &context, const ExchangePtr &exchange) {
  serve_generation(context, exchange, Dialect::kChat, "/v1/chat/completions");
}

void post_completions(Context &context, const ExchangePtr &exchange) {
  serve_generation(context, exchange, Dialect::kCompletion, "/v1/completions");
}

}  // namespace sluice::api

#include "core/lifecycle/generation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <random>

#include "core/lifecycle/prompt.hpp"
#include "core/lifecycle/request_log.hpp"
#include "core/lifecycle/service.hpp"
#include "core/text/detokenizer.hpp"
#include "core/text/stop_matcher.hpp"
#include "core/text/tokenizer.hpp"

namespace sluice::lifecycle {
namespace {

constexpr uint32_t kUnboundedMaxTokens = 4096;  ///< when neither request, model nor generator knows a bound

uint64_t random_seed() {
  thread_local std::mt19937_64 random{(uint64_t{std::random_device{}()} << 32) ^ std::random_device{}()};
  return random();
}

Failure from_submit(const Error &error) {
  switch (error.code) {
    case Code::kResourceExhausted:
      if (!error.param.empty()) return {FailureKind::kContextLength, error.message, error.param, {}};
      return {FailureKind::kQueueFull, error.message, "", 1};
    case Code::kUnavailable: return {FailureKind::kShuttingDown, error.message, "", 10};
    case Code::kInvalidArgument: return {FailureKind::kBadRequest, error.message, error.param, {}};
    case Code::kUnsupported: return {FailureKind::kUnsupportedParameter, error.message, error.param, {}};
    default: return {FailureKind::kEngine, error.message, "", {}};
  }
}

}  // namespace

/// One answer: its channel and the text state between two tokens. Answers of one search share request and channel.
struct Generation::Answer {
  Answer(uint32_t i, uint32_t first, uint64_t id, const text::Tokenizer &tokenizer, text::FirstSpace space,
         const std::vector<std::string> &stop)
      : index(i), first_of_request(first), request_id(id), detokenizer(tokenizer, space) {
    if (!stop.empty()) matcher.emplace(stop);
  }
  const uint32_t index, first_of_request;
  const uint64_t request_id;
  std::shared_ptr<request::EventChannel> channel;
  text::Detokenizer detokenizer;
  std::optional<text::StopMatcher> matcher;
  uint64_t tokens = 0, last_token_ns = 0;
  bool ended = false;
};

/// All that an engine thread touches of a generation, so that the generation itself dies on its own strand.
struct Generation::Wake {
  std::atomic<bool> pending{false};
  Post post;
  std::weak_ptr<Generation> generation;

  static void call(const std::shared_ptr<Wake> &wake) {
    if (wake->pending.exchange(true)) return;
    wake->post([wake] {
      wake->pending.store(false);
      if (const auto generation = wake->generation.lock()) generation->pump();
    });
  }
};

struct Generation::Prepared {
  std::vector<std::vector<int32_t>> prompts;
  std::optional<Failure> failure;
};

std::shared_ptr<Generation> Generation::start(Service &service, GenerationSpec spec,
                                              std::shared_ptr<GenerationConsumer> consumer, Post post) {
  const std::shared_ptr<Generation> self(new Generation(service, std::move(spec), std::move(consumer), std::move(post)));
  self->wake_ = std::make_shared<Wake>();
  self->wake_->post = self->post_;
  self->wake_->generation = self;
  service.enter(self);
  self->prepare();
  return self;
}

Generation::Generation(Service &service, GenerationSpec spec, std::shared_ptr<GenerationConsumer> consumer, Post post)
    : service_(service), spec_(std::move(spec)), consumer_(std::move(consumer)), post_(std::move(post)) {
  arrival_ns_ = service_.clock().now_ns();
  const auto timeout = service_.options().request_timeout;
  if (timeout.count() > 0) deadline_ns_ = arrival_ns_ + static_cast<uint64_t>(timeout.count()) * 1'000'000;
}

Generation::~Generation() {
  if (!over_) detach(request::CancelCause::kDisconnect);
}

// ---- prompt -----------------------------------------------------------------------------------------------------

void Generation::prepare() {
  if (auto failure = service_.reserve(static_cast<uint32_t>(spec_.prompts.size()) * spec_.n)) return fail(*failure);
  reserved_ = static_cast<uint32_t>(spec_.prompts.size()) * spec_.n;
  size_t bytes = 0;
  for (const auto &prompt : spec_.prompts) bytes += prompt_bytes(prompt);
  if (bytes <= service_.options().inline_prompt_bytes) return on_prepared(tokenize(*spec_.model, spec_.prompts));
  service_.workers().run([self = shared_from_this(), model = spec_.model, prompts = spec_.prompts]() mutable {
    auto prepared = std::make_shared<Prepared>(tokenize(*model, prompts));
    const Post post = self->post_;
    post([self = std::move(self), prepared] { self->on_prepared(std::move(*prepared)); });
  });
}

Generation::Prepared Generation::tokenize(const ServedModel &model, const std::vector<Prompt> &prompts) {
  Prepared out;
  for (size_t i = 0; i < prompts.size() && !out.failure; ++i) {
    auto tokens = prompt_tokens(model, prompts[i]);
    if (tokens) {
      out.prompts.push_back(std::move(*tokens));
    } else {
      out.failure = tokens.error();
    }
  }
  return out;
}

void Generation::on_prepared(Prepared prepared) {
  if (over_) return;
  if (prepared.failure) return fail(*prepared.failure);
  if (auto failure = submit(prepared)) return fail(*failure);
  admitted_ = true;
  spec_.prompts.clear();
  const auto consumer = consumer_;
  consumer->on_admitted();
  pump();
}

std::optional<Failure> Generation::submit(Prepared &prepared) {
  const ServedModel &model = *spec_.model;
  const auto limits = model.generator->limits();
  // All are checked before any is submitted: a request is admitted whole or not at all.
  std::vector<uint32_t> max_new;
  for (const auto &prompt : prepared.prompts) {
    auto allowed = allowed_new_tokens(limits, prompt.size(), spec_.max_tokens, spec_.default_max_tokens, kUnboundedMaxTokens);
    if (!allowed) return allowed.error();
    max_new.push_back(*allowed);
    usage_.prompt_tokens += prompt.size();
  }
  const uint64_t seed = spec_.seed.value_or(random_seed());
  for (size_t p = 0; p < prepared.prompts.size(); ++p) {
    // An answer to messages is a text of its own; a completion goes on where its prompt ended.
    const bool chat = std::holds_alternative<ChatPrompt>(spec_.prompts[p]);
    const auto first_space = chat ? text::FirstSpace::kStrip : text::FirstSpace::kKeep;
    // Answers that are sampled have a request each, so that a stop string ends one of them; a search has one for all.
    const uint32_t n_requests = spec_.beams > 0 ? 1 : spec_.n;
    for (uint32_t i = 0; i < n_requests; ++i) {
      auto request = std::make_shared<request::Request>();
      request->id = service_.next_request_id();
      request->prompt = i + 1 == n_requests ? std::move(prepared.prompts[p]) : prepared.prompts[p];
      request->n_answers = spec_.n / n_requests;
      request->n_branches = spec_.beams;
      request->max_new = max_new[p];
      request->seed = seed + i;
      if (!spec_.ignore_eos) request->stop_tokens = model.tokenizer->end_tokens();
      request->want_logprobs = spec_.logprobs;
      request->n_top_logprobs = spec_.top_logprobs;
      request->arrival_ns = arrival_ns_;
      request->deadline_ns = deadline_ns_;
      request->priority = spec_.priority;
      request->client = spec_.client;
      request->sampler_options = spec_.sampler_options;
      request->decoder_options = spec_.decoder_options;
      request->exact_rejection = spec_.exact_rejection;
      request->events = std::make_shared<request::EventChannel>([wake = wake_] { Wake::call(wake); },
                                                                service_.options().channel_events);
      if (const auto submitted = model.generator->submit(request); !submitted) {
        if (const auto stats = model.generator->stats(); submitted.error().code == Code::kUnavailable && !stats.healthy)
          return Failure{FailureKind::kModelFailed, "the model '" + model.name + "' has just gone down", "model",
                         stats.retry_after_s};
        return from_submit(submitted.error());
      }
      const auto first = static_cast<uint32_t>(answers_.size());
      for (uint32_t k = 0; k < request->n_answers; ++k) {
        answers_.push_back(std::make_unique<Answer>(first + k, first, request->id, *model.tokenizer, first_space,
                                                    spec_.stop));
        answers_.back()->channel = request->events;
        ++open_;
      }
    }
  }
  model.metrics.prompt_tokens.add(static_cast<double>(usage_.prompt_tokens));
  model.metrics.request_prompt_tokens.observe(static_cast<double>(usage_.prompt_tokens));
  return {};
}

// ---- events -----------------------------------------------------------------------------------------------------

void Generation::resume() {
  if (!blocked_) return;
  blocked_ = false;
  pump();
}

void Generation::pump() {
  if (over_ || !admitted_ || pumping_) return;
  // After a cancel only the ends are awaited, and those a full connection need not hold up.
  if (!cancelled_ && !consumer_->writable()) {
    blocked_ = true;
    return;
  }
  const auto keep = shared_from_this();
  const auto consumer = consumer_;
  pumping_ = true;
  pump_ns_ = service_.clock().now_ns();
  for (size_t a = 0; a < answers_.size() && !over_ && !failure_; ++a) {
    Answer &answer = *answers_[a];
    if (answer.ended) continue;
    answer.channel->drain(events_);
    for (auto &event : events_) {
      Answer &whose = *answers_[answer.first_of_request + event.answer];
      if (!whose.ended) take(whose, event);
      if (over_ || failure_) break;
    }
  }
  pumping_ = false;
  if (over_) return;
  if (failure_) return fail(*failure_);
  consumer->on_batch_end();
  if (!over_ && open_ == 0) finish();
}

void Generation::take(Answer &answer, request::Event &event) {
  const auto &metrics = spec_.model->metrics;
  if (event.token >= 0 && !cancelled_) {
    if (first_token_ns_ == 0) {
      first_token_ns_ = pump_ns_;
      metrics.time_to_first_token.observe(static_cast<double>(pump_ns_ - arrival_ns_) * 1e-9);
    }
    if (answer.last_token_ns != 0) {
      metrics.inter_token_latency.observe(static_cast<double>(pump_ns_ - answer.last_token_ns) * 1e-9);
    }
    answer.last_token_ns = pump_ns_;
    ++answer.tokens;
    const auto &ends = spec_.model->tokenizer->end_tokens();
    const bool is_end = !spec_.ignore_eos && std::find(ends.begin(), ends.end(), event.token) != ends.end();
    if (!is_end) {
      text_.clear();
      if (event.text != nullptr) {
        text_ = *event.text;
      } else {
        answer.detokenizer.push(event.token, text_);
      }
      ChosenToken chosen;
      if (spec_.logprobs) {
        std::string_view bytes = spec_.model->tokenizer->piece(event.token);
        // The space that the detokenizer stripped is not part of the content, so neither of its tokens.
        if (answer.tokens == 1 && bytes.starts_with(' ') && !text_.starts_with(' ')) bytes.remove_prefix(1);
        chosen = {event.token, event.logprob, bytes, event.top.get()};
      }
      take_text(answer, text_, spec_.logprobs ? &chosen : nullptr);
    }
  } else if (event.text != nullptr && !cancelled_) {
    take_text(answer, *event.text, nullptr);
  }
  if (answer.ended || event.finish == request::FinishReason::kNone) return;
  usage_.cached_tokens += event.cached_tokens;
  if (event.queued_ns != 0) metrics.queue_time.observe(static_cast<double>(event.queued_ns) * 1e-9);
  usage_.draft_tokens += event.draft_tokens;
  usage_.draft_accepted_tokens += event.draft_accepted_tokens;
  usage_.draft_rounds += event.draft_rounds;
  usage_.draft_verify_ns += event.draft_verify_ns;
  if (event.drafts_off != request::DraftsOff::kNone) usage_.drafts_off = event.drafts_off;
  if (event.finish == request::FinishReason::kError) {
    failure_ = Failure{FailureKind::kEngine,
                       event.error != nullptr ? event.error->message : std::string("the model's engine failed"), "", {}};
    if (event.error != nullptr && event.error->code == Code::kTimeout) failure_->kind = FailureKind::kTimeout;
    return;
  }
  if (event.finish == request::FinishReason::kCancelled) {
    if (!cancelled_ && !failure_) {
      if (deadline_ns_ != 0 && pump_ns_ >= deadline_ns_) {
        cancelled_ = request::CancelCause::kDeadline;
        failure_ = Failure{FailureKind::kTimeout, "the request did not finish before its deadline", "", {}};
      } else {
        cancelled_ = request::CancelCause::kDrain;
        failure_ = Failure{FailureKind::kShuttingDown, "the model's engine is stopping", "", 10};
      }
      return;
    }
    return end_answer(answer, AnswerEnd::kCancelled);
  }
  text_.clear();
  answer.detokenizer.flush(text_);
  if (!text_.empty()) take_text(answer, text_, nullptr);
  if (answer.ended) return;
  if (answer.matcher) {
    emit_.clear();
    answer.matcher->flush(emit_);
    if (!emit_.empty()) consumer_->on_delta(answer.index, emit_, nullptr);
  }
  end_answer(answer, event.finish == request::FinishReason::kStop ? AnswerEnd::kStop : AnswerEnd::kLength);
}

void Generation::take_text(Answer &answer, std::string_view text, const ChosenToken *chosen) {
  bool stopped = false;
  if (answer.matcher) {
    emit_.clear();
    stopped = answer.matcher->push(text, emit_);
    text = emit_;
  }
  if (!text.empty() || chosen != nullptr) consumer_->on_delta(answer.index, text, chosen);
  if (!stopped) return;
  // The engine may have run ahead: what it chose after this token does not exist for the client. A search is over by now.
  if (spec_.beams == 0) {
    answer.channel->close();
    spec_.model->generator->cancel(answer.request_id, request::CancelCause::kStopString);
    spec_.model->metrics.cancelled("stop_string");
  }
  end_answer(answer, AnswerEnd::kStop);
}

void Generation::end_answer(Answer &answer, AnswerEnd end) {
  account(answer, end == AnswerEnd::kStop ? "stop" : end == AnswerEnd::kLength ? "length" : "cancelled");
  if (consumer_ != nullptr) consumer_->on_answer_end(answer.index, end);
}

void Generation::account(Answer &answer, const char *reason) {
  answer.ended = true;
  --open_;
  usage_.completion_tokens += answer.tokens;
  if (finish_reasons_.size() < 64) finish_reasons_.append(finish_reasons_.empty() ? "" : ",").append(reason);
  const auto &metrics = spec_.model->metrics;
  metrics.finished(reason);
  metrics.generation_tokens.add(static_cast<double>(answer.tokens));
  metrics.request_generation_tokens.observe(static_cast<double>(answer.tokens));
}

// ---- the end ----------------------------------------------------------------------------------------------------

void Generation::cancel(request::CancelCause cause) {
  if (over_ || cancelled_) return;
  cancelled_ = cause;
  if (cause == request::CancelCause::kDrain) {
    failure_ = Failure{FailureKind::kShuttingDown, "the server is shutting down", "", 10};
  }
  if (!admitted_ || failure_) return failure_ ? fail(*failure_) : finish();
  for (const auto &answer : answers_) {
    if (answer->ended) continue;
    spec_.model->generator->cancel(answer->request_id, cause);
    spec_.model->metrics.cancelled(cancel_cause_name(cause));
  }
  pump();
}

void Generation::cancel_from_any_thread(std::shared_ptr<Generation> generation, request::CancelCause cause) {
  const Post post = generation->post_;
  post([generation = std::move(generation), cause] { generation->cancel(cause); });
}

// Ends every open answer now, without waiting for the engine to say so and without a word to the consumer.
// cause  nothing: because of a failure
void Generation::drop_answers(std::optional<request::CancelCause> cause) {
  for (const auto &answer : answers_) {
    if (answer->ended) continue;
    answer->channel->close();
    spec_.model->generator->cancel(answer->request_id, cause.value_or(request::CancelCause::kClient));
    if (cause) spec_.model->metrics.cancelled(cancel_cause_name(*cause));
    account(*answer, cause ? "cancelled" : "error");
  }
}

void Generation::detach(request::CancelCause cause) {
  if (over_) return;
  cancelled_ = cause;
  consumer_ = nullptr;
  drop_answers(cause);
  finish();
}

void Generation::fail(Failure failure) {
  failure_ = std::move(failure);
  drop_answers(cancelled_);
  finish();
}

void Generation::finish() {
  if (over_) return;
  over_ = true;
  Outcome outcome{usage_, failure_, cancelled_ == request::CancelCause::kClient && !failure_};
  RequestLine line{spec_, outcome, cancelled_, finish_reasons_};
  const uint64_t now_ns = service_.clock().now_ns();
  line.e2e_ns = now_ns - arrival_ns_;
  line.ttft_ns = first_token_ns_ == 0 ? 0 : first_token_ns_ - arrival_ns_;
  log_request(line);
  if (admitted_) {
    spec_.model->metrics.e2e_latency.observe(static_cast<double>(line.e2e_ns) * 1e-9);
    spec_.model->metrics.cached_prompt_tokens.add(static_cast<double>(usage_.cached_tokens));
  }
  service_.release(std::exchange(reserved_, 0));
  const auto consumer = std::exchange(consumer_, nullptr);
  if (consumer != nullptr) consumer->on_end(outcome);
  service_.leave(*this);
}

}  // namespace sluice::lifecycle

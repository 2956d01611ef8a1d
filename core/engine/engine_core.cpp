#include "core/engine/engine_core.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "core/base/log.hpp"
#include "core/plugin/options.hpp"

namespace sluice::engine {

using request::CancelCause;
using request::Event;
using request::FinishReason;

namespace {

constexpr uint64_t kPausedPollNs = 2'000'000;

uint32_t blocks_for(uint64_t tokens, uint32_t block_size) {
  return static_cast<uint32_t>((tokens + block_size - 1) / block_size);
}

// A plugin that fails at every step must not fill the disk; the metric counts them all.
bool worth_a_line(uint64_t nth) { return nth < 8 || nth % 1024 == 0; }

Event error_event(uint32_t answer, Error error) {
  Event event;
  event.answer = answer;
  event.finish = FinishReason::kError;
  event.error = std::make_shared<const Error>(std::move(error));
  return event;
}

}  // namespace

Result<std::unique_ptr<EngineCore>> EngineCore::create(EngineParts parts, EngineLimits limits) {
  sluice_model_info info{};
  info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
  const std::string backend = "backend " + parts.backend_name;
  if (auto r = call(backend.c_str(), parts.backend->model_info, parts.model, &info); !r) return r.error().error;
  sluice_sample_caps caps{};
  caps.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_caps, logprobs_kinds);
  if (auto r = call(backend.c_str(), parts.backend->sample_caps, parts.model, &caps); !r) return r.error().error;
  if (info.kv_mode != SLUICE_KV_MODE_PAGED || info.n_kv_groups != 1)
    return Error{Code::kUnsupported,
                 fmt::format("{}: kv_mode {} with {} KV groups; this server runs paged KV with one group", backend,
                             info.kv_mode, info.n_kv_groups), {}};
  sluice_decoder_needs needs{};
  needs.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_needs, caps);
  const std::string decoder = "decoder " + parts.decoder_name;
  if (auto r = call(decoder.c_str(), parts.decoder->needs, parts.decoder_instance, &needs); !r)
    return r.error().error;
  if (needs.proposals != 0 || needs.max_nodes != 0 || needs.max_branches > 1)
    return Error{Code::kUnsupported, decoder + ": drafts or branches, which this server cannot verify yet", {}};
  if (limits.max_seqs == 0 || limits.token_budget < limits.max_seqs || limits.kv_blocks == 0 || limits.max_live == 0)
    return invalid_argument(fmt::format(
        "max_seqs is {}, token_budget {}, kv blocks {}: at least one sequence and one token for each must fit",
        limits.max_seqs, limits.token_budget, limits.kv_blocks));

  limits.vocab_size = info.vocab_size;
  std::unique_ptr<EngineCore> core(new EngineCore(std::move(parts), limits, info, caps));
  if (auto r = core->create_scheduler(); !r) return r.error();
  return core;
}

EngineCore::EngineCore(EngineParts parts, EngineLimits limits, const sluice_model_info &info,
                       const sluice_sample_caps &caps)
    : parts_(std::move(parts)),
      limits_(limits),
      backend_who_("backend " + parts_.backend_name),
      scheduler_who_("scheduler " + parts_.scheduler_name),
      decoder_who_("decoder " + parts_.decoder_name),
      mixed_batch_((info.caps & SLUICE_CAP_MIXED_BATCH) != 0),
      pool_(limits.kv_blocks, limits.block_size),
      table_(limits.max_live),
      buffers_(limits.max_live, limits.max_seqs),
      chain_(parts_.samplers, caps, limits.vocab_size),
      batch_(limits.max_seqs, limits.vocab_size, limits.block_size),
      sequences_(limits.max_live) {
  for (uint32_t ref = limits.max_live; ref > 0; --ref) free_refs_.push_back(ref - 1);
  resident_.reserve(limits.max_live);
  waiting_.reserve(limits.max_live);
  sched_host_.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_host, probe_prefix);
  sched_host_.ctx = this;
  sched_host_.step_time_ns = step_time_ns;
  sched_host_.swap_time_ns = swap_time_ns;
  sched_host_.recompute_time_ns = recompute_time_ns;
  sched_host_.probe_prefix = probe_prefix;
}

Result<> EngineCore::create_scheduler() {
  sluice_sched_setup setup{};
  setup.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_setup, host);
  setup.can_swap = 0;
  setup.max_seqs = limits_.max_seqs;
  setup.token_budget = limits_.token_budget;
  setup.waiting_window = limits_.waiting_window;
  setup.probes_per_step = 0;
  setup.table = table_.abi();
  setup.host = &sched_host_;
  if (auto r = call(scheduler_who_.c_str(), parts_.scheduler->create, parts_.host, parts_.scheduler_options, &setup, &scheduler_);
      !r)
    return r.error().error;
  if (scheduler_ == nullptr) return Error{Code::kInternal, scheduler_who_ + ": create succeeded without an instance", {}};
  return {};
}

EngineCore::~EngineCore() {
  if (ticket_) {  // the backend may still read what it was given to write into
    sluice_step_result result{};
    result.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
    (void)call("backend", parts_.backend->wait, parts_.model, *ticket_, uint64_t{5'000'000'000}, &result);
    parts_.backend->release(parts_.model, *ticket_);
  }
  for (auto &sequence : sequences_) {
    if (!sequence) continue;
    chain_.close(*sequence);
    if (sequence->decoder_seq != nullptr) parts_.decoder->seq_close(parts_.decoder_instance, sequence->decoder_seq);
  }
  if (scheduler_ != nullptr) parts_.scheduler->destroy(scheduler_);
}

Result<> EngineCore::check(const request::Request &request, const EngineLimits &limits) {
  if (request.prompt.empty()) return invalid_argument("the prompt has no tokens; it must have at least one", "prompt");
  for (const int32_t token : request.prompt)
    if (token < 0 || static_cast<uint32_t>(token) >= limits.vocab_size)
      return invalid_argument(fmt::format("the prompt has token {}; the vocabulary is 0..{}", token,
                                          limits.vocab_size - 1), "prompt");
  if (request.max_new == 0 || request.n_answers == 0) return invalid_argument("max_tokens and n must be at least 1");
  const uint64_t longest = request.prompt.size() + uint64_t{request.max_new};
  if (longest > limits.max_context)
    return invalid_argument(fmt::format("prompt of {} tokens and {} output tokens; the context is {} tokens",
                                        request.prompt.size(), request.max_new, limits.max_context), "prompt");
  // The last token's own KV is never needed.
  if (blocks_for(longest - 1, limits.block_size) > limits.kv_blocks)
    return Error{Code::kInvalidArgument,
                 fmt::format("prompt of {} tokens and {} output tokens can never fit: the KV cache holds {} tokens; "
                             "shorten the request, or raise kv.memory", request.prompt.size(), request.max_new,
                             uint64_t{limits.kv_blocks} * limits.block_size), "prompt"};
  return {};
}

Result<> EngineCore::submit(std::shared_ptr<const request::Request> request) {
  if (poisoned_) return Error{Code::kUnavailable, "the model is down: " + poisoned_->message, {}};
  if (free_refs_.size() < request->n_answers)
    return Error{Code::kResourceExhausted, fmt::format("{} sequences are running or waiting, no more are taken",
                                                       n_live_), {}};
  std::vector<sluice_seq_ref> opened;
  for (uint32_t answer = 0; answer < request->n_answers; ++answer) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = next_seq_id_++;
    sequence->request = request;
    sequence->answer = answer;
    sequence->tokens = request->prompt;

    auto result = chain_.open(*sequence);
    if (result && SLUICE_HAS_FN(parts_.decoder, sluice_decoder_vtbl, seq_open)) {
      sluice_seq_start start{};
      start.struct_size = SLUICE_SIZE_THROUGH(sluice_seq_start, request);
      start.n_prompt = sequence->prompt_len();
      start.seq = sequence->id;
      start.request_id = request->id;
      start.seed = sequence->seed();
      start.answer_index = answer;
      start.n_answers = request->n_answers;
      start.max_new = request->max_new;
      start.prompt = request->prompt.data();
      start.n_stop = static_cast<uint32_t>(request->stop_tokens.size());
      start.stop_tokens = request->stop_tokens.data();
      start.request = request->decoder_options ? request->decoder_options->handle() : nullptr;
      result = call(decoder_who_.c_str(), parts_.decoder->seq_open, parts_.decoder_instance, &start,
                    &sequence->decoder_seq);
      if (!result) chain_.close(*sequence);
    }
    if (!result) {
      note_plugin_error(result.error());
      for (const auto ref : opened) finish(ref, error_event(sequences_[ref]->answer, result.error().error),
                                           SLUICE_EV_CANCEL);
      if (!opened.empty()) {  // the channel already has ends: complete them
        for (uint32_t rest = answer; rest < request->n_answers; ++rest)
          request->events->push(error_event(rest, result.error().error));
        return {};
      }
      return result.error().error;
    }
    const sluice_seq_ref ref = free_refs_.back();
    free_refs_.pop_back();
    sequences_[ref] = std::move(sequence);
    enlist(ref, SLUICE_SEQ_WAITING);
    by_request_.emplace(request->id, ref);
    ++n_live_;
    table_.arrive(ref, *sequences_[ref]);
    opened.push_back(ref);
  }
  if (request->deadline_ns != 0)
    next_deadline_ns_ = next_deadline_ns_ == 0 ? request->deadline_ns : std::min(next_deadline_ns_, request->deadline_ns);
  return {};
}

void EngineCore::cancel(uint64_t request_id, CancelCause cause) {
  const auto [begin, end] = by_request_.equal_range(request_id);
  std::vector<sluice_seq_ref> refs;
  for (auto it = begin; it != end; ++it) refs.push_back(it->second);
  for (const auto ref : refs) {
    sequences_[ref]->cancel_cause = cause;
    if (!in_batch(ref)) end_cancelled(ref);
  }
}

void EngineCore::cancel_all(CancelCause cause) {
  for (const auto ref : live_refs()) {
    sequences_[ref]->cancel_cause = cause;
    if (!in_batch(ref)) end_cancelled(ref);
  }
}

std::vector<sluice_seq_ref> EngineCore::live_refs() const {
  std::vector<sluice_seq_ref> refs = resident_;
  refs.insert(refs.end(), waiting_.begin(), waiting_.end());
  return refs;
}

void EngineCore::enlist(sluice_seq_ref ref, uint8_t state) {
  auto &sequence = *sequences_[ref];
  auto &list = state == SLUICE_SEQ_RESIDENT ? resident_ : waiting_;
  const auto earlier = [&](sluice_seq_ref a, sluice_seq_ref b) { return sequences_[a]->id < sequences_[b]->id; };
  list.insert(std::upper_bound(list.begin(), list.end(), ref, earlier), ref);
  if (state == SLUICE_SEQ_WAITING) waiting_tokens_ += sequence.length();
  sequence.state = state;
}

void EngineCore::delist(sluice_seq_ref ref) {
  const auto &sequence = *sequences_[ref];
  auto &list = sequence.state == SLUICE_SEQ_RESIDENT ? resident_ : waiting_;
  list.erase(std::find(list.begin(), list.end(), ref));
  if (sequence.state == SLUICE_SEQ_WAITING) waiting_tokens_ -= sequence.length();
}

void EngineCore::end_cancelled(sluice_seq_ref ref) {
  const auto &sequence = *sequences_[ref];
  if (*sequence.cancel_cause == CancelCause::kDeadline) {
    finish(ref, error_event(sequence.answer, {Code::kTimeout, "the request's deadline has passed", {}}),
           SLUICE_EV_CANCEL);
    return;
  }
  Event event;
  event.answer = sequence.answer;
  event.finish = FinishReason::kCancelled;
  finish(ref, std::move(event), SLUICE_EV_CANCEL);
}

void EngineCore::finish(sluice_seq_ref ref, Event event, uint8_t sched_event) {
  auto &sequence = *sequences_[ref];
  assert(!sequence.in_flight);
  event.cached_tokens = sequence.cached_prompt;
  sequence.request->events->push(std::move(event));
  pool_.free(sequence.blocks);
  batch_.forget(sequence);
  chain_.close(sequence);
  if (sequence.decoder_seq != nullptr) parts_.decoder->seq_close(parts_.decoder_instance, sequence.decoder_seq);
  table_.event(sched_event, ref, sequence.computed, sequence.generated(), 0);
  const auto [begin, end] = by_request_.equal_range(sequence.request->id);
  by_request_.erase(std::find_if(begin, end, [&](const auto &entry) { return entry.second == ref; }));
  delist(ref);
  table_.forget(ref);
  sequences_[ref].reset();
  retired_refs_.push_back(ref);
  --n_live_;
}

StepOutcome EngineCore::step(uint64_t timeout_ns) {
  if (!ticket_) {
    if (poisoned_) end_all(*poisoned_);
    expire();
    if (!plan()) return StepOutcome::kIdle;
    carry_out();
    if (batch_.empty()) return n_live_ == 0 ? StepOutcome::kIdle : StepOutcome::kCommitted;
    if (!submit_batch()) return StepOutcome::kCommitted;
  }
  return finish_batch(timeout_ns);
}

void EngineCore::expire() {
  if (next_deadline_ns_ == 0 || parts_.clock->now_ns() < next_deadline_ns_) return;
  const uint64_t now = parts_.clock->now_ns();
  next_deadline_ns_ = 0;
  for (const auto ref : live_refs()) {
    const uint64_t deadline = sequences_[ref]->request->deadline_ns;
    if (deadline == 0) continue;
    if (deadline <= now) {
      sequences_[ref]->cancel_cause = CancelCause::kDeadline;
      end_cancelled(ref);
    } else {
      next_deadline_ns_ = next_deadline_ns_ == 0 ? deadline : std::min(next_deadline_ns_, deadline);
    }
  }
}

uint32_t EngineCore::pending_of(const Sequence &sequence) {
  if (!sequence.request->events->full()) return sequence.length() - sequence.computed;
  somebody_paused_ = true;
  return 0;
}

void EngineCore::fill_view() {
  auto &view = buffers_.view;
  buffers_.resident.clear();
  buffers_.waiting.clear();
  view.now_ns = parts_.clock->now_ns();
  view.step_no = step_no_;
  for (size_t i = 0; i < resident_.size();) {
    const auto ref = resident_[i];
    auto &sequence = *sequences_[ref];
    if (sequence.request->events->closed()) {  // a consumer that hung up is not worth a step
      sequence.cancel_cause = CancelCause::kDisconnect;
      end_cancelled(ref);
      continue;
    }
    table_.refresh(ref, sequence, pending_of(sequence));
    table_.exclusive_blocks[ref] = static_cast<uint32_t>(std::count_if(
        sequence.blocks.begin(), sequence.blocks.end(), [&](uint32_t block) { return !pool_.is_shared(block); }));
    buffers_.resident.push_back(ref);
    ++i;
  }
  // Nothing about a waiting sequence changes but whether its channel has room and what the prefix cache has of it, so
  // only the window is looked at, and the cache is asked for as many as there are seats.
  size_t seats = limits_.max_seqs - std::min<size_t>(limits_.max_seqs, resident_.size());
  for (const auto ref : waiting_) {
    if (buffers_.waiting.size() == limits_.waiting_window) break;
    auto &sequence = *sequences_[ref];
    uint32_t pending = pending_of(sequence);
    if (pending > 0 && limits_.prefix_cache && seats > 0) {
      --seats;
      const uint32_t cached = cached_blocks_of(sequence) * limits_.block_size;
      table_.found(ref, cached, step_no_);
      pending -= cached;
    }
    table_.pending[ref] = pending;
    if (pending > 0) buffers_.waiting.push_back(ref);
  }
  view.resident = buffers_.resident.data();
  view.n_resident = static_cast<uint32_t>(buffers_.resident.size());
  view.waiting = buffers_.waiting.data();
  view.n_waiting = static_cast<uint32_t>(buffers_.waiting.size());
  view.n_waiting_total = static_cast<uint32_t>(waiting_.size());
  view.waiting_tokens = waiting_tokens_;
  view.token_budget = limits_.token_budget;
  view.max_seqs = limits_.max_seqs;
  view.max_prefills = limits_.max_seqs;
  view.block_size = limits_.block_size;
  view.device_total = pool_.total();
  view.device_free = pool_.free_blocks();
  view.device_evictable = pool_.cached_blocks();
  view.watermark = limits_.watermark_blocks;
}

uint32_t EngineCore::cached_blocks_of(Sequence &sequence) {
  const uint32_t block_size = limits_.block_size;
  // At least one token is fed, or there would be no row to go on from.
  const uint32_t n = (sequence.length() - 1) / block_size;
  if (sequence.hashes.size() < n) {
    auto hash = sequence.hashes.empty() ? kv::prefix_root(sequence.request->client) : sequence.hashes.back();
    for (size_t i = sequence.hashes.size(); i < n; ++i) {
      hash = kv::prefix_next(hash, std::span(sequence.tokens).subspan(i * block_size, block_size));
      sequence.hashes.push_back(hash);
    }
  }
  return pool_.match(std::span(sequence.hashes).first(n), sequence.tokens);
}

void EngineCore::attach_prefix(Sequence &sequence) {
  const uint32_t n = cached_blocks_of(sequence);
  pool_.share(sequence.hashes, n, sequence.blocks);
  sequence.computed = n * limits_.block_size;
  sequence.n_published = n;
}

void EngineCore::publish_blocks(Sequence &sequence) {
  const uint32_t block_size = limits_.block_size;
  for (; (sequence.n_published + 1) * block_size <= sequence.computed; ++sequence.n_published) {
    const size_t i = sequence.n_published;
    const auto tokens = std::span(sequence.tokens).subspan(i * block_size, block_size);
    if (sequence.hashes.size() == i)
      sequence.hashes.push_back(
          kv::prefix_next(i == 0 ? kv::prefix_root(sequence.request->client) : sequence.hashes.back(), tokens));
    pool_.publish(sequence.blocks[i], sequence.hashes[i], tokens);
  }
}

bool EngineCore::plan() {
  somebody_paused_ = false;
  fill_view();
  wake_at_ns_ = next_deadline_ns_;
  // A reader that has caught up does not ring, so its sequence is looked at again soon.
  if (somebody_paused_) {
    const uint64_t soon = buffers_.view.now_ns + kPausedPollNs;
    wake_at_ns_ = wake_at_ns_ == 0 ? soon : std::min(wake_at_ns_, soon);
  }
  if (table_.has_events()) {
    const auto events = table_.events();
    auto heard = call(scheduler_who_.c_str(), parts_.scheduler->on_events, scheduler_, &events);
    table_.clear_events();
    free_refs_.insert(free_refs_.end(), retired_refs_.begin(), retired_refs_.end());
    retired_refs_.clear();
    if (!heard) note_plugin_error(heard.error());
  }
  if (n_live_ == 0) return false;

  buffers_.reset();
  auto planned = call(scheduler_who_.c_str(), parts_.scheduler->plan, scheduler_, &buffers_.view, &buffers_.plan);
  std::string wrong;
  if (!planned) {
    note_plugin_error(planned.error());
    wrong = planned.error().error.message;
  } else {
    wrong = check_plan(buffers_, *table_.abi());
  }
  if (!wrong.empty()) {
    if (worth_a_line(counters_.plan_fallbacks++))
      log::warn("engine", "step {}: the plan of scheduler {} is invalid, FCFS stands in for this step: {}", step_no_,
                parts_.scheduler_name, wrong);
    plan_fallback(buffers_, *table_.abi());
  }
  const auto &plan = buffers_.plan;
  if (plan.n_acts == 0) {
    if (plan.wake_at_ns != 0) wake_at_ns_ = wake_at_ns_ == 0 ? plan.wake_at_ns : std::min(wake_at_ns_, plan.wake_at_ns);
    return false;
  }
  return true;
}

void EngineCore::carry_out() {
  batch_.clear();
  batch_refs_.clear();
  const auto &plan = buffers_.plan;
  for (uint32_t i = 0; i < plan.n_acts; ++i) {
    const sluice_seq_ref ref = plan.ref[i];
    if (!sequences_[ref]) continue;  // a mask or a bias failed while an earlier act was carried out
    switch (plan.op[i]) {
      case SLUICE_ACT_RUN: run(ref, plan.tokens[i]); break;
      case SLUICE_ACT_PREEMPT:
        if (sequences_[ref]->state == SLUICE_SEQ_RESIDENT) preempt(ref);
        break;
      case SLUICE_ACT_REJECT:
        finish(ref, error_event(sequences_[ref]->answer,
                                {Code::kUnavailable, "the scheduler turned the request away under load", {}}),
               SLUICE_EV_CANCEL);
        break;
      default: break;
    }
  }
}

void EngineCore::run(sluice_seq_ref ref, uint32_t n_tokens) {
  auto &sequence = *sequences_[ref];
  const bool admitted = sequence.state == SLUICE_SEQ_WAITING;
  if (admitted && limits_.prefix_cache) attach_prefix(sequence);
  // An earlier act may have taken its blocks; then what it has to feed has changed too.
  n_tokens = std::min(n_tokens, sequence.length() - sequence.computed);
  const auto trim = [&] {
    if (admitted) release_blocks(sequence);
    table_.event(SLUICE_EV_TRIMMED, ref, 0, 0, 0);
  };
  const bool is_decode = sequence.length() - sequence.computed == 1;
  if (!mixed_batch_ && !batch_refs_.empty()) {
    const auto &first = *sequences_[batch_refs_.front()];
    if ((first.length() - first.computed == 1) != is_decode) return trim();
  }
  const uint32_t needed = blocks_for(uint64_t{sequence.computed} + n_tokens, limits_.block_size);
  const auto held = static_cast<uint32_t>(sequence.blocks.size());
  if (needed > held && !make_room(ref, needed - held)) return trim();
  if (needed > held) pool_.allocate(needed - held, sequence.blocks);
  if (admitted) {
    if (sequence.generated() == 0) sequence.cached_prompt = sequence.computed;
    counters_.cached_tokens += sequence.computed;
    delist(ref);
    enlist(ref, SLUICE_SEQ_RESIDENT);
    table_.state_since_ns[ref] = buffers_.view.now_ns;
    table_.flags[ref] &= ~SLUICE_SEQF_RESUMED;
  }
  batch_.add(sequence, n_tokens, chain_.lowered(sequence));
  if (chain_.has_masks() && batch_.row_of(batch_refs_.size()) >= 0) {
    auto filled = chain_.fill_mask(sequence, batch_.add_mask());
    if (!filled) {
      note_plugin_error(filled.error());
      sequence.row_error = filled.error().error;
    }
  }
  sequence.in_flight = true;
  batch_refs_.push_back(ref);
}

bool EngineCore::make_room(sluice_seq_ref for_ref, uint32_t n_blocks) {
  // Nobody is pushed out for a newcomer unless the plan says so in as many words: an act of its own.
  if (sequences_[for_ref]->state == SLUICE_SEQ_WAITING) return pool_.available_blocks() >= n_blocks;
  const auto &plan = buffers_.plan;
  const auto take = [&](sluice_seq_ref victim) {
    if (victim == for_ref || !sequences_[victim] || in_batch(victim) ||
        sequences_[victim]->state != SLUICE_SEQ_RESIDENT || (table_.flags[victim] & SLUICE_SEQF_NO_PREEMPT) != 0)
      return;
    preempt(victim);
  };
  for (uint32_t i = 0; i < plan.n_victims && pool_.available_blocks() < n_blocks; ++i) take(plan.victims[i]);
  // Beyond the policy's list only when the step would otherwise come to nothing.
  if (batch_refs_.empty())
    for (size_t i = resident_.size(); i > 0 && pool_.available_blocks() < n_blocks; --i) take(resident_[i - 1]);
  return pool_.available_blocks() >= n_blocks;
}

void EngineCore::release_blocks(Sequence &sequence) {
  pool_.free(sequence.blocks);
  sequence.computed = 0;
  sequence.n_published = 0;
}

void EngineCore::preempt(sluice_seq_ref ref) {
  auto &sequence = *sequences_[ref];
  const uint32_t lost = sequence.computed;
  release_blocks(sequence);
  delist(ref);
  enlist(ref, SLUICE_SEQ_WAITING);
  table_.state_since_ns[ref] = buffers_.view.now_ns;
  table_.flags[ref] |= SLUICE_SEQF_RESUMED;
  ++table_.n_preempt[ref];
  ++counters_.preemptions;
  table_.event(SLUICE_EV_PREEMPTED, ref, lost, 0, 0);
  table_.refresh(ref, sequence, pending_of(sequence));
}

bool EngineCore::submit_batch() {
  const auto step = batch_.abi(++step_no_);
  submitted_ns_ = parts_.clock->now_ns();
  sluice_ticket ticket = 0;
  auto submitted = call(backend_who_.c_str(), parts_.backend->submit, parts_.model, &step, &ticket);
  if (!submitted) {
    fail_batch(submitted.error());
    return false;
  }
  ticket_ = ticket;
  return true;
}

StepOutcome EngineCore::finish_batch(uint64_t timeout_ns) {
  sluice_step_result result{};
  result.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
  auto waited = call(backend_who_.c_str(), parts_.backend->wait, parts_.model, *ticket_, timeout_ns, &result);
  if (!waited && waited.error().error.code == Code::kTimeout) return StepOutcome::kInFlight;
  if (!waited) {
    fail_batch(waited.error());
  } else if (auto chosen = choose_tokens(result); !chosen) {
    fail_batch(chosen.error());
  } else {
    commit(result);
  }
  parts_.backend->release(parts_.model, *ticket_);
  ticket_.reset();
  return StepOutcome::kCommitted;
}

PluginResult EngineCore::choose_tokens(const sluice_step_result &result) {
  const uint32_t n_rows = batch_.n_rows();
  const auto garbage = [&](std::string what) {
    return PluginFailure{{Code::kInternal, fmt::format("backend {}: {}", parts_.backend_name, what), {}}, true};
  };
  if (result.n_rows != n_rows) return garbage(fmt::format("{} rows came back, {} were asked for", result.n_rows, n_rows));
  choices_.resize(n_rows);
  host_rows_.clear();
  host_masks_.clear();
  for (size_t i = 0; i < batch_.sequences().size(); ++i) {
    const int32_t row = batch_.row_of(i);
    if (row < 0) continue;
    auto &sequence = *batch_.sequences()[i];
    auto &choice = choices_[static_cast<size_t>(row)];
    choice.clear();
    if (!chain_.lowered(sequence)) {
      if (result.logits_host == nullptr) return garbage("no logits, which were asked for");
      host_rows_.push_back({&sequence, result.logits_host + static_cast<size_t>(row) * limits_.vocab_size, &choice});
      host_masks_.push_back(batch_.mask_of_row(static_cast<uint32_t>(row)));
      continue;
    }
    if (result.token == nullptr) return garbage("no tokens, which were asked for");
    choice.token = result.token[row];
    if (choice.token == -1) continue;  // no token was left; commit() ends the sequence
    if (choice.token < 0 || static_cast<uint32_t>(choice.token) >= limits_.vocab_size)
      return garbage(fmt::format("row {}: token {}, the vocabulary has {}", row, choice.token, limits_.vocab_size));
    if (!sequence.request->want_logprobs) continue;
    if (result.logprob == nullptr) return garbage("no logprobs, which were asked for");
    choice.logprob = result.logprob[row];
    const uint32_t n_top = sequence.request->n_top_logprobs;
    if (n_top > result.n_top || (n_top > 0 && (result.top_ids == nullptr || result.top_logprobs == nullptr)))
      return garbage(fmt::format("{} top logprobs, {} were asked for", result.n_top, n_top));
    for (uint32_t k = 0; k < n_top; ++k) {
      const int32_t id = result.top_ids[static_cast<size_t>(row) * result.n_top + k];
      if (id < 0) break;
      if (static_cast<uint32_t>(id) >= limits_.vocab_size) return garbage(fmt::format("row {}: top id {}", row, id));
      choice.top.push_back({id, result.top_logprobs[static_cast<size_t>(row) * result.n_top + k]});
    }
  }
  if (host_rows_.empty()) return {};
  return chain_.choose(host_rows_, host_masks_);
}

void EngineCore::commit(const sluice_step_result &result) {
  const uint64_t now = parts_.clock->now_ns();
  const uint64_t device_ns = result.device_ns != 0 ? result.device_ns : now - submitted_ns_;
  uint32_t prefill = 0;
  uint32_t decode = 0;
  committed_.clear();
  committed_refs_.clear();
  committed_tokens_.clear();
  committed_logprobs_.clear();
  for (size_t i = 0; i < batch_refs_.size(); ++i) {
    auto &sequence = *sequences_[batch_refs_[i]];
    const auto ref = batch_refs_[i];
    const uint32_t fed = batch_.fed_tokens(i);
    const bool decodes = sequence.generated() > 0 && fed == 1;
    (decodes ? decode : prefill) += fed;
    sequence.in_flight = false;
    sequence.computed += fed;
    if (limits_.prefix_cache) publish_blocks(sequence);
    const uint32_t prompt_before = std::min(sequence.computed - fed, sequence.prompt_len());
    counters_.prompt_tokens += std::min(sequence.computed, sequence.prompt_len()) - prompt_before;
    table_.last_run_ns[ref] = now;
    table_.service_ns[ref] += device_ns;
    table_.n_skipped[ref] = 0;
    const int32_t row = batch_.row_of(i);
    if (row < 0) {
      table_.event(SLUICE_EV_COMMIT, ref, fed, 0, device_ns);
      continue;
    }
    const auto &choice = choices_[static_cast<size_t>(row)];
    if (choice.token < 0 && !sequence.row_error)
      sequence.row_error = Error{Code::kInvalidArgument, "the request's samplers left no token to choose from", {}};
    if (sequence.row_error || sequence.cancel_cause) continue;
    sequence.tokens.push_back(choice.token);
    ++counters_.output_tokens;
    if (sequence.generated() == 1) table_.first_token_ns[ref] = now;
    table_.event(SLUICE_EV_COMMIT, ref, fed, 1, device_ns);
    committed_.push_back(&sequence);
    committed_refs_.push_back(ref);
    committed_tokens_.push_back(choice.token);
    committed_logprobs_.push_back(choice.logprob);
  }
  for (const auto ref : buffers_.resident)
    if (sequences_[ref] && table_.last_run_ns[ref] != now) ++table_.n_skipped[ref];
  ++counters_.steps;
  cost_.observe(prefill, decode, device_ns);

  if (!committed_.empty()) {
    auto heard = chain_.commit(committed_, committed_tokens_, committed_logprobs_);
    if (heard) commit_decoder(device_ns);
    if (!heard) {  // their samplers no longer know what was said
      note_plugin_error(heard.error());
      for (const auto ref : committed_refs_)
        finish(ref, error_event(sequences_[ref]->answer, heard.error().error), SLUICE_EV_CANCEL);
      committed_refs_.clear();
    }
  }

  size_t next = 0;  // committed_refs_ is a subsequence of batch_refs_
  for (size_t i = 0; i < batch_refs_.size(); ++i) {
    const auto ref = batch_refs_[i];
    if (!sequences_[ref]) continue;
    auto &sequence = *sequences_[ref];
    if (sequence.row_error) {
      finish(ref, error_event(sequence.answer, *sequence.row_error), SLUICE_EV_CANCEL);
      continue;
    }
    const bool has_token = next < committed_refs_.size() && committed_refs_[next] == ref;
    if (has_token) ++next;
    if (sequence.cancel_cause) {
      end_cancelled(ref);
      continue;
    }
    if (!has_token) continue;
    auto &choice = choices_[static_cast<size_t>(batch_.row_of(i))];
    Event event;
    event.answer = sequence.answer;
    event.token = choice.token;
    event.logprob = choice.logprob;
    if (sequence.request->want_logprobs && sequence.request->n_top_logprobs > 0)
      event.top = std::make_shared<const std::vector<request::TokenLogprob>>(choice.top);
    const auto &stops = sequence.request->stop_tokens;
    if (std::find(stops.begin(), stops.end(), choice.token) != stops.end()) {
      event.finish = FinishReason::kStop;
    } else if (sequence.generated() >= sequence.request->max_new) {
      event.finish = FinishReason::kLength;
    }
    if (event.finish != FinishReason::kNone) {
      finish(ref, std::move(event), SLUICE_EV_FINISH);
    } else {
      sequence.request->events->push(std::move(event));
    }
  }
}

void EngineCore::commit_decoder(uint64_t device_ns) {
  if (!SLUICE_HAS_FN(parts_.decoder, sluice_decoder_vtbl, commit)) return;
  decoder_seqs_.clear();
  for (const auto *sequence : committed_) decoder_seqs_.push_back(sequence->decoder_seq);
  const size_t n = committed_.size();
  decoder_indptr_.resize(n + 1);
  for (size_t i = 0; i <= n; ++i) decoder_indptr_[i] = static_cast<uint32_t>(i);
  decoder_zero_.assign(n, 0);
  sluice_decoder_commit told{};
  told.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_commit, draft_ns);
  told.n_seqs = static_cast<uint32_t>(n);
  told.seq = decoder_seqs_.data();
  told.tok_indptr = decoder_indptr_.data();
  told.tok = committed_tokens_.data();
  told.n_drafted = decoder_zero_.data();
  told.n_accepted = decoder_zero_.data();
  told.step_ns = told.plain_ns = device_ns;
  if (auto heard = call(decoder_who_.c_str(), parts_.decoder->commit, parts_.decoder_instance, &told); !heard)
    note_plugin_error(heard.error());
}

void EngineCore::fail_batch(const PluginFailure &failure) {
  note_plugin_error(failure);
  // What the step wrote is unknown, so its sequences cannot go on; nobody else's blocks were in it.
  for (const auto ref : batch_refs_) {
    if (!sequences_[ref]) continue;
    sequences_[ref]->in_flight = false;
    if (sequences_[ref]->cancel_cause) {
      end_cancelled(ref);
    } else {
      finish(ref, error_event(sequences_[ref]->answer, failure.error), SLUICE_EV_CANCEL);
    }
  }
  batch_refs_.clear();
}

void EngineCore::note_plugin_error(const PluginFailure &failure) {
  if (worth_a_line(counters_.plugin_errors++) || failure.poisoned)
    log::error("engine", "{}{}", failure.error.message, failure.poisoned ? " (the instance is damaged)" : "");
  if (failure.poisoned && !poisoned_) poisoned_ = failure.error;
}

void EngineCore::abandon(const Error &error) {
  for (const auto ref : live_refs()) sequences_[ref]->in_flight = false;
  end_all(error);
}

void EngineCore::end_all(const Error &error) {
  for (const auto ref : live_refs()) finish(ref, error_event(sequences_[ref]->answer, error), SLUICE_EV_CANCEL);
}

request::GeneratorStats EngineCore::stats() const {
  auto stats = counters_;
  stats.running = static_cast<uint32_t>(resident_.size());
  stats.waiting = static_cast<uint32_t>(waiting_.size());
  stats.kv_blocks_total = pool_.total();
  stats.kv_blocks_used = pool_.used_blocks();
  stats.healthy = !poisoned_;
  if (poisoned_) stats.trouble = poisoned_->message;
  return stats;
}

std::string EngineCore::audit() const {
  std::vector<const std::vector<uint32_t> *> tables;
  for (const auto ref : live_refs()) {
    const auto &sequence = *sequences_[ref];
    tables.push_back(&sequence.blocks);
    if ((sequence.state == SLUICE_SEQ_WAITING) != sequence.blocks.empty())
      return fmt::format("sequence {} is in state {} with {} blocks", sequence.id, sequence.state,
                         sequence.blocks.size());
    if (sequence.computed > sequence.length() ||
        uint64_t{sequence.computed} > uint64_t{sequence.blocks.size()} * limits_.block_size)
      return fmt::format("sequence {} has {} computed of {} tokens in {} blocks", sequence.id, sequence.computed,
                         sequence.length(), sequence.blocks.size());
    if (sequence.generated() > sequence.request->max_new)
      return fmt::format("sequence {} has {} output tokens of {}", sequence.id, sequence.generated(),
                         sequence.request->max_new);
  }
  if (resident_.size() + waiting_.size() != n_live_ || by_request_.size() != n_live_ ||
      free_refs_.size() + retired_refs_.size() + n_live_ != limits_.max_live)
    return "the lists of live sequences disagree";
  return pool_.audit(tables);
}

uint64_t EngineCore::step_time_ns(void *self, uint32_t prefill, uint32_t decode, uint64_t) {
  return static_cast<EngineCore *>(self)->cost_.predict_ns(prefill, decode);
}

uint64_t EngineCore::swap_time_ns(void *, uint32_t, int32_t) { return std::numeric_limits<uint64_t>::max(); }

uint64_t EngineCore::recompute_time_ns(void *self, sluice_seq_ref ref) {
  const auto &core = *static_cast<EngineCore *>(self);
  if (ref >= core.sequences_.size() || !core.sequences_[ref]) return 0;
  return core.cost_.predict_ns(core.sequences_[ref]->computed, 0);
}

int32_t EngineCore::probe_prefix(void *, sluice_seq_ref) { return SLUICE_E_UNAVAILABLE; }

}  // namespace sluice::engine

#include "core/engine/engine_core.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <limits>
#include <utility>

#include "core/base/log.hpp"
#include "core/engine/core_pieces.hpp"
#include "core/plugin/options.hpp"

namespace sluice::engine {

using request::CancelCause;
using request::Event;
using request::FinishReason;

namespace {

// What a branching decoder may want, as far as it can be known before the first request.
Result<> check_branching(const std::string &decoder, const sluice_decoder_vtbl *vtbl, const sluice_decoder_needs &needs,
                         const EngineLimits &limits) {
  if (!SLUICE_HAS_FN(vtbl, sluice_decoder_vtbl, branch) || !SLUICE_HAS_FN(vtbl, sluice_decoder_vtbl, seq_fork))
    return Error{Code::kUnsupported, fmt::format("{}: max_branches is {}, but it has no branch() or no seq_fork()",
                                                 decoder, needs.max_branches), {}};
  if (needs.max_branches > limits.token_budget)
    return invalid_argument(fmt::format("{}: up to {} branches, and token_budget is {}; a step must have a token for each",
                                        decoder, needs.max_branches, limits.token_budget));
  if (needs.n_top == 0) return Error{Code::kUnsupported, decoder + ": n_top is 0, so there is nothing to rank", {}};
  if (needs.logprobs_kind != SLUICE_LOGPROBS_RAW && needs.logprobs_kind != SLUICE_LOGITS_RAW)
    return Error{Code::kUnsupported, fmt::format("{}: logprobs_kind {}; branches are ranked by the model's own numbers, "
                                                 "LOGPROBS_RAW or LOGITS_RAW", decoder, needs.logprobs_kind), {}};
  return {};
}

}  // namespace

uint32_t EngineCore::most_rows(const EngineLimits &limits) {
  return static_cast<uint32_t>(std::min<uint64_t>(uint64_t{limits.max_seqs} * limits.max_branches, limits.token_budget));
}

Result<std::unique_ptr<EngineCore>> EngineCore::create(EngineParts parts, EngineLimits limits) {
  sluice_model_info info{};
  info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
  const std::string backend = "backend " + parts.backend_name;
  if (parts.info) {
    info = *parts.info;
  } else if (auto r = call({backend.c_str(), "model_info"}, parts.backend->model_info, parts.model, &info); !r) {
    return r.error().error;
  }
  sluice_sample_caps caps{};
  caps.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_caps, logprobs_kinds);
  if (auto r = call({backend.c_str(), "sample_caps"}, parts.backend->sample_caps, parts.model, &caps); !r) return r.error().error;
  if (info.kv_mode != SLUICE_KV_MODE_PAGED || info.n_kv_groups != 1)
    return Error{Code::kUnsupported,
                 fmt::format("{}: kv_mode {} with {} KV groups; this server runs paged KV with one group", backend,
                             info.kv_mode, info.n_kv_groups), {}};
  sluice_decoder_needs needs{};
  needs.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_needs, flags);
  const std::string decoder = "decoder " + parts.decoder_name;
  if (auto r = call({decoder.c_str(), "needs"}, parts.decoder->needs, parts.decoder_instance, &needs); !r)
    return r.error().error;
  if (needs.max_branches > 1) {
    if (auto r = check_branching(decoder, parts.decoder, needs, limits); !r) return r.error();
    limits.max_branches = needs.max_branches;
  }
  if (auto r = check_draft_needs(decoder, needs, info); !r) return r.error();
  if (limits.max_seqs == 0 || limits.token_budget < limits.max_seqs || limits.kv_blocks == 0 || limits.max_live == 0)
    return invalid_argument(fmt::format(
        "max_seqs is {}, token_budget {}, kv blocks {}: at least one sequence and one token for each must fit",
        limits.max_seqs, limits.token_budget, limits.kv_blocks));

  limits.vocab_size = info.vocab_size;
  limits.max_rows = std::max(limits.max_rows, limits.max_seqs);
  if ((info.caps & SLUICE_CAP_KV_HOST_SPACE) == 0) limits.host_blocks = 0;
  // What branches become, and how much a decoder wants to draft, is known only at the commit.
  if (needs.max_branches > 1 || needs.max_nodes > 0) limits.plan_ahead = false;
  std::unique_ptr<EngineCore> core(new EngineCore(std::move(parts), limits, info, caps, needs));
  if (auto r = core->create_drafting(needs, info); !r) return r.error();
  auto scheduler = core->create_scheduler({core->parts_.scheduler_name, core->parts_.scheduler,
                                           core->parts_.scheduler_options});
  if (!scheduler) return scheduler.error();
  core->scheduler_ = *scheduler;
  return core;
}

EngineCore::EngineCore(EngineParts parts, EngineLimits limits, const sluice_model_info &info,
                       const sluice_sample_caps &caps, const sluice_decoder_needs &needs)
    : parts_(std::move(parts)),
      limits_(limits),
      backend_who_("backend " + parts_.backend_name),
      decoder_who_("decoder " + parts_.decoder_name),
      scheduler_who_("scheduler " + parts_.scheduler_name),
      mixed_batch_((info.caps & SLUICE_CAP_MIXED_BATCH) != 0),
      trees_((info.caps & SLUICE_CAP_TREE) != 0 && (info.caps & SLUICE_CAP_MOVE_SLOTS) != 0),
      max_tree_nodes_(info.max_tree_nodes),
      pool_(limits.kv_blocks, limits.block_size),
      host_pool_(limits.host_blocks, limits.block_size),
      table_(limits.max_live),
      buffers_(limits.max_live, limits.max_seqs),
      chain_(parts_.samplers, caps, limits.vocab_size),
      batch_(most_rows(limits), limits.vocab_size, limits.block_size),
      swap_cost_(limits.swap_rates),
      sequences_(limits.max_live),
      groups_(limits.max_live),
      caps_(caps),
      n_branch_top_(std::min(needs.n_top, limits.vocab_size)),
      branch_logprobs_kind_(needs.logprobs_kind),
      branch_call_(n_branch_top_) {
  for (uint32_t ref = limits.max_live; ref > 0; --ref) free_refs_.push_back(ref - 1);
  resident_.reserve(limits.max_live);
  waiting_.reserve(limits.max_live);
  swapped_.reserve(limits.max_live);
  moving_.reserve(limits.max_live);
  sched_host_.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_host, probe_prefix);
  sched_host_.ctx = this;
  sched_host_.step_time_ns = step_time_ns;
  sched_host_.swap_time_ns = swap_time_ns;
  sched_host_.recompute_time_ns = recompute_time_ns;
  sched_host_.probe_prefix = probe_prefix;
}

boost::system::result<sluice_scheduler *, Error> EngineCore::create_scheduler(const SchedulerChange &from) {
  sluice_sched_setup setup{};
  setup.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_setup, host);
  setup.can_swap = limits_.host_blocks > 0 ? 1 : 0;
  setup.max_seqs = limits_.max_seqs;
  setup.token_budget = limits_.token_budget;
  setup.waiting_window = limits_.waiting_window;
  setup.probes_per_step = limits_.prefix_cache ? kProbesPerStep : 0;
  setup.table = table_.abi();
  setup.host = &sched_host_;
  const std::string who = "scheduler " + from.name;
  sluice_scheduler *made = nullptr;
  if (auto r = call({who.c_str(), "create"}, from.vtbl->create, parts_.host, from.options, &setup, &made); !r)
    return r.error().error;
  if (made == nullptr) return Error{Code::kInternal, who + ": create succeeded without an instance", {}};
  return made;
}

Result<> EngineCore::change_scheduler(const SchedulerChange &to) {
  planned_ahead_ = false;  // it may name those who have ended, and their refs may be given to others now
  if (!to.fresh && SLUICE_HAS_FN(parts_.scheduler, sluice_scheduler_vtbl, reconfigure)) {
    auto r = call({scheduler_who_.c_str(), "reconfigure"}, parts_.scheduler->reconfigure, scheduler_, to.options);
    if (!r) return r.error().error;
    return {};
  }
  auto made = create_scheduler(to);
  if (!made) return made.error();
  (void)call_void({scheduler_who_.c_str(), "destroy"}, parts_.scheduler->destroy, scheduler_);
  scheduler_ = *made;
  parts_.scheduler = to.vtbl;
  parts_.scheduler_name = to.name;
  scheduler_who_ = "scheduler " + to.name;
  // What the old one has not heard is of no meaning to the new one, nor are those who ended.
  table_.clear_events();
  free_refs_.insert(free_refs_.end(), retired_refs_.begin(), retired_refs_.end());
  retired_refs_.clear();
  auto refs = live_refs();
  std::sort(refs.begin(), refs.end(), [&](auto a, auto b) { return sequences_[a]->id < sequences_[b]->id; });
  for (const auto ref : refs) table_.event(SLUICE_EV_ARRIVE, ref, 0, sequences_[ref]->prompt_len(), 0);
  return {};
}

EngineCore::~EngineCore() {
  if (ticket_) {  // the backend may still read what it was given to write into
    sluice_step_result result{};
    result.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
    (void)call({backend_who_.c_str(), "wait"}, parts_.backend->wait, parts_.model, *ticket_, uint64_t{5'000'000'000}, &result);
    release_ticket();
  }
  for (const auto &transfer : transfers_) {  // nor may the memory go that it still copies
    if (transfer.ticket == 0) continue;
    const auto copied = call({backend_who_.c_str(), "wait"}, parts_.backend->wait, parts_.model, transfer.ticket,
                             uint64_t{5'000'000'000}, nullptr);
    if (!copied && copied.error().error.code == Code::kTimeout) break;  // one queue: what is behind it takes longer
  }
  for (auto &sequence : sequences_) {
    if (!sequence) continue;
    chain_.close(*sequence);
    close_decoder(*sequence);
  }
  for (auto &group : groups_)
    if (group)
      for (auto &branch : group->others) drop_branch(*branch);
  if (scheduler_ != nullptr)
    (void)call_void({scheduler_who_.c_str(), "destroy"}, parts_.scheduler->destroy, scheduler_);
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
  if (request.n_branches > 0) {
    if (limits.max_branches < 2)
      return Error{Code::kUnsupported, "the model's decoder does not branch", "use_beam_search"};
    if (request.n_branches > limits.max_branches)
      return invalid_argument(fmt::format("{} branches are asked for; the model's decoder has at most {}",
                                          request.n_branches, limits.max_branches), "num_beams");
    if (request.n_answers > request.n_branches)
      return invalid_argument(fmt::format("n is {}, of {} branches", request.n_answers, request.n_branches), "n");
  }
  if (const uint64_t most = most_blocks(request, limits); most > limits.kv_blocks)
    return Error{Code::kInvalidArgument,
                 fmt::format("prompt of {} tokens and {} output tokens{} can never fit: they need {} KV blocks of {} "
                             "tokens, there are {}; shorten the request, or raise kv.memory", request.prompt.size(),
                             request.max_new,
                             request.n_branches > 1 ? fmt::format(" on each of {} branches", request.n_branches) : "",
                             most, limits.block_size, limits.kv_blocks), "prompt"};
  return {};
}

Result<> EngineCore::submit(std::shared_ptr<const request::Request> request) {
  if (poisoned_) return Error{Code::kUnavailable, "the model is down: " + poisoned_->error.message, {}};
  if (free_refs_.size() < request->n_answers)
    return Error{Code::kResourceExhausted, fmt::format("{} sequences are running or waiting, no more are taken",
                                                       n_live_), {}};
  std::vector<sluice_seq_ref> opened;
  const bool branches = request->n_branches > 0;
  for (uint32_t answer = 0; answer < (branches ? 1 : request->n_answers); ++answer) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = sequence->arrival = next_seq_id_++;
    sequence->request = request;
    sequence->answer = answer;
    sequence->tokens = request->prompt;

    PluginResult result;
    if (branches) {
      sequence->spec = branch_spec(*request);
    } else {
      result = chain_.open(*sequence);
    }
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
      result = call({decoder_who_.c_str(), "seq_open"}, parts_.decoder->seq_open, parts_.decoder_instance, &start,
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
    if (branches) groups_[ref] = std::make_unique<BranchGroup>();
    if (branches && request->want_logprobs) groups_[ref]->said.resize(1);
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
  for (const auto *list : {&waiting_, &swapped_, &moving_}) refs.insert(refs.end(), list->begin(), list->end());
  return refs;
}

std::vector<sluice_seq_ref> &EngineCore::list_of(uint8_t state) {
  switch (state) {
    case SLUICE_SEQ_RESIDENT: return resident_;
    case SLUICE_SEQ_SWAPPED: return swapped_;
    case SLUICE_SEQ_MOVING_OUT:
    case SLUICE_SEQ_MOVING_IN: return moving_;
    default: return waiting_;
  }
}

void EngineCore::enlist(sluice_seq_ref ref, uint8_t state) {
  auto &sequence = *sequences_[ref];
  auto &list = list_of(state);
  const auto earlier = [&](sluice_seq_ref a, sluice_seq_ref b) { return sequences_[a]->arrival < sequences_[b]->arrival; };
  list.insert(std::upper_bound(list.begin(), list.end(), ref, earlier), ref);
  if (state == SLUICE_SEQ_WAITING) waiting_tokens_ += sequence.length();
  sequence.state = state;
}

void EngineCore::delist(sluice_seq_ref ref) {
  const auto &sequence = *sequences_[ref];
  auto &list = list_of(sequence.state);
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
  const auto &sequence = *sequences_[ref];
  event.cached_tokens = sequence.cached_prompt;
  event.queued_ns = sequence.queued_ns;
  event.draft_tokens = sequence.n_drafted;
  event.draft_accepted_tokens = sequence.n_accepted;
  event.draft_rounds = sequence.n_draft_rounds;
  event.draft_verify_ns = sequence.draft_verify_ns;
  event.drafts_off = sequence.drafts_off;
  if (groups_[ref]) {  // which stands for all answers
    for (event.answer = 0; event.answer < sequence.request->n_answers; ++event.answer) {
      sequence.request->events->push(event);
      event.cached_tokens = 0;
    }
  } else {
    sequence.request->events->push(std::move(event));
  }
  retire(ref, sched_event);
}

void EngineCore::retire(sluice_seq_ref ref, uint8_t sched_event) {
  auto &sequence = *sequences_[ref];
  assert(!sequence.in_flight);
  if (groups_[ref])
    for (auto &branch : groups_[ref]->others) drop_branch(*branch);
  groups_[ref].reset();
  pool_.free(sequence.blocks);
  host_pool_.free(sequence.host_blocks);
  batch_.forget(sequence);
  if (const auto closed = chain_.close(sequence); !closed) note_plugin_error(closed.error());
  close_decoder(sequence);
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
    if (poisoned_) end_all(poisoned_->error);
    expire();
    land_transfers(0);
    // Of a plan made ahead, those who have ended since drop out. If nothing is left of it, a new one is made.
    bool acted = false, ahead = false;
    if (std::exchange(planned_ahead_, false)) {
      acted = ahead = carry_out();
      if (!acted && !start_transfers()) return StepOutcome::kCommitted;  // of those who gave way for nothing
    }
    if (!acted) {
      if (!plan()) return transfers_.empty() ? StepOutcome::kIdle : wait_for_transfers(timeout_ns);
      acted = carry_out();
    }
    if (!start_transfers()) return StepOutcome::kCommitted;
    if (!acted) wake_at_ns_ = parts_.clock->now_ns() + kPollNs;  // nothing has changed that would bring a better plan
    if (batch_.empty()) return n_live_ == 0 || !acted ? StepOutcome::kIdle : StepOutcome::kCommitted;
    if (!submit_batch()) return StepOutcome::kCommitted;
    counters_.steps_planned_ahead += ahead ? 1 : 0;
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

void EngineCore::note_plugin_error(const PluginFailure &failure) {
  if (worth_a_line(counters_.plugin_errors++) || failure.poisoned)
    log::error("engine", "{}{}", failure.error.message, failure.poisoned ? " (the instance is damaged)" : "");
  if (failure.poisoned && !poisoned_) poisoned_ = failure;
}

void EngineCore::release_ticket() {
  const auto released = call_void({backend_who_.c_str(), "release"}, parts_.backend->release, parts_.model, *ticket_);
  ticket_.reset();
  if (!released) note_plugin_error(released.error());
}

void EngineCore::close_decoder(const Sequence &sequence) {
  if (sequence.decoder_seq == nullptr) return;
  const auto closed = call_void({decoder_who_.c_str(), "seq_close"}, parts_.decoder->seq_close,
                                parts_.decoder_instance, sequence.decoder_seq);
  if (!closed) note_plugin_error(closed.error());
}

void EngineCore::abandon(const Error &error) {
  if (!poisoned_) poisoned_ = PluginFailure{error, true, backend_who_};
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
  stats.swapped = static_cast<uint32_t>(swapped_.size() + moving_.size());
  stats.host_blocks_total = host_pool_.total();
  stats.host_blocks_used = host_pool_.used_blocks();
  stats.kv_blocks_total = pool_.total();
  stats.kv_blocks_used = pool_.used_blocks();
  if (draft_control_) {
    stats.drafts_off_for_acceptance = draft_control_->switched_off_for_acceptance();
    stats.drafts_off_for_cost = draft_control_->switched_off_for_cost();
    stats.drafts_off = draft_control_->off() || drafting_->damaged();
  }
  stats.healthy = !poisoned_;
  stats.damaged = poisoned_.has_value();
  if (poisoned_) stats.trouble = poisoned_->error.message, stats.culprit = poisoned_->who;
  return stats;
}

std::string EngineCore::audit() const {
  std::vector<const std::vector<uint32_t> *> tables, host_tables;
  for (const auto ref : live_refs()) {
    const auto &sequence = *sequences_[ref];
    const uint8_t state = sequence.state;
    tables.push_back(&sequence.blocks);
    host_tables.push_back(&sequence.host_blocks);
    if (groups_[ref]) {
      for (const auto &branch : groups_[ref]->others) {
        tables.push_back(&branch->blocks);
        host_tables.push_back(&branch->host_blocks);
      }
      if (auto wrong = audit_branches(ref); !wrong.empty()) return wrong;
    }
    const bool on_device = state == SLUICE_SEQ_RESIDENT || state == SLUICE_SEQ_MOVING_IN;
    const bool on_host = state != SLUICE_SEQ_RESIDENT && state != SLUICE_SEQ_WAITING;
    if (on_device == sequence.blocks.empty() || on_host == sequence.host_blocks.empty())
      return fmt::format("sequence {} is in state {} with {} blocks and {} in swap space", sequence.id, state,
                         sequence.blocks.size(), sequence.host_blocks.size());
    const auto covers = [&](bool there, const std::vector<uint32_t> &blocks) {
      return !there || uint64_t{sequence.computed} <= uint64_t{blocks.size()} * limits_.block_size;
    };
    if (sequence.computed > sequence.length() || (state == SLUICE_SEQ_WAITING && sequence.computed > 0) ||
        !covers(on_device, sequence.blocks) || !covers(on_host, sequence.host_blocks))
      return fmt::format("sequence {} in state {} has {} computed of {} tokens in {} blocks and {} in swap space",
                         sequence.id, state, sequence.computed, sequence.length(), sequence.blocks.size(),
                         sequence.host_blocks.size());
    if (sequence.generated() > sequence.request->max_new)
      return fmt::format("sequence {} has {} output tokens of {}", sequence.id, sequence.generated(),
                         sequence.request->max_new);
  }
  // Only full prefix blocks and the blocks of one request's branches are anybody else's too.
  std::unordered_map<uint32_t, sluice_seq_ref> owner;
  const auto belongs = [&](const std::vector<uint32_t> &blocks, sluice_seq_ref ref) {
    return std::all_of(blocks.begin(), blocks.end(), [&](uint32_t block) {
      return pool_.is_published(block) || owner.emplace(block, ref).first->second == ref;
    });
  };
  for (const auto ref : live_refs()) {
    bool all = belongs(sequences_[ref]->blocks, ref);
    if (groups_[ref])
      for (const auto &branch : groups_[ref]->others) all = all && belongs(branch->blocks, ref);
    if (!all) return fmt::format("sequence {} shares a block that is not published", sequences_[ref]->id);
  }
  if (live_refs().size() != n_live_ || by_request_.size() != n_live_ ||
      free_refs_.size() + retired_refs_.size() + n_live_ != limits_.max_live)
    return "the lists of live sequences disagree";
  if (auto wrong = audit_transfers(); !wrong.empty()) return wrong;
  if (auto wrong = host_pool_.audit(host_tables); !wrong.empty()) return "swap space: " + wrong;
  return pool_.audit(tables);
}

std::string EngineCore::audit_transfers() const {
  size_t moving = 0;
  uint64_t bytes[2] = {0, 0};
  for (const auto &transfer : transfers_) {
    bytes[transfer.in] += transfer.bytes;
    for (const auto &[ref, id] : transfer.sequences) {
      if (!sequences_[ref] || sequences_[ref]->id != id) continue;
      if (sequences_[ref]->state != (transfer.in ? SLUICE_SEQ_MOVING_IN : SLUICE_SEQ_MOVING_OUT))
        return fmt::format("sequence {} is being moved and in state {}", id, sequences_[ref]->state);
      ++moving;
    }
  }
  if (moving != moving_.size() || bytes[0] != moving_bytes_[0] || bytes[1] != moving_bytes_[1])
    return fmt::format("{} sequences move, {} are in state MOVING", moving, moving_.size());
  return {};
}

uint64_t EngineCore::step_time_ns(void *self, uint32_t prefill, uint32_t decode, uint64_t context) {
  return static_cast<EngineCore *>(self)->cost_.predict_ns(prefill, decode, context);
}

uint64_t EngineCore::swap_time_ns(void *self, uint32_t blocks, int32_t in) {
  const auto &core = *static_cast<EngineCore *>(self);
  if (core.limits_.host_blocks == 0) return std::numeric_limits<uint64_t>::max();
  return core.swap_cost_.predict_ns(in != 0, blocks * core.limits_.bytes_per_block);
}

uint64_t EngineCore::recompute_time_ns(void *self, sluice_seq_ref ref) {
  const auto &core = *static_cast<EngineCore *>(self);
  if (ref >= core.sequences_.size() || !core.sequences_[ref]) return 0;
  const auto &sequence = *core.sequences_[ref];
  return sequence.state == SLUICE_SEQ_RESIDENT ? core.recompute_ns(sequence)
                                               : core.cost_.prefill_ns(0, sequence.computed, core.limits_.token_budget);
}

int32_t EngineCore::probe_prefix(void *self, sluice_seq_ref ref) {
  auto &core = *static_cast<EngineCore *>(self);
  if (ref >= core.sequences_.size() || !core.sequences_[ref]) return SLUICE_E_INVALID_ARGUMENT;
  if (core.table_.is_probed(ref, core.step_no_)) return SLUICE_OK;
  const bool may = core.limits_.prefix_cache && core.probes_left_ > 0;
  if (!may || core.sequences_[ref]->state != SLUICE_SEQ_WAITING) return SLUICE_E_UNAVAILABLE;
  --core.probes_left_;
  core.probe(ref);
  return SLUICE_OK;
}

}  // namespace sluice::engine

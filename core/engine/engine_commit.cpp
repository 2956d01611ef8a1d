// EngineCore, second half of a step: submit, wait, choose, commit.
#include <fmt/format.h>

#include <algorithm>

#include "core/base/log.hpp"
#include "core/engine/core_pieces.hpp"
#include "core/engine/engine_core.hpp"

namespace sluice::engine {

using request::Event;
using request::FinishReason;

bool EngineCore::submit_batch() {
  const auto step = batch_.abi(++step_no_);
  submitted_ns_ = parts_.clock->now_ns();
  sluice_ticket ticket = 0;
  auto submitted = call({backend_who_.c_str(), "submit"}, parts_.backend->submit, parts_.model, &step, &ticket);
  if (!submitted) {
    fail_batch(submitted.error());
    return false;
  }
  ticket_ = ticket;
  if (limits_.plan_ahead) {
    const uint64_t takes = expected_ns();
    plan_ahead_at_ns_ = std::max<uint64_t>(1, submitted_ns_ + takes - std::min(takes, kPlanLeadNs));
  }
  return true;
}

uint64_t EngineCore::expected_ns() const {
  uint64_t context = 0;
  for (const auto *sequence : batch_.sequences()) context += sequence->computed;
  return cost_.predict_ns(batch_.n_tokens(), 0, context);
}

PluginResult EngineCore::wait_for_step(uint64_t timeout_ns, sluice_step_result &result) {
  const auto wait = [&](uint64_t ns) {
    return call({backend_who_.c_str(), "wait"}, parts_.backend->wait, parts_.model, *ticket_, ns, &result);
  };
  if (plan_ahead_at_ns_ == 0) return wait(timeout_ns);
  const uint64_t now = parts_.clock->now_ns();
  // Returning in between lets the caller bring who has arrived.
  if (now < plan_ahead_at_ns_) return wait(std::min(timeout_ns, plan_ahead_at_ns_ - now));
  plan_ahead_at_ns_ = 0;
  auto waited = wait(0);
  if (waited || waited.error().error.code != Code::kTimeout) return waited;
  planned_ahead_ = plan();
  return wait(timeout_ns);
}

StepOutcome EngineCore::finish_batch(uint64_t timeout_ns) {
  sluice_step_result result{};
  result.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
  auto waited = wait_for_step(timeout_ns, result);
  if (!waited && waited.error().error.code == Code::kTimeout) return StepOutcome::kInFlight;
  if (!waited) {
    fail_batch(waited.error());
  } else if (auto chosen = choose_tokens(result); !chosen) {
    fail_batch(chosen.error());
  } else {
    walk_drafts();
    if (auto moved = move_accepted(); !moved) {
      fail_batch(moved.error());
    } else {
      commit(result);
    }
  }
  release_ticket();
  return StepOutcome::kCommitted;
}

namespace {

constexpr uint64_t kLongestStepNs = uint64_t{3'600} * 1'000'000'000;  // sums of anything else may overflow

}  // namespace

PluginFailure EngineCore::backend_garbage(const std::string &what) const {
  return {{Code::kInternal, fmt::format("backend {}: {}", parts_.backend_name, what), {}}, true, backend_who_};
}

PluginResult EngineCore::choose_tokens(const sluice_step_result &result) {
  const uint32_t n_rows = batch_.n_rows();
  if (result.n_rows != n_rows)
    return backend_garbage(fmt::format("{} rows came back, {} were asked for", result.n_rows, n_rows));
  if (result.device_ns > kLongestStepNs) return backend_garbage(fmt::format("device_ns is {}", result.device_ns));
  choices_.resize(n_rows);
  host_rows_.clear();
  first_host_row_.assign(batch_.sequences().size(), 0);
  for (size_t i = 0; i < batch_.sequences().size(); ++i) {
    if (batch_.row_of(i) < 0) continue;
    if (groups_[batch_refs_[i]]) {
      if (auto ranked = rank_row(i, result); !ranked) return ranked;
      continue;
    }
    auto &sequence = *batch_.sequences()[i];
    const auto first_row = static_cast<uint32_t>(batch_.row_of(i));
    const auto first_host_row = static_cast<int32_t>(host_rows_.size());
    const auto drafts = batch_.drafts(i);
    const bool on_host = (batch_.want(first_row) & SLUICE_ROW_LOGITS_HOST) != 0;
    first_host_row_[i] = static_cast<uint32_t>(first_host_row);
    for (uint32_t k = 0; k <= drafts.size(); ++k) {
      const uint32_t row = first_row + k;
      choices_[row].clear();
      if (!on_host) {
        if (auto r = read_row(result, row, sequence); !r) return r;
        continue;
      }
      if (result.logits_host == nullptr) return backend_garbage("no logits, which were asked for");
      HostRow host_row{&sequence, result.logits_host + size_t{row} * limits_.vocab_size, &choices_[row],
                       batch_.mask_of_row(row), sequence.length()};
      if (!is_row(host_row.logits, limits_.vocab_size))
        return backend_garbage(fmt::format("row {}: a logit that is no number", row));
      if (k > 0) {
        const auto &draft = drafts[k - 1];
        host_row.position += draft.depth;
        host_row.parent = first_host_row + draft.parent + 1;
        host_row.token = draft.token;
      }
      host_rows_.push_back(host_row);
    }
  }
  if (host_rows_.empty()) return {};
  return chain_.choose(host_rows_);
}

PluginResult EngineCore::read_row(const sluice_step_result &result, uint32_t row, const Sequence &sequence) {
  auto &choice = choices_[row];
  if (result.token == nullptr) return backend_garbage("no tokens, which were asked for");
  choice.token = result.token[row];
  if (choice.token == -1) return {};  // no token was left; commit() ends the sequence
  if (choice.token < 0 || static_cast<uint32_t>(choice.token) >= limits_.vocab_size)
    return backend_garbage(fmt::format("row {}: token {}, the vocabulary has {}", row, choice.token, limits_.vocab_size));
  if (!sequence.request->want_logprobs) return {};
  if (result.logprob == nullptr) return backend_garbage("no logprobs, which were asked for");
  choice.logprob = std::min(result.logprob[row], 0.0F);
  if (!is_logprob(result.logprob[row]))
    return backend_garbage(fmt::format("row {}: a log-probability of {}", row, result.logprob[row]));
  const uint32_t n_top = sequence.request->n_top_logprobs;
  if (n_top > result.n_top || (n_top > 0 && (result.top_ids == nullptr || result.top_logprobs == nullptr)))
    return backend_garbage(fmt::format("{} top logprobs, {} were asked for", result.n_top, n_top));
  for (uint32_t k = 0; k < n_top; ++k) {
    const int32_t id = result.top_ids[size_t{row} * result.n_top + k];
    if (id < 0) break;
    if (static_cast<uint32_t>(id) >= limits_.vocab_size)
      return backend_garbage(fmt::format("row {}: top id {}", row, id));
    const float logprob = result.top_logprobs[size_t{row} * result.n_top + k];
    if (!is_logprob(logprob)) return backend_garbage(fmt::format("row {}: a top log-probability of {}", row, logprob));
    const auto same = [&](const request::TokenLogprob &entry) { return entry.token == id; };
    if (std::any_of(choice.top.begin(), choice.top.end(), same))
      return backend_garbage(fmt::format("row {}: top id {} twice", row, id));
    choice.top.push_back({id, std::min(logprob, 0.0F)});
  }
  return {};
}

void EngineCore::commit(const sluice_step_result &result) {
  const uint64_t now = parts_.clock->now_ns();
  const uint64_t device_ns = result.device_ns != 0 ? result.device_ns : now - submitted_ns_;
  append_tokens(now, result, device_ns);
  branch(now);
  ++counters_.steps;
  if (!committed_.empty() || !grown_.empty()) tell_samplers_and_decoder(device_ns);
  emit_tokens();
}

void EngineCore::append_tokens(uint64_t now, const sluice_step_result &result, uint64_t device_ns) {
  uint32_t prefill = 0;
  uint32_t decode = 0;
  uint64_t context = 0;
  committed_.clear();
  committed_refs_.clear();
  committed_rows_.clear();
  committed_tokens_.clear();
  committed_logprobs_.clear();
  committed_indptr_.assign(1, 0);
  for (size_t i = 0; i < batch_refs_.size(); ++i) {
    const auto ref = batch_refs_[i];
    auto &sequence = *batch_sequences_[i];
    const auto &walk = walks_[i];
    const bool goes_on = batch_.row_of(i) >= 0 && !sequence.row_error && !sequence.cancel_cause;
    const uint32_t computed = batch_tokens_[i] + (goes_on ? static_cast<uint32_t>(walk.accepted.size()) : 0);
    const bool decodes = sequence.generated() > 0 && batch_tokens_[i] == 1;
    (decodes ? decode : prefill) += batch_.fed_tokens(i);
    context += sequence.computed;
    if (groups_[ref]) {
      if (i == 0 || batch_refs_[i - 1] != ref) append_branches(i, now, device_ns);
      continue;
    }
    sequence.in_flight = false;
    const uint32_t after = sequence.computed + computed;
    counters_.computed_tokens += batch_.fed_tokens(i);
    counters_.recomputed_tokens += std::min(sequence.most_computed, after) - std::min(sequence.most_computed, sequence.computed);
    sequence.most_computed = std::max(sequence.most_computed, after);
    counters_.prompt_tokens += std::min(after, sequence.prompt_len()) - std::min(sequence.computed, sequence.prompt_len());
    table_.last_run_ns[ref] = now;
    table_.service_ns[ref] += device_ns;
    table_.n_skipped[ref] = 0;
    if (goes_on && batch_seat_[i] >= 0)
      drafting_->settle(seats_[static_cast<size_t>(batch_seat_[i])], sequence.computed + 1, walk.accepted);
    if (goes_on) append_walk(i, now, result);
    sequence.computed += computed;
    if (limits_.prefix_cache) publish_blocks(sequence);
    give_back_tail(sequence);
    if (goes_on || batch_.row_of(i) < 0)
      table_.event(SLUICE_EV_COMMIT, ref, computed, goes_on ? static_cast<uint32_t>(walk.tokens.size()) : 0, device_ns);
  }
  for (const auto ref : buffers_.resident)
    if (sequences_[ref] && table_.last_run_ns[ref] != now) ++table_.n_skipped[ref];
  note_drafts(prefill, decode, device_ns);
  if (seats_.empty()) cost_.observe(prefill, decode, context, device_ns);
}

void EngineCore::append_walk(size_t i, uint64_t now, const sluice_step_result &result) {
  const auto ref = batch_refs_[i];
  auto &sequence = *sequences_[ref];
  const auto &walk = walks_[i];
  if (walk.no_token)
    sequence.row_error = Error{Code::kInvalidArgument, "the request's samplers left no token to choose from", {}};
  if (walk.tokens.empty()) return;
  auto row = static_cast<uint32_t>(batch_.row_of(i));
  for (size_t k = 0; k < walk.tokens.size(); ++k) {
    if (k > 0) row = static_cast<uint32_t>(batch_.row_of(i)) + walk.accepted[k - 1] + 1;
    sequence.tokens.push_back(walk.tokens[k]);
    committed_tokens_.push_back(walk.tokens[k]);
    committed_logprobs_.push_back(choices_[row].logprob);
    committed_rows_.push_back(row);
  }
  if (sequence.generated() == walk.tokens.size()) table_.first_token_ns[ref] = now;
  drafting_->keep_heads(sequence, result, row);
  counters_.output_tokens += walk.tokens.size();
  committed_.push_back(&sequence);
  committed_refs_.push_back(ref);
  committed_indptr_.push_back(static_cast<uint32_t>(committed_tokens_.size()));
}

void EngineCore::tell_samplers_and_decoder(uint64_t device_ns) {
  auto heard = chain_.commit(committed_, committed_indptr_, committed_tokens_, committed_logprobs_);
  if (heard) commit_decoder(device_ns);
  if (!heard) {  // their samplers no longer know what was said
    note_plugin_error(heard.error());
    for (const auto ref : committed_refs_)
      finish(ref, error_event(sequences_[ref]->answer, heard.error().error), SLUICE_EV_CANCEL);
    committed_refs_.clear();
  }
}

void EngineCore::emit_tokens() {
  size_t next = 0;  // committed_refs_ is a subsequence of batch_refs_
  for (const auto ref : batch_refs_) {
    if (!sequences_[ref]) continue;
    const auto &sequence = *sequences_[ref];
    const bool has_tokens = next < committed_refs_.size() && committed_refs_[next] == ref;
    if (has_tokens) ++next;
    if (sequence.cancel_cause) {
      end_cancelled(ref);
      continue;
    }
    if (has_tokens) push_tokens(ref, next - 1);
    if (sequences_[ref] && sequence.row_error)
      finish(ref, error_event(sequence.answer, *sequence.row_error), SLUICE_EV_CANCEL);
  }
}

/// nth  of committed_
void EngineCore::push_tokens(sluice_seq_ref ref, size_t nth) {
  const auto &sequence = *sequences_[ref];
  const auto &stops = sequence.request->stop_tokens;
  for (uint32_t k = committed_indptr_[nth]; k < committed_indptr_[nth + 1]; ++k) {
    auto &choice = choices_[committed_rows_[k]];
    Event event;
    event.answer = sequence.answer;
    event.token = committed_tokens_[k];
    event.logprob = choice.logprob;
    if (sequence.request->want_logprobs && sequence.request->n_top_logprobs > 0)
      event.top = std::make_shared<const std::vector<request::TokenLogprob>>(choice.top);
    const bool last = k + 1 == committed_indptr_[nth + 1];
    if (last && std::find(stops.begin(), stops.end(), event.token) != stops.end()) {
      event.finish = FinishReason::kStop;
    } else if (last && sequence.generated() >= sequence.request->max_new) {
      event.finish = FinishReason::kLength;
    }
    if (event.finish != FinishReason::kNone) return finish(ref, std::move(event), SLUICE_EV_FINISH);
    sequence.request->events->push(std::move(event));
  }
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

}  // namespace sluice::engine

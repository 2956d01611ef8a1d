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
  append_tokens(now, device_ns);
  ++counters_.steps;
  if (!committed_.empty()) tell_samplers_and_decoder(device_ns);
  emit_tokens();
}

void EngineCore::append_tokens(uint64_t now, uint64_t device_ns) {
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
  cost_.observe(prefill, decode, device_ns);
}

void EngineCore::tell_samplers_and_decoder(uint64_t device_ns) {
  auto heard = chain_.commit(committed_, committed_tokens_, committed_logprobs_);
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

}  // namespace sluice::engine

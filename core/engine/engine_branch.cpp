// EngineCore: requests whose decoder ranks branches. They share blocks, each writes into its own, and who ranks too low
// is gone with the step that said so.
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/engine/core_pieces.hpp"
#include "core/engine/engine_core.hpp"

namespace sluice::engine {

using request::Event;
using request::FinishReason;

namespace {

/// Of a token that is not among the best.  source: OpenAI's API reference
constexpr float kUnknownLogprob = -9999.0F;

}  // namespace

uint64_t EngineCore::most_blocks(const request::Request &request, const EngineLimits &limits) {
  const uint64_t longest = request.prompt.size() + uint64_t{request.max_new} - 1;  // the last token's KV is never needed
  const uint64_t whole = (longest + limits.block_size - 1) / limits.block_size;
  if (request.n_branches == 0) return whole;
  // The prompt's full blocks are shared. And a policy may count a fresh block for each branch in every step, as the SDK
  // does; it must not wait for them forever.
  const uint64_t shared = request.prompt.size() / limits.block_size;
  return shared + request.n_branches * (whole - shared + 1);
}

sluice_sample_spec EngineCore::branch_spec(const request::Request &request) const {
  sluice_sample_spec spec{};
  spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  spec.temperature = spec.top_p = spec.repetition = 1;
  spec.n_logprobs = std::min(std::max(n_branch_top_, request.n_top_logprobs), limits_.vocab_size);
  spec.logprobs_kind = branch_logprobs_kind_;
  // Nobody looks at the token that is drawn, so it is made a cheap one.
  if ((caps_.stages & SLUICE_STAGE_BIT(SLUICE_STAGE_TEMPERATURE)) != 0) {
    spec.temperature = 0;
    spec.stage[spec.n_stages++] = SLUICE_STAGE_TEMPERATURE;
  }
  return spec;
}

bool EngineCore::ranked_by_backend(const Sequence &branch) const {
  return (caps_.forms & SLUICE_ROW_TOKEN) != 0 && branch.spec.n_logprobs <= caps_.max_logprobs &&
         (caps_.logprobs_kinds >> branch_logprobs_kind_ & 1U) != 0;
}

// ---- memory -----------------------------------------------------------------------------------------------------

void EngineCore::drop_branch(Sequence &branch) {
  pool_.free(branch.blocks);
  host_pool_.free(branch.host_blocks);
  batch_.forget(branch);
  close_decoder(branch);
}

void EngineCore::release_branches(sluice_seq_ref ref) {
  auto &group = *groups_[ref];
  const auto &first = *sequences_[ref];
  group.common.clear();
  for (auto &branch : group.others) {
    release_blocks(*branch);
    const auto differs = std::mismatch(first.tokens.begin(), first.tokens.end(), branch->tokens.begin()).first;
    // The last token is fed when all go on, so it is never taken from another branch.
    group.common.push_back(std::min(static_cast<uint32_t>(differs - first.tokens.begin()), first.length() - 1));
  }
}

EngineCore::BranchMemory EngineCore::measure_branches(sluice_seq_ref ref) {
  BranchMemory memory;
  const auto &group = *groups_[ref];
  std::vector<uint32_t> on_host = sequences_[ref]->host_blocks;
  for (const auto &branch : group.others)
    on_host.insert(on_host.end(), branch->host_blocks.begin(), branch->host_blocks.end());
  std::sort(on_host.begin(), on_host.end());
  memory.host_blocks = static_cast<uint32_t>(std::unique(on_host.begin(), on_host.end()) - on_host.begin());
  scratch_blocks_.clear();
  for (uint32_t k = 0; k < group.width(); ++k) {
    const auto &branch = k == 0 ? *sequences_[ref] : *group.others[k - 1];
    for (size_t i = 0; i < branch.blocks.size(); ++i) {
      const auto begin = static_cast<uint32_t>(i) * limits_.block_size;
      const uint32_t filled = std::min(limits_.block_size, branch.computed - std::min(branch.computed, begin));
      scratch_blocks_.emplace_back(branch.blocks[i], filled);
    }
  }
  std::sort(scratch_blocks_.begin(), scratch_blocks_.end());
  for (size_t i = 0; i < scratch_blocks_.size();) {
    const uint32_t block = scratch_blocks_[i].first;
    uint32_t held = 0;
    uint32_t filled = 0;
    for (; i < scratch_blocks_.size() && scratch_blocks_[i].first == block; ++i, ++held)
      filled = std::max(filled, scratch_blocks_[i].second);
    ++memory.blocks;
    memory.tokens += filled;
    if (pool_.holders(block) == held) ++memory.exclusive_blocks;
  }
  return memory;
}

void EngineCore::refresh_branches(sluice_seq_ref ref) {
  const auto memory = measure_branches(ref);
  table_.refresh(ref, *sequences_[ref], pending_of_branches(ref));
  table_.widen(ref, groups_[ref]->width(), memory.tokens, memory.blocks, memory.host_blocks);
  table_.exclusive_blocks[ref] = memory.exclusive_blocks;
}

uint32_t EngineCore::pending_of_branches(sluice_seq_ref ref, uint32_t cached_tokens) {
  const auto &group = *groups_[ref];
  const auto &first = *sequences_[ref];
  const uint32_t there = std::max(first.computed, cached_tokens);
  if (group.width() == 1) return first.length() - there;
  const uint32_t end = first.length() - 1;
  uint32_t pending = end - there;
  // Others begin where they part from the first, once it is there; who waits is to know how much it will be in all.
  if (pending == 0 || first.state == SLUICE_SEQ_WAITING)
    for (size_t k = 0; k < group.others.size(); ++k)
      pending += end - (group.others[k]->computed == 0 ? group.common[k] : group.others[k]->computed);
  return pending == 0 ? group.width() : pending;
}

uint32_t EngineCore::blocks_to_write() {
  uint32_t needed = 0;
  scratch_blocks_.clear();
  for (const auto &[branch, n] : feeds_) {
    const uint32_t end = blocks_for(uint64_t{branch->computed} + n, limits_.block_size);
    const auto held = static_cast<uint32_t>(branch->blocks.size());
    if (end > held) needed += end - held;
    const uint32_t begin = branch->computed / limits_.block_size;
    if (begin < held && !pool_.is_writable(branch->blocks[begin])) scratch_blocks_.emplace_back(branch->blocks[begin], 0);
  }
  std::sort(scratch_blocks_.begin(), scratch_blocks_.end());
  for (size_t i = 0; i < scratch_blocks_.size();) {
    const uint32_t block = scratch_blocks_[i].first;
    uint32_t writers = 0;
    for (; i < scratch_blocks_.size() && scratch_blocks_[i].first == block; ++i) ++writers;
    // The last of those who share it may keep it, if nobody else reads it.
    needed += pool_.holders(block) > writers || pool_.is_published(block) ? writers : writers - 1;
  }
  return needed;
}

void EngineCore::make_writable(Sequence &branch, uint32_t n_tokens) {
  const uint32_t begin = branch.computed / limits_.block_size;
  if (begin < branch.blocks.size() && !pool_.is_writable(branch.blocks[begin])) {
    const uint32_t shared = branch.blocks[begin];
    const bool split = pool_.split(branch.blocks[begin]);
    assert(split);
    (void)split;
    if (branch.computed % limits_.block_size != 0) copies_.add(SLUICE_KV_COPY, shared, branch.blocks[begin]);
  }
  const uint32_t end = blocks_for(uint64_t{branch.computed} + n_tokens, limits_.block_size);
  const auto held = static_cast<uint32_t>(branch.blocks.size());
  if (end > held) pool_.allocate(end - held, branch.blocks);
}

bool EngineCore::swap_out_branches(sluice_seq_ref ref) {
  auto &group = *groups_[ref];
  const auto &first = *sequences_[ref];
  std::unordered_map<uint32_t, uint32_t> moved;  // what is shared on the device is shared in swap space
  for (size_t i = 0; i < first.host_blocks.size(); ++i) moved.emplace(first.blocks[i], first.host_blocks[i]);
  KvOps ops;
  for (auto &branch : group.others) {
    for (const uint32_t block : branch->blocks) {
      const auto [entry, is_new] = moved.try_emplace(block, 0);
      if (!is_new) {
        host_pool_.fork(std::span(&entry->second, 1), branch->host_blocks);
      } else if (host_pool_.allocate(1, branch->host_blocks)) {
        entry->second = branch->host_blocks.back();
        ops.add(SLUICE_KV_SWAP_OUT, block, entry->second);
      } else {
        for (auto &other : group.others) host_pool_.free(other->host_blocks);
        return false;
      }
    }
  }
  ops_out_.append(ops);
  for (auto &branch : group.others) {
    pool_.free(branch->blocks);
    branch->n_published = 0;
  }
  return true;
}

bool EngineCore::swap_in_branches(sluice_seq_ref ref) {
  auto &group = *groups_[ref];
  const auto &first = *sequences_[ref];
  std::unordered_map<uint32_t, uint32_t> moved;
  for (size_t i = 0; i < first.host_blocks.size(); ++i) moved.emplace(first.host_blocks[i], first.blocks[i]);
  KvOps ops;
  for (auto &branch : group.others) {
    for (const uint32_t block : branch->host_blocks) {
      const auto [entry, is_new] = moved.try_emplace(block, 0);
      if (!is_new) {
        pool_.fork(std::span(&entry->second, 1), branch->blocks);
      } else if (pool_.allocate(1, branch->blocks)) {
        entry->second = branch->blocks.back();
        ops.add(SLUICE_KV_SWAP_IN, block, entry->second);
      } else {
        for (auto &other : group.others) pool_.free(other->blocks);
        return false;
      }
    }
  }
  ops_in_.append(ops);
  return true;
}

// ---- a step -----------------------------------------------------------------------------------------------------

void EngineCore::choose_feeds(sluice_seq_ref ref, uint32_t n_tokens) {
  auto &first = *sequences_[ref];
  auto &group = *groups_[ref];
  const uint32_t end = first.length() - 1;
  feeds_.clear();
  if (group.width() == 1) {
    feeds_.emplace_back(&first, std::min(n_tokens, first.length() - first.computed));
    return;
  }
  if (first.computed < end) {
    feeds_.emplace_back(&first, std::min(n_tokens, end - first.computed));
    return;
  }
  uint32_t left = n_tokens;
  for (size_t k = 0; k < group.others.size(); ++k) {
    auto &branch = *group.others[k];
    if (branch.computed == 0) {
      branch.computed = group.common[k];
      pool_.fork(std::span(first.blocks).first(blocks_for(branch.computed, limits_.block_size)), branch.blocks);
    }
    const uint32_t n = std::min(left, end - branch.computed);
    if (n > 0) feeds_.emplace_back(&branch, n);
    left -= n;
  }
  const auto behind = [&](const auto &branch) { return branch->computed < end; };
  if (!feeds_.empty() || std::any_of(group.others.begin(), group.others.end(), behind)) return;
  if (n_tokens < group.width()) return;
  feeds_.emplace_back(&first, 1);
  for (auto &branch : group.others) feeds_.emplace_back(branch.get(), 1);
}

bool EngineCore::run_branches(sluice_seq_ref ref, uint32_t n_tokens) {
  auto &first = *sequences_[ref];
  const bool admitted = first.state == SLUICE_SEQ_WAITING;
  if (admitted && limits_.prefix_cache) attach_prefix(first);
  choose_feeds(ref, n_tokens);
  const bool decodes = !feeds_.empty() && feeds_.front().first->computed + 1 == first.length();
  const bool fits_the_batch = mixed_batch_ || batch_refs_.empty() || decodes == batch_decodes();
  const uint32_t needed = blocks_to_write();
  if (feeds_.empty() || !fits_the_batch || (needed > 0 && !make_room(ref, needed))) {
    if (admitted) {
      release_blocks(first);
      release_branches(ref);
    }
    return false;
  }
  if (admitted) admit(ref);
  for (const auto &[branch, n] : feeds_) {
    make_writable(*branch, n);
    batch_refs_.push_back(ref);
    batch_sequences_.push_back(branch);
    batch_tokens_.push_back(n);
    batch_seat_.push_back(-1);
  }
  first.in_flight = true;
  return true;
}

bool EngineCore::batch_decodes() const {
  return batch_sequences_.front()->computed + 1 == batch_sequences_.front()->length();
}

bool EngineCore::submit_copies() {
  if (copies_.size() == 0) return true;
  const auto batch = copies_.abi();
  sluice_ticket ticket = 0;  // the step comes behind it in the same queue
  auto queued = call({backend_who_.c_str(), "kv_ops"}, parts_.backend->kv_ops, parts_.model, &batch, &ticket);
  copies_.clear();
  if (!queued) fail_batch(queued.error());
  return queued.has_value();
}

PluginResult EngineCore::rank_row(size_t i, const sluice_step_result &result) {
  const auto row = static_cast<size_t>(batch_.row_of(i));
  auto &branch = *batch_sequences_[i];
  auto &choice = choices_[row];
  choice.clear();
  const auto garbage = [&](const std::string &what) { return backend_garbage(fmt::format("row {}: {}", row, what)); };
  const uint32_t n = branch.spec.n_logprobs;
  if (!ranked_by_backend(branch)) {
    if (result.logits_host == nullptr) return garbage("no logits, which were asked for");
    if (!is_row(result.logits_host + row * limits_.vocab_size, limits_.vocab_size)) return garbage("a logit that is no number");
    auto spec = branch.spec;
    spec.n_stages = 0;
    row_sampler_.run(const_cast<float *>(result.logits_host) + row * limits_.vocab_size, limits_.vocab_size, spec);
    top_ids_.resize(n);
    top_logprobs_.resize(n);
    row_sampler_.top(n, top_ids_.data(), top_logprobs_.data());
    for (uint32_t k = 0; k < n && top_ids_[k] >= 0; ++k) choice.top.push_back({top_ids_[k], top_logprobs_[k]});
  } else {
    if (result.n_top < n || result.top_ids == nullptr || result.top_logprobs == nullptr)
      return garbage(fmt::format("{} top logprobs, {} were asked for", result.n_top, n));
    const size_t at = row * result.n_top;
    for (uint32_t k = 0; k < n && result.top_ids[at + k] >= 0; ++k) {
      if (static_cast<uint32_t>(result.top_ids[at + k]) >= limits_.vocab_size)
        return garbage(fmt::format("top id {}, the vocabulary has {}", result.top_ids[at + k], limits_.vocab_size));
      if (!is_row(result.top_logprobs + at + k, 1)) return garbage("a top log-probability that is no number");
      choice.top.push_back({result.top_ids[at + k], result.top_logprobs[at + k]});
    }
    top_ids_.assign(result.top_ids + at, result.top_ids + at + choice.top.size());
    std::sort(top_ids_.begin(), top_ids_.end());
    if (std::adjacent_find(top_ids_.begin(), top_ids_.end()) != top_ids_.end()) return garbage("a top id twice");
  }
  const auto unusable = [](const request::TokenLogprob &entry) { return !std::isfinite(entry.logprob); };
  choice.top.erase(std::remove_if(choice.top.begin(), choice.top.end(), unusable), choice.top.end());
  if (choice.top.empty())
    sequences_[batch_refs_[i]]->row_error = Error{Code::kInternal, "the model gave no token a probability", {}};
  return {};
}

void EngineCore::append_branches(size_t begin, uint64_t now, uint64_t device_ns) {
  const auto ref = batch_refs_[begin];
  auto &first = *sequences_[ref];
  uint32_t total = 0;
  size_t end = begin;
  for (; end < batch_refs_.size() && batch_refs_[end] == ref; ++end) {
    auto &branch = *batch_sequences_[end];
    const uint32_t after = branch.computed + batch_tokens_[end];
    counters_.recomputed_tokens +=
        std::min(branch.most_computed, after) - std::min(branch.most_computed, branch.computed);
    branch.most_computed = std::max(branch.most_computed, after);
    branch.computed = after;
    total += batch_tokens_[end];
  }
  counters_.computed_tokens += total;
  if (first.generated() == 0) {
    counters_.prompt_tokens += total;
    if (limits_.prefix_cache) publish_blocks(first);  // the prompt; of what is pruned nobody will ask
  }
  first.in_flight = false;
  table_.last_run_ns[ref] = now;
  table_.service_ns[ref] += device_ns;
  table_.n_skipped[ref] = 0;
  const bool ranked = batch_.row_of(begin) >= 0 && !first.row_error && !first.cancel_cause;
  table_.event(SLUICE_EV_COMMIT, ref, total, ranked ? 1 : 0, device_ns);
  if (!ranked) return;
  ranked_.push_back(ref);
  for (size_t i = begin; i < end; ++i) {
    const auto &branch = *batch_sequences_[i];
    branch_call_.add(branch.decoder_seq, choices_[static_cast<size_t>(batch_.row_of(i))].top, branch.generated());
    ranked_rows_.push_back(static_cast<uint32_t>(batch_.row_of(i)));
  }
  branch_call_.end_group();
}

void EngineCore::branch(uint64_t now) {
  grown_.clear();
  if (ranked_.empty()) return;
  std::vector<BranchCall::Rules> rules;
  for (const auto ref : ranked_) {
    const auto &first = *sequences_[ref];
    rules.push_back({first.request->n_branches, first.generated() + 1 >= first.request->max_new,
                     !groups_[ref]->finished.empty()});
  }
  const auto in = branch_call_.in();
  auto out = branch_call_.out();
  auto ranked = call({decoder_who_.c_str(), "branch"}, parts_.decoder->branch, parts_.decoder_instance, &in, &out);
  if (ranked) {
    if (auto wrong = branch_call_.take(out.n, rules, limits_.vocab_size); !wrong.empty())
      ranked = PluginFailure{{Code::kInternal, decoder_who_ + ": branch: " + wrong, {}}, true, decoder_who_};
  }
  if (!ranked) note_plugin_error(ranked.error());
  size_t row = 0;
  for (uint32_t g = 0; g < ranked_.size(); ++g) {
    const auto ref = ranked_[g];
    const auto rows = std::span(ranked_rows_).subspan(row, groups_[ref]->width());
    row += rows.size();
    if (!ranked) {
      finish(ref, error_event(0, ranked.error().error), SLUICE_EV_CANCEL);
      continue;
    }
    keep_finished(ref, g, rows);
    if (branch_call_.done(g)) {
      answer(ref);
      continue;
    }
    if (auto grown = grow(ref, g, rows); !grown) {
      note_plugin_error(grown.error());
      finish(ref, error_event(0, grown.error().error), SLUICE_EV_CANCEL);
    } else if (sequences_[ref]->generated() == 1) {
      table_.first_token_ns[ref] = now;
    }
  }
  ranked_.clear();
  ranked_rows_.clear();
  branch_call_.clear();
}

void EngineCore::keep_finished(sluice_seq_ref ref, uint32_t g, std::span<const uint32_t> rows) {
  auto &group = *groups_[ref];
  const auto &request = *sequences_[ref]->request;
  for (const auto &entry : branch_call_.entries(g)) {
    if (entry.grows) continue;
    const auto &branch = entry.branch == 0 ? *sequences_[ref] : *group.others[entry.branch - 1];
    FinishedAnswer finished;
    finished.score = entry.score;
    finished.tokens.assign(branch.tokens.begin() + branch.prompt_len(), branch.tokens.end());
    if (request.want_logprobs) finished.said = group.said[entry.branch];
    if (entry.token >= 0) {
      finished.tokens.push_back(entry.token);
      if (request.want_logprobs)
        finished.said.push_back(said_of(choices_[rows[entry.branch]], entry.token, request.n_top_logprobs));
    }
    group.keep(std::move(finished), request.n_answers);
  }
}

PluginResult EngineCore::grow(sluice_seq_ref ref, uint32_t g, std::span<const uint32_t> rows) {
  auto &group = *groups_[ref];
  const auto request = sequences_[ref]->request;
  std::vector<std::unique_ptr<Sequence>> before, after;
  before.push_back(std::move(sequences_[ref]));
  std::move(group.others.begin(), group.others.end(), std::back_inserter(before));
  group.others.clear();
  const auto said_before = std::move(group.said);
  group.said.clear();
  std::vector<uint32_t> heirs(before.size(), 0);  // still to come from each
  for (const auto &entry : branch_call_.entries(g)) heirs[entry.branch] += entry.grows ? 1 : 0;

  PluginResult result;
  const size_t n_grown = grown_.size();
  for (const auto &entry : branch_call_.entries(g)) {
    if (!entry.grows) continue;
    // The last heir is the branch itself; those before it are forks.
    if (--heirs[entry.branch] == 0) {
      after.push_back(std::move(before[entry.branch]));
    } else if (auto fork = fork_branch(*before[entry.branch])) {
      after.push_back(std::move(*fork));
    } else {
      result = fork.error();
      break;
    }
    after.back()->tokens.push_back(entry.token);
    grown_.push_back({after.back().get(), entry.token});
    if (!request->want_logprobs) continue;
    group.said.push_back(said_before[entry.branch]);
    group.said.back().push_back(said_of(choices_[rows[entry.branch]], entry.token, request->n_top_logprobs));
  }
  if (!result) grown_.resize(n_grown);
  for (auto &branch : before) {
    if (!branch) continue;
    if (after.empty()) {
      after.push_back(std::move(branch));  // somebody stands for the request until it is finished
    } else {
      drop_branch(*branch);
    }
  }
  sequences_[ref] = std::move(after.front());
  std::move(after.begin() + 1, after.end(), std::back_inserter(group.others));
  return result;
}

boost::system::result<std::unique_ptr<Sequence>, PluginFailure> EngineCore::fork_branch(const Sequence &from) {
  auto fork = std::make_unique<Sequence>();
  fork->id = next_seq_id_++;
  fork->arrival = from.arrival;
  fork->request = from.request;
  fork->answer = from.answer;
  fork->tokens = from.tokens;
  fork->computed = from.computed;
  fork->state = from.state;
  fork->hashes = from.hashes;
  fork->n_published = from.n_published;
  fork->cached_prompt = from.cached_prompt;
  fork->queued_ns = from.queued_ns;
  fork->most_computed = from.most_computed;
  fork->spec = from.spec;
  if (SLUICE_HAS_FN(parts_.decoder, sluice_decoder_vtbl, seq_fork)) {
    auto forked = call({decoder_who_.c_str(), "seq_fork"}, parts_.decoder->seq_fork, parts_.decoder_instance,
                       static_cast<const sluice_decoder_seq *>(from.decoder_seq), &fork->decoder_seq);
    if (!forked) return forked.error();
  }
  pool_.fork(from.blocks, fork->blocks);
  return fork;
}

std::shared_ptr<const TokenChoice> EngineCore::said_of(const TokenChoice &row, int32_t token, uint32_t n_top) {
  auto said = std::make_shared<TokenChoice>();
  said->token = token;
  said->logprob = kUnknownLogprob;
  for (const auto &entry : row.top)
    if (entry.token == token) said->logprob = entry.logprob;
  said->top.assign(row.top.begin(), row.top.begin() + static_cast<ptrdiff_t>(std::min<size_t>(n_top, row.top.size())));
  return said;
}

void EngineCore::answer(sluice_seq_ref ref) {
  const auto request = sequences_[ref]->request;
  const auto &stops = request->stop_tokens;
  const auto &finished = groups_[ref]->finished;
  for (uint32_t k = 0; k < request->n_answers; ++k) {
    if (k >= finished.size()) {
      auto event = error_event(k, {Code::kInternal, fmt::format("{}: {} answers instead of {}", decoder_who_,
                                                                finished.size(), request->n_answers), {}});
      request->events->push(std::move(event));
      continue;
    }
    const auto &tokens = finished[k].tokens;
    counters_.output_tokens += tokens.size();
    std::vector<Event> events(std::max<size_t>(tokens.size(), 1));
    for (size_t i = 0; i < tokens.size(); ++i) {
      events[i].token = tokens[i];
      if (!request->want_logprobs) continue;
      const auto &said = finished[k].said[i];
      events[i].logprob = said->logprob;
      if (request->n_top_logprobs > 0)
        events[i].top = std::shared_ptr<const std::vector<request::TokenLogprob>>(said, &said->top);
    }
    for (auto &event : events) event.answer = k;
    const bool stopped = !tokens.empty() && std::find(stops.begin(), stops.end(), tokens.back()) != stops.end();
    events.back().finish = stopped || tokens.size() < request->max_new ? FinishReason::kStop : FinishReason::kLength;
    if (k == 0) events.back().cached_tokens = sequences_[ref]->cached_prompt;
    events.back().queued_ns = sequences_[ref]->queued_ns;
    request->events->push_many(events.data(), events.size());
  }
  retire(ref, SLUICE_EV_FINISH);
}

void EngineCore::commit_branching_decoder(uint64_t device_ns) {
  if (!SLUICE_HAS_FN(parts_.decoder, sluice_decoder_vtbl, commit)) return;
  decoder_seqs_.clear();
  std::vector<int32_t> tokens(committed_tokens_.begin(), committed_tokens_.end());
  for (const auto *sequence : committed_) decoder_seqs_.push_back(sequence->decoder_seq);
  for (const auto &[branch, token] : grown_) {
    decoder_seqs_.push_back(branch->decoder_seq);
    tokens.push_back(token);
  }
  std::vector<uint32_t> indptr(tokens.size() + 1);
  std::iota(indptr.begin(), indptr.end(), 0U);
  const std::vector<uint32_t> none(tokens.size(), 0);  // of drafts, which a decoder that branches makes none of
  sluice_decoder_commit told{};
  told.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_commit, draft_ns);
  told.n_seqs = static_cast<uint32_t>(tokens.size());
  told.seq = decoder_seqs_.data();
  told.tok_indptr = indptr.data();
  told.tok = tokens.data();
  told.n_drafted = none.data();
  told.n_accepted = none.data();
  told.step_ns = told.plain_ns = device_ns;
  if (auto heard = call({decoder_who_.c_str(), "commit"}, parts_.decoder->commit, parts_.decoder_instance, &told); !heard)
    note_plugin_error(heard.error());
}

std::string EngineCore::audit_branches(sluice_seq_ref ref) const {
  const auto &group = *groups_[ref];
  const auto &first = *sequences_[ref];
  if (first.state == SLUICE_SEQ_WAITING && group.common.size() != group.others.size())
    return fmt::format("sequence {} waits and {} branches do not know where they part", first.id, group.others.size());
  if (group.width() > std::max(first.request->n_branches, 1U))
    return fmt::format("sequence {} has {} branches of {}", first.id, group.width(), first.request->n_branches);
  for (const auto &branch : group.others) {
    if (branch->length() != first.length() || branch->request != first.request || branch->arrival != first.arrival)
      return fmt::format("branch {} of sequence {} is not like it", branch->id, first.id);
    const bool on_device = first.state == SLUICE_SEQ_RESIDENT || first.state == SLUICE_SEQ_MOVING_IN;
    const bool on_host = first.state != SLUICE_SEQ_RESIDENT && first.state != SLUICE_SEQ_WAITING;
    const uint32_t needed = blocks_for(branch->computed, limits_.block_size);
    const auto covers = [&](bool there, const std::vector<uint32_t> &blocks) {
      return there ? blocks.size() >= needed : blocks.empty();
    };
    if (branch->computed >= branch->length() || (first.state == SLUICE_SEQ_WAITING && branch->computed > 0) ||
        !covers(on_device, branch->blocks) || !covers(on_host, branch->host_blocks))
      return fmt::format("branch {} in state {} has {} computed of {} tokens in {} blocks and {} in swap space",
                         branch->id, first.state, branch->computed, branch->length(), branch->blocks.size(),
                         branch->host_blocks.size());
  }
  return {};
}

}  // namespace sluice::engine

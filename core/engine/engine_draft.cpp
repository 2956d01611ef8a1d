// EngineCore, drafts: asked for before a step, judged behind it. See walk.hpp for the judgement itself.
#include <fmt/format.h>

#include <algorithm>

#include "core/base/log.hpp"
#include "core/engine/core_pieces.hpp"
#include "core/engine/engine_core.hpp"
#include "core/engine/row_draws.hpp"

namespace sluice::engine {
namespace {

constexpr uint32_t kRoundsToJudge = 16;  // of a sequence
constexpr uint64_t kLookAgain = 32;      // steps

}  // namespace

Result<> check_draft_needs(const std::string &decoder, const sluice_decoder_needs &needs,
                           const sluice_model_info &info) {
  const auto lack = [&](std::string what) { return Error{Code::kUnsupported, decoder + ": " + what, {}}; };
  if ((needs.proposals == 0) != (needs.max_nodes == 0) || (needs.max_nodes > 0 && needs.max_depth == 0))
    return lack(fmt::format("its needs contradict each other: proposals {}, max_nodes {}, max_depth {}", needs.proposals,
                            needs.max_nodes, needs.max_depth));
  if ((info.caps & needs.caps) != needs.caps)
    return lack(fmt::format("it needs what the backend of {} cannot do (capabilities {:#x} of {:#x})", info.arch,
                            needs.caps & ~info.caps, needs.caps));
  if (needs.n_heads > info.n_heads)
    return lack(fmt::format("it uses {} draft heads, the model has {}; attach a file with heads to the model",
                            needs.n_heads, info.n_heads));
  return {};
}

Result<> EngineCore::create_drafting(const sluice_decoder_needs &needs, const sluice_model_info &info) {
  Drafting::Parts parts;
  parts.name = decoder_who_;
  parts.vtbl = parts_.decoder;
  parts.instance = parts_.decoder_instance;
  parts.needs = needs;
  parts.vocab_size = info.vocab_size;
  parts.n_heads = info.n_heads;
  parts.head_top = info.head_top;
  parts.chain = &chain_;
  if (needs.draft_model != nullptr) {
    if (!parts_.draft_model)
      return Error{Code::kUnsupported, fmt::format("{}: it wants the draft model '{}', and none was loaded for it",
                                                   decoder_who_, needs.draft_model), {}};
    auto model = DraftModel::create(*parts_.draft_model, info.vocab_size, limits_.block_size, pool_);
    if (!model) return model.error();
    parts.model = std::make_unique<DraftModel>(std::move(*model));
  }
  if (needs.verify == SLUICE_VERIFY_TYPICAL) chain_.expect_puts();
  drafting_ = std::make_unique<Drafting>(std::move(parts));
  draft_control_ = std::make_unique<DraftControl>(needs.max_nodes, (needs.flags & SLUICE_DECF_PINNED) != 0);
  return {};
}

/// Whether drafts are judged by the whole distribution of their rows, which then have to come to the host.
bool EngineCore::judges_rows(const DraftSeat &seat) const {
  return !seat.nodes.empty() &&
         (seat.trim == DraftTrim::kByOrder || drafting_->needs().verify == SLUICE_VERIFY_TYPICAL);
}

/// Tells the scheduler how many drafts each resident sequence would like, as far as they are likely to pay.
void EngineCore::fill_wishes() {
  if (drafting_->needs().max_nodes == 0) return;
  wishes_.clear();
  bool prompts = !waiting_.empty();
  for (const auto ref : buffers_.resident) {
    prompts |= table_.pending[ref] > 1;
    auto &sequence = *sequences_[ref];
    table_.draft_wish[ref] = 0;
    if (sequence.generated() == 0 || table_.pending[ref] != 1) continue;
    if (drafting_->damaged()) sequence.drafts_off = request::DraftsOff::kDamaged;
    const uint32_t wish = room_for_drafts(sequence, drafting_->wish(sequence));
    table_.draft_wish[ref] = wish > 0 && drafts_are_hopeless(sequence) ? 0 : wish;
    wishes_.push_back(table_.draft_wish[ref]);
  }
  const uint32_t cap = draft_control_->decide(wishes_, prompts ? last_prefill_ : 0);
  if (draft_control_->switched()) log::info("engine", "{}: {}", decoder_who_, draft_control_->why());
  for (const auto ref : buffers_.resident) {
    auto &sequence = *sequences_[ref];
    if (sequence.drafts_hopeless && !drafting_->damaged()) sequence.drafts_off = request::DraftsOff::kSequence;
    if (table_.draft_wish[ref] == 0) continue;
    if (!sequence.drafts_hopeless) sequence.drafts_off = draft_control_->reason();
    table_.draft_wish[ref] = std::min(table_.draft_wish[ref], cap);
  }
}

/// Whether a sequence's drafts bring much less than they cost, although those of others may pay. Looks again now and then.
bool EngineCore::drafts_are_hopeless(Sequence &sequence) {
  if (sequence.n_draft_rounds < kRoundsToJudge) return false;
  const bool was_hopeless = sequence.drafts_hopeless;
  sequence.drafts_hopeless =
      !draft_control_->pays(static_cast<double>(sequence.draft_gain), static_cast<double>(sequence.draft_nodes));
  if (!sequence.drafts_hopeless) return false;
  if (!was_hopeless) ++counters_.drafts_off_for_sequence;
  return (step_no_ + sequence.id) % kLookAgain != 0;
}

/// Lets the next decisions know what this step's drafts cost and brought.
void EngineCore::note_drafts(uint32_t prefill, uint32_t decode, uint64_t device_ns) {
  if (drafting_->needs().max_nodes == 0) return;
  uint32_t drafts = 0;
  for (size_t i = 0; i < batch_refs_.size(); ++i) {
    const uint32_t n = batch_.n_drafts(i);
    if (n == 0) continue;
    drafts += n;
    dead_.assign(n, 0);
    for (const uint32_t node : walks_[i].accepted) dead_[batch_.drafts(i)[node].rank] = 1;
    draft_control_->observe_ranks(dead_);
    const auto ref = batch_refs_[i];
    auto &sequence = *sequences_[ref];
    const auto right = static_cast<float>(walks_[i].accepted.size());
    sequence.draft_verify_ns += device_ns;
    const float share = 1.0F / static_cast<float>(std::min(++sequence.n_draft_rounds, kRoundsToJudge));
    sequence.draft_gain += share * (right - sequence.draft_gain);
    sequence.draft_nodes += share * (static_cast<float>(n) - sequence.draft_nodes);
    sequence.draft_acceptance += (right / static_cast<float>(n) - sequence.draft_acceptance) / 8;
    table_.draft_accept[ref] = static_cast<uint8_t>(255 * sequence.draft_acceptance);
  }
  last_prefill_ = prefill;
  const double plain = draft_control_->step_ns(decode - drafts);
  draft_control_->observe_step(decode - drafts, drafts, device_ns, drafting_ns_, prefill);
  if (prefill > 0) return;
  if (drafts == 0) {
    ++counters_.plain_steps, counters_.plain_ns += device_ns;
    return;
  }
  ++counters_.draft_steps;
  counters_.draft_verify_ns += device_ns;
  counters_.draft_plain_ns += plain > 0 ? static_cast<uint64_t>(plain) : device_ns;
  counters_.drafting_ns += drafting_ns_;
}

/// Drafts that the request, the cache and the step's rows have room for.
uint32_t EngineCore::room_for_drafts(const Sequence &sequence, uint32_t wanted) const {
  const uint32_t left = sequence.request->max_new - sequence.generated();
  if (left <= 1) return 0;  // the target's own token is the last
  if (!trees_) {
    if (batch_.keeps_history(sequence)) return 0;  // only in a tree does the backend count drafts for penalties
    wanted = std::min(wanted, left - 1);
  }
  if (max_tree_nodes_ != 0) wanted = std::min(wanted, max_tree_nodes_ - 1);  // the root is one
  const uint64_t cells = (uint64_t{sequence.blocks.size()} + pool_.available_blocks()) * limits_.block_size;
  const uint64_t taken = uint64_t{sequence.computed} + 1;
  wanted = static_cast<uint32_t>(std::min<uint64_t>(wanted, cells > taken ? cells - taken : 0));
  return std::min({wanted, rows_left_, drafting_->needs().max_nodes});
}

void EngineCore::take_seat(Sequence &sequence, uint32_t n_drafts) {
  const uint32_t needed = blocks_for(uint64_t{sequence.computed} + 1 + n_drafts, limits_.block_size);
  const auto held = static_cast<uint32_t>(sequence.blocks.size());
  if (needed > held) pool_.allocate(needed - held, sequence.blocks);
  rows_left_ -= n_drafts;
  DraftSeat seat;
  seat.sequence = &sequence;
  seat.budget = n_drafts;
  seat.max_depth = sequence.request->max_new - sequence.generated() - 1;
  const uint32_t sampled = SLUICE_PROPOSE_SAMPLED | SLUICE_PROPOSE_SAMPLED_IID;
  if (sequence.request->exact_rejection && (drafting_->needs().proposals & sampled) != 0)
    seat.trim = DraftTrim::kByOrder;
  seats_.push_back(std::move(seat));
}

void EngineCore::make_drafts() {
  drafting_ns_ = 0;
  if (seats_.empty()) return drafting_->forget();
  const uint64_t began = parts_.clock->now_ns();
  if (auto proposed = drafting_->propose(seats_); !proposed) note_draft_error(proposed.error());
  drafting_ns_ = parts_.clock->now_ns() - began;
  if (trees_) return;
  for (auto &seat : seats_) {  // what the backend takes is one child after the other
    dead_.assign(seat.nodes.size(), 0);
    for (size_t i = 0; i < seat.nodes.size(); ++i) dead_[i] = seat.nodes[i].parent != static_cast<int32_t>(i) - 1;
    drop_subtrees(seat.nodes, dead_);
  }
}

void EngineCore::note_draft_error(const PluginFailure &failure) {
  note_plugin_error({failure.error, false, {}});
  if (!drafting_->on())
    log::warn("engine", "{} is damaged and makes no more drafts; the model goes on without them", decoder_who_);
}

void EngineCore::fill_batch() {
  for (size_t i = 0; i < batch_refs_.size(); ++i) {
    auto &sequence = *batch_sequences_[i];
    if (groups_[batch_refs_[i]]) {
      batch_.add(sequence, batch_tokens_[i], ranked_by_backend(sequence) ? SLUICE_ROW_TOKEN : SLUICE_ROW_LOGITS_HOST);
      continue;
    }
    DraftSeat *seat = batch_seat_[i] < 0 ? nullptr : &seats_[static_cast<size_t>(batch_seat_[i])];
    const bool has_row = sequence.computed + batch_tokens_[i] == sequence.length();
    std::vector<uint32_t> masks;
    if (chain_.has_masks() && has_row) {
      const size_t n_words = (limits_.vocab_size + 31) / 32;
      const size_t n_drafts = seat == nullptr ? 0 : seat->nodes.size();
      masks.resize((n_drafts + 1) * n_words);
      dead_.assign(n_drafts + 1, 0);
      const auto drafts = seat == nullptr ? std::span<const DraftNode>{} : std::span<const DraftNode>(seat->nodes);
      auto filled = chain_.fill_masks(sequence, drafts, masks, dead_);
      if (!filled) {
        note_plugin_error(filled.error());
        sequence.row_error = filled.error().error;
      }
      // What was drawn has to be tried, or the residual is not that of the draw.
      if (seat != nullptr && seat->trim == DraftTrim::kByScore) drop_forbidden(*seat, masks);
    }
    const bool on_host = !chain_.lowered(sequence) || (seat != nullptr && judges_rows(*seat));
    const uint8_t want = static_cast<uint8_t>((on_host ? SLUICE_ROW_LOGITS_HOST : SLUICE_ROW_TOKEN) |
                                              (drafting_->needs().n_heads > 0 ? SLUICE_ROW_HEADS : 0));
    batch_.add(sequence, batch_tokens_[i], want,
               seat == nullptr ? std::span<const DraftNode>{} : std::span<const DraftNode>(seat->nodes), trees_);
    if (!masks.empty()) std::copy(masks.begin(), masks.end(), batch_.add_masks().begin());
  }
}

/// Leaves out drafts that a mask forbids, and their masks.
void EngineCore::drop_forbidden(DraftSeat &seat, std::vector<uint32_t> &masks) {
  if (std::find(dead_.begin(), dead_.end(), 1) == dead_.end()) return;
  const size_t n_words = (limits_.vocab_size + 31) / 32;
  const auto all = seat.nodes;
  drop_subtrees(seat.nodes, dead_);
  size_t kept = 0;
  for (size_t i = 0; i < all.size() && kept < seat.nodes.size(); ++i) {
    if (all[i].source != seat.nodes[kept].source) continue;
    std::copy_n(masks.begin() + static_cast<ptrdiff_t>((i + 1) * n_words), n_words,
                masks.begin() + static_cast<ptrdiff_t>((kept + 1) * n_words));
    ++kept;
  }
  masks.resize((seat.nodes.size() + 1) * n_words);
}

void EngineCore::walk_drafts() {
  walks_.resize(batch_refs_.size());
  for (size_t i = 0; i < batch_refs_.size(); ++i) {
    auto &walk = walks_[i];
    walk = {};
    if (batch_.row_of(i) < 0 || groups_[batch_refs_[i]]) continue;
    const auto &sequence = *sequences_[batch_refs_[i]];
    const WalkEnds ends{sequence.request->stop_tokens, sequence.request->max_new - sequence.generated()};
    if (batch_seat_[i] >= 0 && judges_rows(seats_[static_cast<size_t>(batch_seat_[i])])) {
      walk_rows(i, ends);
      continue;
    }
    row_tokens_.clear();
    const auto first = static_cast<size_t>(batch_.row_of(i));
    for (size_t k = 0; k <= batch_.n_drafts(i); ++k) row_tokens_.push_back(choices_[first + k].token);
    walk_match(batch_.drafts(i), row_tokens_, ends, walk);
  }
}

namespace {

/// The rows of one sequence after the last choose() of a chain.
class ChosenRows final : public WalkRows {
 public:
  ChosenRows(const SamplerChain &chain, const Drafting &drafting, std::span<const HostRow> rows, size_t first)
      : chain_(chain), drafting_(drafting), rows_(rows), first_(first) {}
  void probabilities(int32_t node, std::vector<double> &out) const override {
    const int32_t written = chain_.written(at(node));
    if (written < 0) return probabilities_of(chain_.processed(at(node)), out);
    out.assign(chain_.processed(at(node)).size(), 0);
    out[static_cast<size_t>(written)] = 1;
  }
  int32_t drawn(int32_t node) const override { return rows_[at(node)].choice->token; }
  DraftDistribution distribution(int32_t q) const override { return drafting_.distribution(q); }
  uint64_t seed() const override { return rows_[first_].sequence->seed(); }
  uint32_t position(int32_t node) const override { return rows_[at(node)].position; }

 private:
  size_t at(int32_t node) const { return first_ + static_cast<size_t>(node + 1); }

  const SamplerChain &chain_;
  const Drafting &drafting_;
  const std::span<const HostRow> rows_;
  const size_t first_;
};

}  // namespace

void EngineCore::walk_rows(size_t i, const WalkEnds &ends) {
  auto &walk = walks_[i];
  const auto &needs = drafting_->needs();
  const auto drafts = batch_.drafts(i);
  const ChosenRows rows(chain_, *drafting_, host_rows_, first_host_row_[i]);
  if (needs.verify == SLUICE_VERIFY_TYPICAL) {
    walk_typical(drafts, rows, static_cast<double>(needs.typical_epsilon), static_cast<double>(needs.typical_alpha),
                 ends, walk);
  } else {
    const bool independent = (needs.proposals & SLUICE_PROPOSE_SAMPLED_IID) != 0;
    walk_rejection(drafts, rows, independent ? Siblings::kIndependent : Siblings::kWithoutReplacement, ends, walk);
  }
  for (size_t k = 0; k < walk.tokens.size(); ++k) {
    const auto &row = host_rows_[first_host_row_[i] + (k == 0 ? 0 : walk.accepted[k - 1] + 1)];
    if (row.choice->token != walk.tokens[k]) chain_.put(row, walk.tokens[k]);
  }
}

/// Puts the keys and values of accepted drafts where their tokens stand.
PluginResult EngineCore::move_accepted() {
  move_ops_.clear();
  move_src_.clear();
  move_dst_.clear();
  for (size_t i = 0; i < batch_refs_.size(); ++i) {
    const auto &sequence = *sequences_[batch_refs_[i]];
    const auto slot = [&](uint32_t cell) {
      return sequence.blocks[cell / limits_.block_size] * limits_.block_size + cell % limits_.block_size;
    };
    for (uint32_t k = 0; k < walks_[i].accepted.size(); ++k) {
      if (walks_[i].accepted[k] == k) continue;
      move_ops_.push_back(SLUICE_KV_MOVE_SLOTS);
      move_src_.push_back(slot(sequence.computed + 1 + walks_[i].accepted[k]));
      move_dst_.push_back(slot(sequence.computed + 1 + k));
    }
  }
  if (move_ops_.empty()) return {};
  sluice_kv_batch moves{};
  moves.struct_size = SLUICE_SIZE_THROUGH(sluice_kv_batch, keep_len);
  moves.n = static_cast<uint32_t>(move_ops_.size());
  moves.op = move_ops_.data();
  moves.src = move_src_.data();
  moves.dst = move_dst_.data();
  sluice_ticket ticket = 0;
  return call({backend_who_.c_str(), "kv_ops"}, parts_.backend->kv_ops, parts_.model, &moves, &ticket);
}

/// Lets go of blocks that only rejected drafts used.
void EngineCore::give_back_tail(Sequence &sequence) {
  const uint32_t needed = blocks_for(std::max(sequence.computed + 1, 1U), limits_.block_size);
  if (seats_.empty() || sequence.blocks.size() <= needed) return;
  std::vector<uint32_t> tail(sequence.blocks.begin() + needed, sequence.blocks.end());
  sequence.blocks.resize(needed);
  pool_.free(tail);
}

void EngineCore::commit_decoder(uint64_t device_ns) {
  if (limits_.max_branches > 1) return commit_branching_decoder(device_ns);
  if (!SLUICE_HAS_FN(parts_.decoder, sluice_decoder_vtbl, commit) || drafting_->damaged()) return;
  decoder_seqs_.clear();
  decoder_drafted_.clear();
  decoder_accepted_.clear();
  node_accepted_.assign(drafting_->n_nodes(), 0);
  size_t next = 0;
  for (size_t i = 0; i < batch_refs_.size() && next < committed_refs_.size(); ++i) {
    if (committed_refs_[next] != batch_refs_[i]) continue;
    auto &sequence = *committed_[next++];
    decoder_seqs_.push_back(sequence.decoder_seq);
    decoder_drafted_.push_back(batch_.n_drafts(i));
    decoder_accepted_.push_back(static_cast<uint32_t>(walks_[i].accepted.size()));
    for (const uint32_t node : walks_[i].accepted) node_accepted_[batch_.drafts(i)[node].source] = 1;
    sequence.n_drafted += decoder_drafted_.back();
    sequence.n_accepted += decoder_accepted_.back();
    counters_.draft_tokens += decoder_drafted_.back();
    counters_.draft_accepted_tokens += decoder_accepted_.back();
    if (decoder_drafted_.back() > 0) ++counters_.draft_rounds;
  }
  sluice_decoder_commit told{};
  told.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_commit, draft_ns);
  told.n_seqs = static_cast<uint32_t>(decoder_seqs_.size());
  told.seq = decoder_seqs_.data();
  told.tok_indptr = committed_indptr_.data();
  told.tok = committed_tokens_.data();
  told.n_drafted = decoder_drafted_.data();
  told.n_accepted = decoder_accepted_.data();
  told.n_nodes = static_cast<uint32_t>(node_accepted_.size());
  told.node_accepted = node_accepted_.data();
  told.step_ns = device_ns;
  const double plain = draft_control_->step_ns(static_cast<uint32_t>(batch_refs_.size()));
  told.plain_ns = plain > 0 ? static_cast<uint64_t>(plain) : device_ns;
  told.draft_ns = drafting_->draft_ns();
  if (auto heard = call({decoder_who_.c_str(), "commit"}, parts_.decoder->commit, parts_.decoder_instance, &told); !heard) {
    drafting_->failed(heard.error());
    note_draft_error(heard.error());
  }
}

}  // namespace sluice::engine

#include "core/engine/drafting.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/engine/core_pieces.hpp"
#include "core/engine/row_draws.hpp"

namespace sluice::engine {

Drafting::Drafting(Parts parts) : parts_(std::move(parts)), tree_(parts_.needs, parts_.vocab_size) {}

uint32_t Drafting::wish(const Sequence &sequence) const {
  if (!on()) return 0;
  if (parts_.needs.n_heads > 0 && sequence.head_ids.empty()) return 0;
  if (!SLUICE_HAS_FN(parts_.vtbl, sluice_decoder_vtbl, wish)) return parts_.needs.max_nodes;
  uint32_t wished = 0;
  if (!call_void({parts_.name.c_str(), "wish"},
                 [&] { wished = parts_.vtbl->wish(parts_.instance, sequence.decoder_seq); }))
    return 0;  // it threw: a sequence without drafts is a sequence still
  return std::min(wished, parts_.needs.max_nodes);
}

void Drafting::forget() {
  tree_.open(0);
  draft_ns_ = 0;
}

DraftDistribution Drafting::distribution(int32_t q) const {
  if (tree_.has_own_q()) return tree_.own_q(static_cast<uint32_t>(q));
  return {q_rows_[static_cast<size_t>(q)], {}, {}};
}

PluginResult Drafting::propose(std::span<DraftSeat> seats) {
  forget();
  active_.clear();
  n_q_rows_ = 0;
  for (auto &seat : seats) {
    seat.nodes.clear();
    seat.fed.clear();
    seat.fed_in_line = true;
  }
  if (seats.empty() || !on()) return {};
  auto asked = run_rounds(seats);
  if (!asked) {
    failed(asked.error());
    tree_.open(0);
    return asked;
  }
  for (uint32_t i = 0; i < active_.size(); ++i) {
    auto &seat = seats[active_[i]];
    tree_.take(i, seat.budget, seat.max_depth, seat.trim, seat.nodes);
  }
  return {};
}

PluginResult Drafting::run_rounds(std::span<DraftSeat> seats) {
  if (parts_.model) {
    if (auto r = feed_roots(seats); !r) return r;
  } else {
    for (uint32_t i = 0; i < seats.size(); ++i) active_.push_back(i);
  }
  if (active_.empty()) return {};
  tree_.open(static_cast<uint32_t>(active_.size()));
  was_fed_.clear();
  for (uint32_t round = 0;; ++round) {
    if (auto r = ask(seats, round); !r) return r;
    if (!parts_.model || round == parts_.needs.max_rounds) return {};
    choose_what_to_feed(seats);
    if (std::all_of(to_feed_.begin(), to_feed_.end(), [](const auto &nodes) { return nodes.empty(); })) return {};
    if (auto r = feed_nodes(seats); !r) return r;
  }
}

PluginResult Drafting::ask(std::span<const DraftSeat> seats, uint32_t round) {
  fill_in(seats, round);
  if (auto r = call({parts_.name.c_str(), "draft"}, parts_.vtbl->draft, parts_.instance, &in_, tree_.again()); !r) return r;
  if (auto wrong = tree_.check(n_q_rows_); !wrong.empty())
    return PluginFailure{{Code::kInternal, parts_.name + ": draft: " + wrong, {}}, false, parts_.name};
  return {};
}

void Drafting::fill_in(std::span<const DraftSeat> seats, uint32_t round) {
  seqs_.clear();
  budget_.clear();
  root_token_.clear();
  root_position_.clear();
  head_ids_.clear();
  head_logprobs_.clear();
  for (const uint32_t i : active_) {
    const auto &sequence = *seats[i].sequence;
    seqs_.push_back(sequence.decoder_seq);
    budget_.push_back(seats[i].budget);
    root_token_.push_back(sequence.tokens.back());
    root_position_.push_back(sequence.length() - 1);
    head_ids_.insert(head_ids_.end(), sequence.head_ids.begin(), sequence.head_ids.end());
    head_logprobs_.insert(head_logprobs_.end(), sequence.head_logprobs.begin(), sequence.head_logprobs.end());
  }
  in_ = {};
  in_.struct_size = SLUICE_SIZE_THROUGH(sluice_draft_in, head_top);
  in_.round = round;
  in_.n_seqs = static_cast<uint32_t>(active_.size());
  in_.seq = seqs_.data();
  in_.budget = budget_.data();
  in_.root_token = root_token_.data();
  in_.root_position = root_position_.data();
  if (parts_.model) {
    in_.n_fed = static_cast<uint32_t>(fed_node_.size());
    in_.fed_node = fed_node_.data();
    in_.fed_token = fed_token_.data();
    in_.fed_q = fed_q_.data();
    in_.fed_top_ids = fed_top_ids_.data();
    in_.fed_top_logprobs = fed_top_logprobs_.data();
    in_.draws = parts_.needs.draws;
    in_.n_top = parts_.needs.n_top;
  }
  if (parts_.needs.n_heads == 0) return;
  in_.head_ids = head_ids_.data();
  in_.head_logprobs = head_logprobs_.data();
  in_.n_heads = parts_.n_heads;
  in_.head_top = parts_.head_top;
}

// ---- the draft model ----

PluginResult Drafting::feed_roots(std::span<DraftSeat> seats) {
  auto &model = *parts_.model;
  model.begin();
  fed_.clear();
  std::vector<std::pair<uint32_t, uint32_t>> fed_up_to;  // seat, tokens
  uint32_t left = model.max_tokens();
  for (uint32_t i = 0; i < seats.size() && left > 0; ++i) {
    const auto &sequence = *seats[i].sequence;
    const uint32_t known = model.known(sequence);
    const uint32_t lacks = sequence.length() - std::min(known, sequence.length() - 1);
    const uint32_t n = std::min(lacks, left);
    if (known == sequence.length()) model.has(sequence, known - 1);  // the root's row is wanted again
    const bool whole = n == lacks;
    if (!model.add_text(sequence, n, whole)) continue;
    left -= n;
    fed_up_to.emplace_back(i, sequence.length() - lacks + n);
    if (!whole) continue;  // a long text comes in pieces, and has no drafts meanwhile
    fed_.push_back({static_cast<uint32_t>(active_.size()), -1 - static_cast<int32_t>(active_.size())});
    active_.push_back(i);
  }
  if (model.empty()) return {};
  if (auto r = model.run(); !r) return r;
  draft_ns_ += model.device_ns();
  for (const auto &[i, n] : fed_up_to) model.has(*seats[i].sequence, n);
  return take_outcomes(seats);
}

uint32_t Drafting::depth_of(int32_t node) const {
  uint32_t depth = 0;
  for (; node >= 0; node = tree_.parent(static_cast<uint32_t>(node))) ++depth;
  return depth;
}

/// Nodes that ask for it, hang on the root or on one that is fed, and have a cell.
void Drafting::choose_what_to_feed(std::span<const DraftSeat> seats) {
  was_fed_.resize(tree_.size(), 0);
  to_feed_.assign(active_.size(), {});
  for (uint32_t node = 0; node < tree_.size(); ++node) {
    if (!tree_.feeds(node) || was_fed_[node] != 0) continue;
    const auto &seat = seats[active_[tree_.seq(node)]];
    auto &own = to_feed_[tree_.seq(node)];
    const int32_t parent = tree_.parent(node);
    if (parent >= 0 && was_fed_[static_cast<size_t>(parent)] == 0) continue;
    if (seat.fed.size() + own.size() >= std::min(seat.budget, parts_.needs.max_fed)) continue;
    if (depth_of(static_cast<int32_t>(node)) >= seat.max_depth) continue;  // nothing may follow it
    const auto &before = own.empty() ? seat.fed : own;
    const bool in_line = seat.fed_in_line && (before.empty() ? parent < 0 : parent == static_cast<int32_t>(before.back()));
    if (!in_line && !parts_.model->trees()) continue;
    was_fed_[node] = 1;
    own.push_back(node);
  }
}

void Drafting::add_to_step(DraftSeat &seat, std::span<const uint32_t> nodes) {
  for (const uint32_t node : nodes) {
    const int32_t parent = tree_.parent(node);
    const int32_t last = seat.fed.empty() ? -1 : static_cast<int32_t>(seat.fed.back());
    seat.fed_in_line &= parent == last;
    seat.fed.push_back(node);
  }
  feed_tokens_.clear();
  feed_parents_.clear();
  const uint32_t length = seat.sequence->length();
  const auto n_new = static_cast<uint32_t>(nodes.size());
  if (seat.fed_in_line) {
    for (const uint32_t node : nodes) feed_tokens_.push_back(tree_.token(node));
    parts_.model->add_drafts(*seat.sequence, length + static_cast<uint32_t>(seat.fed.size()) - n_new, feed_tokens_, {},
                             n_new);
    return;
  }
  // A cache is one path, so branches are run anew with everything above them.
  for (const uint32_t node : seat.fed) {
    feed_tokens_.push_back(tree_.token(node));
    const auto above = std::find(seat.fed.begin(), seat.fed.end(), static_cast<uint32_t>(tree_.parent(node)));
    feed_parents_.push_back(tree_.parent(node) < 0 ? -1 : static_cast<int32_t>(above - seat.fed.begin()));
  }
  parts_.model->add_drafts(*seat.sequence, length, feed_tokens_, feed_parents_, n_new);
}

PluginResult Drafting::feed_nodes(std::span<DraftSeat> seats) {
  auto &model = *parts_.model;
  model.begin();
  fed_.clear();
  for (uint32_t i = 0; i < active_.size(); ++i) {
    if (to_feed_[i].empty()) continue;
    add_to_step(seats[active_[i]], to_feed_[i]);
    for (const uint32_t node : to_feed_[i]) fed_.push_back({i, static_cast<int32_t>(node)});
  }
  if (auto r = model.run(); !r) return r;
  draft_ns_ += model.device_ns();
  return take_outcomes(seats);
}

/// Draws from the rows of the step as the request's own samplers leave them, so that draft and target want the same.
PluginResult Drafting::take_outcomes(std::span<const DraftSeat> seats) {
  const auto &model = *parts_.model;
  if (passing_row_.empty()) {  // stands for rows on the way, of which only the token counts
    passing_row_.assign(parts_.vocab_size, sdk::kRemoved);
    passing_row_[0] = 0;
  }
  rows_.clear();
  row_of_fed_.clear();
  for (size_t i = 0; i < fed_.size();) {
    const uint32_t active = fed_[i].active;
    const auto &seat = seats[active_[active]];
    HostRow row{seat.sequence, passing_row_.data(), nullptr, nullptr, seat.sequence->length(), -1, -1, true};
    const auto root = static_cast<int32_t>(rows_.size());
    const bool with_path = parts_.chain->stateful() && fed_[i].node >= 0;
    if (with_path) {
      rows_.push_back(row);
      for (size_t k = 0; k < seat.fed.size(); ++k) {  // in the order of seat.fed, new ones last
        const int32_t parent = tree_.parent(seat.fed[k]);
        const auto above = std::find(seat.fed.begin(), seat.fed.end(), static_cast<uint32_t>(parent)) - seat.fed.begin();
        row.parent = parent < 0 ? root : root + 1 + static_cast<int32_t>(above);
        row.token = tree_.token(seat.fed[k]);
        row.position = seat.sequence->length() + depth_of(static_cast<int32_t>(seat.fed[k]));
        rows_.push_back(row);
      }
    }
    for (; i < fed_.size() && fed_[i].active == active; ++i) {
      if (!with_path) {
        row.position = seat.sequence->length() + depth_of(fed_[i].node);
        rows_.push_back(row);
      }
      const auto at = std::find(seat.fed.begin(), seat.fed.end(), static_cast<uint32_t>(fed_[i].node));
      row_of_fed_.push_back(with_path ? static_cast<size_t>(root) + 1 + static_cast<size_t>(at - seat.fed.begin())
                                      : rows_.size() - 1);
      rows_[row_of_fed_.back()].logits = model.row(static_cast<uint32_t>(i));
    }
  }
  fed_node_.clear();
  fed_token_.clear();
  fed_q_.clear();
  fed_top_ids_.clear();
  fed_top_logprobs_.clear();
  if (fed_.empty()) return {};
  if (auto r = parts_.chain->choose(rows_); !r) return r;
  for (size_t i = 0; i < fed_.size(); ++i) {
    fed_node_.push_back(fed_[i].node);
    draw(seats[active_[fed_[i].active]], row_of_fed_[i], rows_[row_of_fed_[i]].position);
    if (parts_.needs.n_top > 0) list_best(model.row(static_cast<uint32_t>(i)));
  }
  return {};
}

void Drafting::draw(const DraftSeat &seat, size_t host_row, uint32_t position) {
  const bool exact = seat.trim == DraftTrim::kByOrder;
  const auto row = parts_.chain->processed(host_row);
  const int32_t written = parts_.chain->written(host_row);
  const uint32_t n = parts_.needs.draws;
  const size_t first = fed_token_.size();
  fed_token_.resize(first + n, -1);
  if (n > 0 && written >= 0) fed_token_[first] = written;
  if (written < 0)
    draw_distinct(row, n, seat.sequence->seed(), position, exact ? SLUICE_RNG_DRAFT : SLUICE_RNG_DRAW,
                  fed_token_.data() + first);
  fed_q_.push_back(exact ? static_cast<int32_t>(n_q_rows_) : -1);
  if (!exact) return;
  if (q_rows_.size() == n_q_rows_) q_rows_.emplace_back();
  auto &q = q_rows_[n_q_rows_++];
  if (written < 0) return probabilities_of(row, q);
  q.assign(parts_.vocab_size, 0);
  q[static_cast<size_t>(written)] = 1;
}

void Drafting::list_best(const float *logits) {
  static constexpr sluice_sample_spec kRaw = {SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind), 0, 0, {}, 1, 0, 1,
                                              0, 1, 0, 0, 0, 0, 0, SLUICE_LOGPROBS_RAW};
  best_row_.assign(logits, logits + parts_.vocab_size);
  auto spec = kRaw;
  spec.n_logprobs = parts_.needs.n_top;
  ranker_.run(best_row_.data(), parts_.vocab_size, spec);
  const size_t first = fed_top_ids_.size();
  fed_top_ids_.resize(first + spec.n_logprobs);
  fed_top_logprobs_.resize(first + spec.n_logprobs);
  ranker_.top(spec.n_logprobs, fed_top_ids_.data() + first, fed_top_logprobs_.data() + first);
}

void Drafting::settle(const DraftSeat &seat, uint32_t length, std::span<const uint32_t> accepted) {
  if (!parts_.model || !seat.fed_in_line) return;
  uint32_t kept = 0;
  while (kept < seat.fed.size() && kept < accepted.size() && seat.nodes[accepted[kept]].source == seat.fed[kept]) ++kept;
  if (kept > 0) parts_.model->has(*seat.sequence, length + kept);
}

PluginResult Drafting::follow(const sluice_kv_batch &batch) {
  if (!parts_.model || damaged_) return {};
  auto followed = parts_.model->follow(batch);
  if (!followed) failed(followed.error());
  return followed;
}

// ---- heads ----

void Drafting::keep_heads(Sequence &sequence, const sluice_step_result &result, uint32_t row) const {
  if (parts_.needs.n_heads == 0) return;
  const size_t n = size_t{parts_.n_heads} * parts_.head_top;
  sequence.head_ids.clear();
  sequence.head_logprobs.clear();
  if (result.head_ids == nullptr || result.head_logprobs == nullptr) return;
  const int32_t *ids = result.head_ids + row * n;
  if (ids[0] < 0) return;  // not known
  sequence.head_ids.assign(ids, ids + n);
  sequence.head_logprobs.assign(result.head_logprobs + row * n, result.head_logprobs + (row + 1) * n);
  for (size_t i = 0; i < n; ++i) {
    auto &id = sequence.head_ids[i];
    auto &logprob = sequence.head_logprobs[i];
    const bool known = id >= 0 && id < static_cast<int32_t>(parts_.vocab_size) && is_logprob(logprob);
    if (!known) id = -1, logprob = -std::numeric_limits<float>::infinity();
  }
}

}  // namespace sluice::engine

#include "core/engine/drafting.hpp"

#include <algorithm>

namespace sluice::engine {

Drafting::Drafting(Parts parts) : parts_(std::move(parts)), tree_(parts_.needs, parts_.vocab_size) {}

uint32_t Drafting::wish(const Sequence &sequence) const {
  if (!on()) return 0;
  if (parts_.needs.n_heads > 0 && sequence.head_ids.empty()) return 0;
  if (!SLUICE_HAS_FN(parts_.vtbl, sluice_decoder_vtbl, wish)) return parts_.needs.max_nodes;
  uint32_t wished = 0;
  try {
    wished = parts_.vtbl->wish(parts_.instance, sequence.decoder_seq);
  } catch (...) {
    return 0;  // draft() will throw as well, and says so
  }
  return std::min(wished, parts_.needs.max_nodes);
}

void Drafting::fill_in(std::span<const DraftSeat> seats) {
  seqs_.clear();
  budget_.clear();
  root_token_.clear();
  root_position_.clear();
  head_ids_.clear();
  head_logprobs_.clear();
  for (const auto &seat : seats) {
    const auto &sequence = *seat.sequence;
    seqs_.push_back(sequence.decoder_seq);
    budget_.push_back(seat.budget);
    root_token_.push_back(sequence.tokens.back());
    root_position_.push_back(sequence.length() - 1);
    head_ids_.insert(head_ids_.end(), sequence.head_ids.begin(), sequence.head_ids.end());
    head_logprobs_.insert(head_logprobs_.end(), sequence.head_logprobs.begin(), sequence.head_logprobs.end());
  }
  in_ = {};
  in_.struct_size = SLUICE_SIZE_THROUGH(sluice_draft_in, head_top);
  in_.n_seqs = static_cast<uint32_t>(seats.size());
  in_.seq = seqs_.data();
  in_.budget = budget_.data();
  in_.root_token = root_token_.data();
  in_.root_position = root_position_.data();
  if (parts_.needs.n_heads == 0) return;
  in_.head_ids = head_ids_.data();
  in_.head_logprobs = head_logprobs_.data();
  in_.n_heads = parts_.n_heads;
  in_.head_top = parts_.head_top;
}

PluginResult Drafting::propose(std::span<DraftSeat> seats) {
  for (auto &seat : seats) seat.nodes.clear();
  tree_.open(static_cast<uint32_t>(seats.size()));
  if (seats.empty() || !on()) return {};
  fill_in(seats);
  auto asked = call(parts_.name.c_str(), parts_.vtbl->draft, parts_.instance, &in_, tree_.again());
  if (asked) {
    if (auto wrong = tree_.check(0); !wrong.empty())
      asked = PluginFailure{{Code::kInternal, parts_.name + ": draft: " + wrong, {}}, false};
  }
  if (!asked) {
    failed(asked.error());
    tree_.open(0);
    return asked;
  }
  for (uint32_t i = 0; i < seats.size(); ++i)
    tree_.take(i, seats[i].budget, seats[i].max_depth, seats[i].trim, seats[i].nodes);
  return {};
}

void Drafting::keep_heads(Sequence &sequence, const sluice_step_result &result, uint32_t row) const {
  if (parts_.needs.n_heads == 0) return;
  const size_t n = size_t{parts_.n_heads} * parts_.head_top;
  sequence.head_ids.clear();
  sequence.head_logprobs.clear();
  if (result.head_ids == nullptr || result.head_logprobs == nullptr) return;
  const int32_t *ids = result.head_ids + row * n;
  if (ids[0] < 0) return;  // not known
  sequence.head_ids.assign(ids, ids + n);
  for (auto &id : sequence.head_ids)
    if (id < -1 || id >= static_cast<int32_t>(parts_.vocab_size)) id = -1;
  sequence.head_logprobs.assign(result.head_logprobs + row * n, result.head_logprobs + (row + 1) * n);
}

}  // namespace sluice::engine

#include "core/engine/sampler_chain.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/plugin/options.hpp"

namespace sluice::engine {
namespace {

constexpr uint32_t kMaxBias = 65536;  // pairs; far above what a request may carry

bool row_allows(const uint32_t *mask, uint32_t token) { return (mask[token / 32] >> (token % 32) & 1U) != 0; }

}  // namespace

SamplerChain::SamplerChain(std::vector<SamplerPort> samplers, const sluice_sample_caps &caps, uint32_t vocab_size)
    : samplers_(std::move(samplers)), caps_(caps), vocab_size_(vocab_size) {
  for (const auto &sampler : samplers_) {
    call_names_.push_back("sampler " + sampler.name);
    has_masks_ |= SLUICE_HAS_FN(sampler.vtbl, sluice_sampler_vtbl, fill_masks);
    relowers_ |= (sampler.vtbl->flags & SLUICE_SMPF_RELOWER) != 0;
    stateful_ |= (sampler.vtbl->flags & SLUICE_SMPF_STATEFUL) != 0;
  }
}

PluginResult SamplerChain::open(Sequence &sequence) {
  const auto &request = *sequence.request;
  sluice_seq_start start{};
  start.struct_size = SLUICE_SIZE_THROUGH(sluice_seq_start, request);
  start.n_prompt = sequence.prompt_len();
  start.seq = sequence.id;
  start.request_id = request.id;
  start.seed = sequence.seed();
  start.answer_index = sequence.answer;
  start.n_answers = request.n_answers;
  start.max_new = request.max_new;
  start.n_stop = static_cast<uint32_t>(request.stop_tokens.size());
  start.prompt = request.prompt.data();
  start.stop_tokens = request.stop_tokens.data();
  for (size_t i = 0; i < samplers_.size(); ++i) {
    const bool has_options = i < request.sampler_options.size() && request.sampler_options[i] != nullptr;
    start.request = has_options ? request.sampler_options[i]->handle() : nullptr;
    sluice_sampler_seq *seq = nullptr;
    auto opened = call({call_names_[i].c_str(), "seq_open"}, samplers_[i].vtbl->seq_open, samplers_[i].instance, &start, &seq);
    if (!opened) {
      close(sequence);
      return opened;
    }
    sequence.sampler_seqs.push_back(seq);
  }
  auto lowered = lower(sequence);
  if (!lowered) close(sequence);
  return lowered;
}

PluginResult SamplerChain::close(Sequence &sequence) {
  PluginResult all;
  for (size_t i = 0; i < sequence.sampler_seqs.size(); ++i)
    if (auto closed = call_void({call_names_[i].c_str(), "seq_close"}, samplers_[i].vtbl->seq_close,
                                samplers_[i].instance, sequence.sampler_seqs[i]);
        !closed)
      all = closed;
  sequence.sampler_seqs.clear();
  return all;
}

PluginResult SamplerChain::lower(Sequence &sequence) {
  const auto &request = *sequence.request;
  auto &spec = sequence.spec;
  spec = {};
  spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  spec.temperature = 1.0F;
  spec.top_p = 1.0F;
  spec.repetition = 1.0F;
  spec.logprobs_kind = SLUICE_LOGPROBS_RAW;
  sequence.n_lowered = 0;

  const bool device_logprobs = request.n_top_logprobs <= caps_.max_logprobs &&
                               (caps_.logprobs_kinds >> SLUICE_LOGPROBS_RAW & 1U) != 0;
  const bool device_draws = (caps_.forms & SLUICE_ROW_TOKEN) != 0 && (caps_.flags & SLUICE_SCF_CANONICAL_DRAW) != 0;
  const bool device_masks = has_masks_ && (caps_.stages & SLUICE_STAGE_BIT(SLUICE_STAGE_MASK)) != 0;
  if (device_masks) spec.stage[spec.n_stages++] = SLUICE_STAGE_MASK;
  for (size_t i = 0; i < samplers_.size(); ++i) {
    const auto *vtbl = samplers_[i].vtbl;
    if (SLUICE_HAS(vtbl, sluice_sampler_vtbl, flags) && (vtbl->flags & SLUICE_SMPF_MASKS) != 0) {
      if (!device_masks) break;  // masks run on the host, so everything after them does
      ++sequence.n_lowered;
      continue;
    }
    if (!SLUICE_HAS_FN(vtbl, sluice_sampler_vtbl, lower)) break;
    const sluice_sample_spec before = spec;
    auto result = call({call_names_[i].c_str(), "lower"}, vtbl->lower, samplers_[i].instance, sequence.sampler_seqs[i], &caps_,
                       &spec);
    if (!result) {
      spec = before;
      if (result.error().error.code != Code::kUnsupported) return result;
      break;
    }
    if (spec.n_stages > SLUICE_MAX_STAGES || spec.n_stages < before.n_stages ||
        std::memcmp(spec.stage, before.stage, before.n_stages) != 0) {
      return PluginFailure{{Code::kInternal, call_names_[i] + ": lower changed stages that were already there", {}},
                           true, call_names_[i]};
    }
    ++sequence.n_lowered;
  }
  // Raw log-probabilities need the row before any stage, and only the canonical draw repeats elsewhere.
  const bool all = sequence.n_lowered == samplers_.size();
  const bool may_put = expects_puts_ || request.exact_rejection;
  if (!all || !device_draws || (request.want_logprobs && (!device_logprobs || may_put))) {
    if (request.want_logprobs || all) {
      sequence.n_lowered = 0;
      spec.n_stages = 0;
    }
  } else if (request.want_logprobs) {
    spec.flags |= SLUICE_SPF_LOGPROB;
    spec.n_logprobs = request.n_top_logprobs;
  }
  return ask_bias(sequence);
}

PluginResult SamplerChain::ask_bias(Sequence &sequence) {
  sequence.bias_token.clear();
  sequence.bias_value.clear();
  const auto *stages = sequence.spec.stage;
  if (std::find(stages, stages + sequence.spec.n_stages, SLUICE_STAGE_BIAS) == stages + sequence.spec.n_stages)
    return {};
  for (size_t i = 0; i < sequence.n_lowered; ++i) {
    const auto *vtbl = samplers_[i].vtbl;
    if (!SLUICE_HAS_FN(vtbl, sluice_sampler_vtbl, bias)) continue;
    uint32_t n = 1024;
    for (;;) {
      const size_t at = sequence.bias_token.size();
      uint32_t room = n;
      sequence.bias_token.resize(at + room);
      sequence.bias_value.resize(at + room);
      auto result = call({call_names_[i].c_str(), "bias"}, vtbl->bias, samplers_[i].instance, sequence.sampler_seqs[i],
                         sequence.bias_token.data() + at, sequence.bias_value.data() + at, &room);
      if (result && room > n)
        return PluginFailure{{Code::kInternal, call_names_[i] + ": bias says more pairs than it had room for", {}}, true,
                             call_names_[i]};
      const size_t kept = result ? room : 0;
      sequence.bias_token.resize(at + kept);
      sequence.bias_value.resize(at + kept);
      if (result) break;
      if (result.error().error.code != Code::kResourceExhausted || room <= n || room > kMaxBias) return result;
      n = room;
    }
  }
  for (const int32_t token : sequence.bias_token)
    if (token < 0 || static_cast<uint32_t>(token) >= vocab_size_)
      return PluginFailure{{Code::kInternal, "a sampler's bias names token " + std::to_string(token) +
                                                 ", the vocabulary has " + std::to_string(vocab_size_), {}}, true, {}};
  return {};
}

PluginResult SamplerChain::fill_masks(const Sequence &sequence, std::span<const DraftNode> drafts,
                                      std::span<uint32_t> words, std::span<uint8_t> dead) const {
  std::fill(words.begin(), words.end(), 0xFFFFFFFFU);
  std::fill(dead.begin(), dead.end(), uint8_t{0});
  std::vector<int32_t> token, parent;
  for (const auto &draft : drafts) token.push_back(draft.token), parent.push_back(draft.parent);
  for (size_t i = 0; i < samplers_.size(); ++i) {
    const auto *vtbl = samplers_[i].vtbl;
    if (!SLUICE_HAS_FN(vtbl, sluice_sampler_vtbl, fill_masks)) continue;
    auto result = call({call_names_[i].c_str(), "fill_masks"}, vtbl->fill_masks, samplers_[i].instance, sequence.sampler_seqs[i],
                       static_cast<uint32_t>(drafts.size()), static_cast<const int32_t *>(token.data()),
                       static_cast<const int32_t *>(parent.data()), words.data(), (vocab_size_ + 31) / 32, dead.data());
    if (!result) return result;
  }
  return {};
}

PluginResult SamplerChain::choose(std::span<const HostRow> rows) {
  const size_t n_words = (vocab_size_ + 31) / 32;
  rows_.resize(rows.size() * vocab_size_);
  for (size_t r = 0; r < rows.size(); ++r) {
    float *row = rows_.data() + r * vocab_size_;
    std::memcpy(row, rows[r].logits, sizeof(float) * vocab_size_);
    const auto &spec = rows[r].sequence->spec;
    const bool masked_below =
        std::find(spec.stage, spec.stage + spec.n_stages, SLUICE_STAGE_MASK) != spec.stage + spec.n_stages;
    if (rows[r].mask != nullptr && (rows[r].raw || !masked_below))
      for (uint32_t v = 0; v < vocab_size_; ++v)
        if (!row_allows(rows[r].mask, v)) row[v] = -std::numeric_limits<float>::infinity();
  }

  token_.assign(rows.size(), -1);
  for (size_t stage = 0; stage < samplers_.size(); ++stage) {
    const auto &sampler = samplers_[stage];
    if ((sampler.vtbl->flags & SLUICE_SMPF_MASKS) != 0) continue;
    index_.clear();
    for (size_t r = 0; r < rows.size(); ++r)
      if (rows[r].raw || rows[r].sequence->n_lowered <= stage) index_.push_back(static_cast<uint32_t>(r));  // paths stay whole
    if (std::all_of(index_.begin(), index_.end(), [&](uint32_t r) { return token_[r] >= 0; })) continue;

    // The rows of one call lie together; rows that were lowered past this stage stay where they are.
    const auto n = static_cast<uint32_t>(index_.size());
    for (uint32_t i = 0; i < n; ++i)
      if (index_[i] != i) {
        std::swap_ranges(rows_.begin() + static_cast<ptrdiff_t>(i) * vocab_size_,
                         rows_.begin() + static_cast<ptrdiff_t>(i + 1) * vocab_size_,
                         rows_.begin() + static_cast<ptrdiff_t>(index_[i]) * vocab_size_);
      }
    seqs_.clear();
    seed_.clear();
    position_.clear();
    row_mask_.clear();
    mask_words_.clear();
    row_parent_.clear();
    row_token_.clear();
    place_.assign(rows.size(), -1);
    for (uint32_t i = 0; i < n; ++i) {
      const auto &row = rows[index_[i]];
      place_[index_[i]] = static_cast<int32_t>(i);
      seqs_.push_back(row.sequence->sampler_seqs[stage]);
      seed_.push_back(row.sequence->seed());
      position_.push_back(row.position);
      row_parent_.push_back(row.parent < 0 ? -1 : place_[static_cast<size_t>(row.parent)]);
      row_token_.push_back(row.token);
      row_mask_.push_back(row.mask != nullptr ? static_cast<int32_t>(mask_words_.size() / n_words) : -1);
      if (row.mask != nullptr) mask_words_.insert(mask_words_.end(), row.mask, row.mask + n_words);
    }
    chosen_.assign(n, -1);
    logprob_.assign(n, std::numeric_limits<float>::quiet_NaN());

    sluice_sample_batch batch{};
    batch.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_batch, sync);
    batch.form = SLUICE_ROW_LOGITS_HOST;
    batch.n_rows = n;
    batch.vocab_size = vocab_size_;
    batch.mask_n_words = static_cast<uint32_t>(n_words);
    batch.row_seq = seqs_.data();
    batch.row_parent = row_parent_.data();
    batch.row_token = row_token_.data();
    batch.row_seed = seed_.data();
    batch.row_position = position_.data();
    batch.mask_words = mask_words_.data();
    batch.row_mask = has_masks_ ? row_mask_.data() : nullptr;
    batch.logits_host = rows_.data();
    sluice_sample_out out{};
    out.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_out, token_dev);
    out.token = chosen_.data();
    out.logprob = logprob_.data();
    auto applied = call({call_names_[stage].c_str(), "apply"}, sampler.vtbl->apply, sampler.instance, &batch, &out);

    for (uint32_t i = n; i > 0; --i)
      if (index_[i - 1] != i - 1)
        std::swap_ranges(rows_.begin() + static_cast<ptrdiff_t>(i - 1) * vocab_size_,
                         rows_.begin() + static_cast<ptrdiff_t>(i) * vocab_size_,
                         rows_.begin() + static_cast<ptrdiff_t>(index_[i - 1]) * vocab_size_);
    if (!applied) return applied;
    for (uint32_t i = 0; i < n; ++i) {
      if (chosen_[i] < -1 || chosen_[i] >= static_cast<int32_t>(vocab_size_))
        return PluginFailure{{Code::kInternal, call_names_[stage] + ": apply chose token " + std::to_string(chosen_[i]) +
                                                   ", the vocabulary has " + std::to_string(vocab_size_), {}}, true,
                             call_names_[stage]};
      if (token_[index_[i]] < 0) token_[index_[i]] = chosen_[i];
    }
  }

  for (size_t r = 0; r < rows.size(); ++r) {
    if (rows[r].choice == nullptr) continue;
    const auto &sequence = *rows[r].sequence;
    auto &choice = *rows[r].choice;
    const float *processed = rows_.data() + r * vocab_size_;
    choice.token = token_[r] >= 0 ? token_[r]
                                  : sdk::draw_row(processed, vocab_size_, sequence.seed(), rows[r].position);
    if (choice.token >= 0 && sequence.request->want_logprobs) raw_logprobs(rows[r]);
  }
  return {};
}

void SamplerChain::put(const HostRow &row, int32_t token) {
  row.choice->clear();
  row.choice->token = token;
  if (row.sequence->request->want_logprobs) raw_logprobs(row);
}

void SamplerChain::raw_logprobs(const HostRow &row) {
  // Nothing was lowered for a request that wants logprobs, so the backend's row is the model's own; and a spec without
  // stages edits nothing.
  sluice_sample_spec spec{};
  spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  spec.logprobs_kind = SLUICE_LOGPROBS_RAW;
  row_sampler_.run(const_cast<float *>(row.logits), vocab_size_, spec);
  auto &choice = *row.choice;
  choice.logprob = row_sampler_.value(choice.token);
  const uint32_t n_top = std::min(row.sequence->request->n_top_logprobs, vocab_size_);
  top_ids_.resize(n_top);
  top_logprobs_.resize(n_top);
  row_sampler_.top(n_top, top_ids_.data(), top_logprobs_.data());
  for (uint32_t i = 0; i < n_top && top_ids_[i] >= 0; ++i) choice.top.push_back({top_ids_[i], top_logprobs_[i]});
}

PluginResult SamplerChain::commit(std::span<Sequence *const> sequences, std::span<const uint32_t> tok_indptr,
                                  std::span<const int32_t> tokens, std::span<const float> logprobs) {
  for (size_t stage = 0; stage < samplers_.size(); ++stage) {
    const auto &sampler = samplers_[stage];
    if (!SLUICE_HAS_FN(sampler.vtbl, sluice_sampler_vtbl, commit)) continue;
    seqs_.clear();
    for (const auto *sequence : sequences) seqs_.push_back(sequence->sampler_seqs[stage]);
    auto result = call({call_names_[stage].c_str(), "commit"}, sampler.vtbl->commit, sampler.instance,
                       static_cast<sluice_sampler_seq *const *>(seqs_.data()),
                       tok_indptr.data(), tokens.data(), logprobs.data(),
                       static_cast<uint32_t>(sequences.size()));
    if (!result) return result;
  }
  if (relowers_)
    for (auto *sequence : sequences) {
      auto result = lower(*sequence);
      if (!result) return result;
    }
  return {};
}

}  // namespace sluice::engine

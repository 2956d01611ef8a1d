#include "core/engine/draft_model.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/engine/core_pieces.hpp"

namespace sluice::engine {
namespace {

constexpr uint64_t kPatienceNs = 30'000'000'000;  // a step that takes longer is a step that hangs

}  // namespace

Result<DraftModel> DraftModel::create(DraftModelParts parts, uint32_t vocab_size, uint32_t block_size,
                                      const kv::BlockPool &pool) {
  sluice_model_info info{};
  info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
  if (auto r = call({parts.name.c_str(), "model_info"}, parts.backend->model_info, parts.model, &info); !r) return r.error().error;
  if (info.kv_mode != SLUICE_KV_MODE_PAGED || info.n_kv_groups != 1)
    return Error{Code::kUnsupported, fmt::format("{}: kv_mode {} with {} KV groups; a draft model has paged KV with one",
                                                 parts.name, info.kv_mode, info.n_kv_groups), {}};
  if (info.vocab_size != vocab_size)
    return Error{Code::kUnsupported, fmt::format("{}: a vocabulary of {}, the target has {}; they must have the same "
                                                 "tokens", parts.name, info.vocab_size, vocab_size), {}};
  const bool trees = (info.caps & SLUICE_CAP_TREE) != 0;
  return DraftModel(std::move(parts), vocab_size, block_size, pool, trees);
}

DraftModel::DraftModel(DraftModel &&other) noexcept
    : parts_(std::move(other.parts_)), pool_(other.pool_), vocab_size_(other.vocab_size_),
      block_size_(other.block_size_), trees_(other.trees_), fill_(std::move(other.fill_)), host_fill_(std::move(other.host_fill_)),
      claimed_(std::move(other.claimed_)), ticket_(std::exchange(other.ticket_, {})) {}

DraftModel::~DraftModel() { release(); }

void DraftModel::release() {
  if (ticket_) (void)call_void({parts_.name.c_str(), "release"}, parts_.backend->release, parts_.model, *ticket_);
  ticket_.reset();
}

uint32_t DraftModel::known(const Sequence &sequence) const {
  uint32_t n = 0;
  for (const uint32_t block : sequence.blocks) {
    const auto &fill = fill_[block];
    const uint32_t tokens = fill.generation == pool_->generation(block) ? fill.tokens : 0;
    n += tokens;
    if (tokens < block_size_) break;
  }
  return std::min(n, sequence.length());
}

void DraftModel::has(const Sequence &sequence, uint32_t n) {
  // What lies before was good already, but for the last block of it.
  for (uint32_t i = 0; i < sequence.blocks.size() && i * block_size_ < n; ++i) {
    const uint32_t block = sequence.blocks[i];
    fill_[block] = {pool_->generation(block), std::min(n - i * block_size_, block_size_)};
  }
}

PluginResult DraftModel::follow(const sluice_kv_batch &batch) {
  const auto tokens_of = [&](uint32_t block) {
    return fill_[block].generation == pool_->generation(block) ? fill_[block].tokens : 0;
  };
  bool copies_only = true;
  for (uint32_t i = 0; i < batch.n; ++i) copies_only &= batch.op[i] == SLUICE_KV_COPY;
  if (!copies_only && host_fill_.empty()) return {};
  sluice_ticket ticket = 0;
  if (auto r = call({parts_.name.c_str(), "kv_ops"}, parts_.backend->kv_ops, parts_.model, &batch, &ticket); !r) return r;
  for (uint32_t i = 0; i < batch.n; ++i) {
    const uint32_t src = batch.src[i];
    const uint32_t dst = batch.dst[i];
    switch (batch.op[i]) {
      case SLUICE_KV_COPY: fill_[dst] = {pool_->generation(dst), tokens_of(src)}; break;
      case SLUICE_KV_SWAP_OUT: host_fill_[dst] = tokens_of(src); break;
      case SLUICE_KV_SWAP_IN: fill_[dst] = {pool_->generation(dst), host_fill_[src]}; break;
      default: break;
    }
  }
  return {};
}

void DraftModel::begin() {
  release();
  ++step_no_;
  const auto empty = [](auto &...vectors) { (vectors.clear(), ...); };
  empty(tokens_, positions_, parent_, slots_, q_indptr_, kv_len_, block_indptr_, block_ids_, tree_indptr_, row_token_,
        row_spec_, row_position_, tree_mask_, row_seed_, row_want_, seq_ids_);
  q_indptr_.push_back(0);
  block_indptr_.push_back(0);
  tree_indptr_.push_back(0);
}

void DraftModel::add(const Sequence &sequence, uint32_t begin, std::span<const int32_t> tokens) {
  for (uint32_t i = 0; i < tokens.size(); ++i) {
    const uint32_t cell = begin + i;
    tokens_.push_back(tokens[i]);
    positions_.push_back(static_cast<int32_t>(cell));
    parent_.push_back(static_cast<int32_t>(i) - 1);
    slots_.push_back(sequence.blocks[cell / block_size_] * block_size_ + cell % block_size_);
  }
  seq_ids_.push_back(sequence.id);
  q_indptr_.push_back(static_cast<uint32_t>(tokens_.size()));
  kv_len_.push_back(begin);
  block_ids_.insert(block_ids_.end(), sequence.blocks.begin(), sequence.blocks.end());
  block_indptr_.push_back(static_cast<uint32_t>(block_ids_.size()));
}

void DraftModel::add_row(uint32_t token) {
  row_token_.push_back(token);
  row_want_.push_back(SLUICE_ROW_LOGITS_HOST);
  row_spec_.push_back(0);
  row_seed_.push_back(0);
  row_position_.push_back(static_cast<uint32_t>(positions_[token]) + 1);
}

bool DraftModel::add_text(const Sequence &sequence, uint32_t n, bool row) {
  const uint32_t begin = known(sequence);
  const uint32_t first = begin / block_size_;
  const uint32_t last = (begin + n - 1) / block_size_;
  for (uint32_t i = first; i <= last; ++i)
    if (claimed_[sequence.blocks[i]] == step_no_) return false;
  for (uint32_t i = first; i <= last; ++i) claimed_[sequence.blocks[i]] = step_no_;
  add(sequence, begin, std::span(sequence.tokens).subspan(begin, n));
  tree_indptr_.push_back(static_cast<uint32_t>(tree_mask_.size()));
  if (row) add_row(static_cast<uint32_t>(tokens_.size() - 1));
  return true;
}

void DraftModel::add_drafts(const Sequence &sequence, uint32_t length, std::span<const int32_t> tokens,
                            std::span<const int32_t> parents, uint32_t n_new) {
  const auto first = static_cast<uint32_t>(tokens_.size());
  add(sequence, length, tokens);
  if (!parents.empty()) {
    const size_t words = (tokens.size() + 63) / 64;
    const size_t mask = tree_mask_.size();
    tree_mask_.resize(mask + tokens.size() * words, 0);
    for (size_t i = 0; i < tokens.size(); ++i) {
      uint64_t *own = tree_mask_.data() + mask + i * words;
      const int32_t parent = parents[i];
      parent_[first + i] = parent;
      positions_[first + i] = parent < 0 ? static_cast<int32_t>(length) : positions_[first + static_cast<size_t>(parent)] + 1;
      if (parent >= 0) std::copy_n(tree_mask_.data() + mask + static_cast<size_t>(parent) * words, words, own);
      own[i / 64] |= uint64_t{1} << (i % 64);
    }
  }
  tree_indptr_.push_back(static_cast<uint32_t>(tree_mask_.size()));
  for (size_t i = tokens.size() - n_new; i < tokens.size(); ++i) add_row(first + static_cast<uint32_t>(i));
}

sluice_step DraftModel::step() {
  sluice_step step{};
  step.struct_size = SLUICE_SIZE_THROUGH(sluice_step, row_history);
  step.step_no = step_no_;
  step.n_tokens = static_cast<uint32_t>(tokens_.size());
  step.n_seqs = static_cast<uint32_t>(seq_ids_.size());
  step.n_rows = static_cast<uint32_t>(row_token_.size());
  step.n_kv_groups = 1;
  step.tokens = tokens_.data();
  step.positions = positions_.data();
  step.slots = slots_.data();
  step.seq_ids = seq_ids_.data();
  step.q_indptr = q_indptr_.data();
  step.kv_len = kv_len_.data();
  step.block_indptr = block_indptr_.data();
  step.block_ids = block_ids_.data();
  if (!tree_mask_.empty()) {
    step.parent = parent_.data();
    step.tree_mask_indptr = tree_indptr_.data();
    step.tree_mask = tree_mask_.data();
  }
  step.row_token = row_token_.data();
  step.row_want = row_want_.data();
  step.n_specs = 1;
  step.spec_stride = sizeof(sluice_sample_spec);
  step.row_spec = row_spec_.data();
  step.row_seed = row_seed_.data();
  step.row_position = row_position_.data();
  return step;
}

PluginResult DraftModel::run() {
  static constexpr sluice_sample_spec kAsItIs = {SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind), 0, 0, {}, 1, 0,
                                                 1, 0, 1, 0, 0, 0, 0, 0, SLUICE_LOGPROBS_RAW};
  auto now = step();
  now.spec = &kAsItIs;
  sluice_ticket ticket = 0;
  if (auto r = call({parts_.name.c_str(), "submit"}, parts_.backend->submit, parts_.model, &now, &ticket); !r) return r;
  ticket_ = ticket;
  result_ = {};
  result_.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
  auto waited = call({parts_.name.c_str(), "wait"}, parts_.backend->wait, parts_.model, ticket, kPatienceNs, &result_);
  if (!waited) {
    auto failure = waited.error();
    failure.poisoned |= failure.error.code == Code::kTimeout;
    return failure;
  }
  if (result_.n_rows != now.n_rows || (now.n_rows > 0 && result_.logits_host == nullptr))
    return PluginFailure{{Code::kInternal, fmt::format("{}: {} rows came back, {} were asked for", parts_.name,
                                                       result_.n_rows, now.n_rows), {}}, true, parts_.name};
  for (uint32_t i = 0; i < now.n_rows; ++i)
    if (!is_row(row(i), vocab_size_))
      return PluginFailure{{Code::kInternal, fmt::format("{}: row {}: a logit that is no number", parts_.name, i), {}},
                           true, parts_.name};
  return {};
}

}  // namespace sluice::engine

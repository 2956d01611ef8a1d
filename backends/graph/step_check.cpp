#include "backends/graph/step_check.hpp"

#include <sluice/sdk/sampling.hpp>

#include <algorithm>

namespace sluice::graph {
namespace {

[[noreturn]] void refuse(const std::string &message, int32_t code = SLUICE_E_INVALID_ARGUMENT) {
  throw sdk::Error(code, "step." + message);
}

std::string at(const char *array, uint64_t i, int64_t value) {
  return std::string(array) + "[" + std::to_string(i) + "] is " + std::to_string(value);
}

void need(const void *array, uint64_t n, const char *name) {
  if (n > 0 && array == nullptr) refuse(std::string(name) + " is NULL");
}

/// offsets[0..n] start at 0 and never fall; returns the last.
uint32_t check_offsets(const uint32_t *offsets, uint32_t n, const char *name) {
  need(offsets, 1, name);
  if (offsets[0] != 0) refuse(at(name, 0, offsets[0]) + "; it must be 0");
  for (uint32_t i = 0; i < n; ++i)
    if (offsets[i + 1] < offsets[i]) refuse(at(name, i + 1, offsets[i + 1]) + ", less than the entry before it");
  return offsets[n];
}

void check_count(uint32_t n, uint32_t max, const char *name) {
  if (n > max) refuse(std::string(name) + " is " + std::to_string(n) + "; the setup allows " + std::to_string(max));
}

void check_id(const char *array, uint64_t i, int64_t id, uint32_t vocab) {
  if (id < 0 || id >= vocab) refuse(at(array, i, id) + "; the vocabulary has " + std::to_string(vocab));
}

uint32_t tree_words(const sluice_step &s, uint32_t seq) {
  return s.tree_mask_indptr == nullptr ? 0 : s.tree_mask_indptr[seq + 1] - s.tree_mask_indptr[seq];
}

}  // namespace

StepCheck::StepCheck(const ModelShape &shape, const Settings &settings)
    : shape_(shape),
      settings_(settings),
      stored_at_(uint64_t{settings.kv.device_blocks} * settings.kv.block_size_tokens, 0) {}

void StepCheck::check(const sluice_step &s) {
  if (s.struct_size < SLUICE_SIZE_THROUGH(sluice_step, row_history))
    refuse("struct_size is " + std::to_string(s.struct_size) + ", too small for ABI 0.0", SLUICE_E_ABI);
  if ((s.flags & 0xFFFFu) != 0) refuse("flags has unknown bits: " + std::to_string(s.flags), SLUICE_E_UNSUPPORTED);
  if (s.feed != nullptr) refuse("feed: this backend has no CAP_LOGITS_DEV", SLUICE_E_UNSUPPORTED);
  if (s.n_kv_groups != 1) refuse("n_kv_groups is " + std::to_string(s.n_kv_groups) + "; this model has 1");
  if (s.n_tokens == 0) refuse("n_tokens is 0");
  check_count(s.n_tokens, settings_.limits.tokens, "n_tokens");
  check_count(s.n_seqs, settings_.limits.seqs, "n_seqs");
  check_count(s.n_rows, settings_.limits.rows, "n_rows");
  check_count(s.n_candidates, settings_.max_candidates, "n_candidates");
  check_sequences(s);
  check_tree(s);
  check_tokens(s);
  check_rows(s);
  check_history(s);
}

void StepCheck::check_sequences(const sluice_step &s) const {
  need(s.kv_len, s.n_seqs, "kv_len");
  if (check_offsets(s.q_indptr, s.n_seqs, "q_indptr") != s.n_tokens)
    refuse(at("q_indptr", s.n_seqs, s.q_indptr[s.n_seqs]) + "; n_tokens is " + std::to_string(s.n_tokens));
  const uint32_t n_ids = check_offsets(s.block_indptr, s.n_seqs, "block_indptr");
  need(s.block_ids, n_ids, "block_ids");
  for (uint32_t i = 0; i < n_ids; ++i)
    if (s.block_ids[i] >= settings_.kv.device_blocks)
      refuse(at("block_ids", i, s.block_ids[i]) + "; " + std::to_string(settings_.kv.device_blocks) +
             " blocks are configured");
  for (uint32_t q = 0; q < s.n_seqs; ++q) {
    const uint64_t length = uint64_t{s.kv_len[q]} + (s.q_indptr[q + 1] - s.q_indptr[q]);
    const uint64_t most =
        uint64_t{settings_.limits.context_tokens} + (tree_words(s, q) > 0 ? settings_.max_tree_nodes : 0);
    if (length > most)
      refuse(at("kv_len", q, s.kv_len[q]) + ", with this step's tokens " + std::to_string(length) +
             "; the context is " + std::to_string(settings_.limits.context_tokens) + " tokens");
    const uint64_t blocks = s.block_indptr[q + 1] - s.block_indptr[q];
    if (blocks * settings_.kv.block_size_tokens < length)
      refuse("block_indptr gives sequence " + std::to_string(q) + " " + std::to_string(blocks) + " blocks; its " +
             std::to_string(length) + " tokens need more");
    if (blocks > settings_.limits.blocks_per_seq)
      refuse("block_indptr gives sequence " + std::to_string(q) + " " + std::to_string(blocks) +
             " blocks; a full context has " + std::to_string(settings_.limits.blocks_per_seq));
  }
}

void StepCheck::check_tokens(const sluice_step &s) {
  need(s.tokens, s.n_tokens, "tokens");
  need(s.positions, s.n_tokens, "positions");
  need(s.slots, s.n_tokens, "slots");
  ++stamp_;
  const uint32_t size = settings_.kv.block_size_tokens;
  for (uint32_t q = 0; q < s.n_seqs; ++q) {
    for (uint32_t t = s.q_indptr[q]; t < s.q_indptr[q + 1]; ++t) {
      if (s.tokens[t] < 0)
        refuse(at("tokens", t, s.tokens[t]) + "; this backend has no CAP_TOKEN_FEED", SLUICE_E_UNSUPPORTED);
      check_id("tokens", t, s.tokens[t], shape_.vocab);
      if (s.positions[t] < 0 || static_cast<uint32_t>(s.positions[t]) >= settings_.limits.context_tokens)
        refuse(at("positions", t, s.positions[t]) + "; the context is " +
               std::to_string(settings_.limits.context_tokens) + " tokens");
      if (s.slots[t] == SLUICE_NO_SLOT)
        refuse(at("slots", t, -1) + " (NO_SLOT); this backend stores every token", SLUICE_E_UNSUPPORTED);
      const uint32_t cell = s.kv_len[q] + (t - s.q_indptr[q]);
      const uint32_t expected = s.block_ids[s.block_indptr[q] + cell / size] * size + cell % size;
      if (s.slots[t] != expected)
        refuse(at("slots", t, s.slots[t]) + "; the block table of sequence " + std::to_string(q) + " puts it at " +
               std::to_string(expected));
      if (stored_at_[expected] == stamp_) refuse(at("slots", t, s.slots[t]) + ", where another token of the step goes");
      stored_at_[expected] = stamp_;
    }
  }
}

void StepCheck::check_tree(const sluice_step &s) const {
  if (s.tree_mask_indptr == nullptr) return;
  const uint32_t total = check_offsets(s.tree_mask_indptr, s.n_seqs, "tree_mask_indptr");
  if (total == 0) return;
  need(s.tree_mask, total, "tree_mask");
  need(s.parent, s.n_tokens, "parent");
  for (uint32_t q = 0; q < s.n_seqs; ++q) {
    if (tree_words(s, q) == 0) continue;
    const uint32_t nodes = s.q_indptr[q + 1] - s.q_indptr[q], words = (nodes + 63) / 64;
    if (nodes > settings_.max_tree_nodes)
      refuse("q_indptr gives the tree of sequence " + std::to_string(q) + " " + std::to_string(nodes) +
             " nodes; the setup allows " + std::to_string(settings_.max_tree_nodes));
    if (uint64_t{nodes} * words != tree_words(s, q))
      refuse(at("tree_mask_indptr", q + 1, s.tree_mask_indptr[q + 1]) + "; " + std::to_string(nodes) + " nodes have " +
             std::to_string(uint64_t{nodes} * words) + " words");
    const uint64_t *mask = s.tree_mask + s.tree_mask_indptr[q];
    for (uint32_t j = 0; j < nodes; ++j) {
      const int32_t parent = s.parent[s.q_indptr[q] + j];
      if (parent < -1 || parent >= static_cast<int32_t>(j))
        refuse(at("parent", s.q_indptr[q] + j, parent) + "; it must be -1 or an earlier node of the tree");
      for (uint32_t w = 0; w < words; ++w) {
        const uint64_t above = parent < 0 ? 0 : mask[uint64_t{static_cast<uint32_t>(parent)} * words + w];
        const uint64_t self = w == j / 64 ? uint64_t{1} << (j % 64) : 0;
        if (mask[uint64_t{j} * words + w] != (above | self))
          refuse("tree_mask of token " + std::to_string(s.q_indptr[q] + j) + " disagrees with its parent");
      }
    }
  }
}

void StepCheck::check_rows(const sluice_step &s) const {
  need(s.row_token, s.n_rows, "row_token");
  need(s.row_want, s.n_rows, "row_want");
  for (uint32_t r = 0; r < s.n_rows; ++r) {
    if (s.row_token[r] >= s.n_tokens)
      refuse(at("row_token", r, s.row_token[r]) + "; n_tokens is " + std::to_string(s.n_tokens));
    if (r > 0 && s.row_token[r] < s.row_token[r - 1])
      refuse(at("row_token", r, s.row_token[r]) + ", less than the entry before it");
    if ((s.row_want[r] & ~row_forms(shape_)) != 0)
      refuse(at("row_want", r, s.row_want[r]) + "; supported are TOKEN, CANDIDATES, LOGITS_HOST" +
                 (shape_.n_heads > 0 ? " and HEADS" : "; there are no draft heads"),
             SLUICE_E_UNSUPPORTED);
  }
  check_specs(s);
  check_row_inputs(s);
}

void StepCheck::check_row_inputs(const sluice_step &s) const {
  for (uint32_t r = 0; r < s.n_rows; ++r) {
    if ((s.row_want[r] & ~SLUICE_ROW_HEADS) == 0) continue;
    need(s.row_spec, 1, "row_spec");
    if (s.row_spec[r] >= s.n_specs)
      refuse(at("row_spec", r, s.row_spec[r]) + "; n_specs is " + std::to_string(s.n_specs));
    if ((s.row_want[r] & SLUICE_ROW_TOKEN) != 0) {
      need(s.row_seed, 1, "row_seed");
      need(s.row_position, 1, "row_position");
    }
    if (s.row_mask != nullptr) {
      if (s.row_mask[r] < -1) refuse(at("row_mask", r, s.row_mask[r]) + "; it must be -1 or the index of a mask");
      if (s.row_mask[r] >= 0) need(s.mask_words, 1, "mask_words");
    }
    if (s.row_history != nullptr &&
        (s.row_history[r] < -1 || s.row_history[r] >= static_cast<int32_t>(settings_.limits.seqs)))
      refuse(at("row_history", r, s.row_history[r]) + "; there are " + std::to_string(settings_.limits.seqs) +
             " slots");
  }
  if (s.bias_indptr == nullptr) return;
  const uint32_t n = check_offsets(s.bias_indptr, s.n_rows, "bias_indptr");
  need(s.bias_token, n, "bias_token");
  need(s.bias_value, n, "bias_value");
  for (uint32_t i = 0; i < n; ++i) {
    check_id("bias_token", i, s.bias_token[i], shape_.vocab);
    if (std::isnan(s.bias_value[i])) refuse("bias_value[" + std::to_string(i) + "] is not a number");
  }
}

void StepCheck::check_specs(const sluice_step &s) const {
  need(s.spec, s.n_specs, "spec");
  if (s.n_specs > 0 && s.spec_stride < SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind))
    refuse("spec_stride is " + std::to_string(s.spec_stride) + ", too small for ABI 0.0", SLUICE_E_ABI);
  for (uint32_t i = 0; i < s.n_specs; ++i) {
    const auto &spec = *reinterpret_cast<const sluice_sample_spec *>(reinterpret_cast<const char *>(s.spec) +
                                                                     uint64_t{i} * s.spec_stride);
    const std::string name = "spec[" + std::to_string(i) + "].";
    if (spec.struct_size < SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind))
      refuse(name + "struct_size is " + std::to_string(spec.struct_size) + ", too small for ABI 0.0", SLUICE_E_ABI);
    if ((spec.flags & 0xFFFFu & ~(SLUICE_SPF_LOGPROB | SLUICE_SPF_TOP_K_TIES)) != 0)
      refuse(name + "flags has unknown bits: " + std::to_string(spec.flags), SLUICE_E_UNSUPPORTED);
    if (spec.n_stages > SLUICE_MAX_STAGES) refuse(name + "n_stages is " + std::to_string(spec.n_stages));
    for (uint32_t k = 0; k < spec.n_stages; ++k)
      if (spec.stage[k] > 63 || (kStages & SLUICE_STAGE_BIT(spec.stage[k])) == 0)
        refuse(name + at("stage", k, spec.stage[k]) + ", which this backend cannot do", SLUICE_E_UNSUPPORTED);
    if (spec.logprobs_kind > SLUICE_LOGITS_PROCESSED)
      refuse(name + "logprobs_kind is " + std::to_string(spec.logprobs_kind), SLUICE_E_UNSUPPORTED);
    if (const char *problem = sdk::spec_problem(spec)) refuse(name + problem);
    if (spec.n_logprobs > settings_.max_logprobs)
      refuse(name + "n_logprobs is " + std::to_string(spec.n_logprobs) + "; the setup allows " +
             std::to_string(settings_.max_logprobs));
  }
}

void StepCheck::check_history(const sluice_step &s) const {
  if (s.n_history == 0) return;
  need(s.history_slot, 1, "history_slot");
  need(s.history_kind, 1, "history_kind");
  const uint32_t n = check_offsets(s.history_indptr, s.n_history, "history_indptr");
  need(s.history_token, n, "history_token");
  for (uint32_t i = 0; i < s.n_history; ++i) {
    if (s.history_slot[i] >= settings_.limits.seqs)
      refuse(at("history_slot", i, s.history_slot[i]) + "; there are " + std::to_string(settings_.limits.seqs) +
             " slots");
    const uint32_t begin = s.history_indptr[i], end = s.history_indptr[i + 1];
    switch (s.history_kind[i]) {
      case SLUICE_HISTORY_RESET:
      case SLUICE_HISTORY_PROMPT:
      case SLUICE_HISTORY_OUTPUT:
        for (uint32_t k = begin; k < end; ++k) check_id("history_token", k, s.history_token[k], shape_.vocab);
        break;
      case SLUICE_HISTORY_FORK:
        if (end - begin != 1 || s.history_token[begin] < 0 ||
            static_cast<uint32_t>(s.history_token[begin]) >= settings_.limits.seqs)
          refuse("history_token of fork " + std::to_string(i) + " must be one slot number");
        break;
      default:
        refuse(at("history_kind", i, s.history_kind[i]), SLUICE_E_UNSUPPORTED);
    }
  }
}

std::vector<KvMove> StepCheck::check(const sluice_kv_batch &b) const {
  std::vector<KvMove> moves;
  if (b.n == 0) return moves;
  const auto refuse_op = [](const std::string &message, int32_t code = SLUICE_E_INVALID_ARGUMENT) {
    throw sdk::Error(code, "kv_batch." + message);
  };
  if (b.op == nullptr || b.src == nullptr || b.dst == nullptr) refuse_op("op, src and dst must not be NULL");
  const KvShape &kv = settings_.kv;
  moves.reserve(b.n);
  for (uint32_t i = 0; i < b.n; ++i) {
    if (b.group != nullptr && b.group[i] != 0) refuse_op(at("group", i, b.group[i]) + "; this model has group 0");
    uint64_t src_limit = kv.device_blocks, dst_limit = kv.device_blocks;
    KvMove::Kind kind = KvMove::Kind::kCopyBlock;
    switch (b.op[i]) {
      case SLUICE_KV_COPY:
        break;
      case SLUICE_KV_SWAP_OUT:
        kind = KvMove::Kind::kSwapOut;
        dst_limit = kv.host_blocks;
        break;
      case SLUICE_KV_SWAP_IN:
        kind = KvMove::Kind::kSwapIn;
        src_limit = kv.host_blocks;
        break;
      case SLUICE_KV_MOVE_SLOTS:
        kind = KvMove::Kind::kMoveSlot;
        src_limit = dst_limit = uint64_t{kv.device_blocks} * kv.block_size_tokens;
        break;
      default:
        refuse_op(at("op", i, b.op[i]) + "; a paged cache has COPY, SWAP_OUT, SWAP_IN, MOVE_SLOTS",
                  SLUICE_E_UNSUPPORTED);
    }
    if (b.src[i] >= src_limit) refuse_op(at("src", i, b.src[i]) + "; there are " + std::to_string(src_limit));
    if (b.dst[i] >= dst_limit) refuse_op(at("dst", i, b.dst[i]) + "; there are " + std::to_string(dst_limit));
    moves.push_back({kind, b.src[i], b.dst[i]});
  }
  return moves;
}

}  // namespace sluice::graph

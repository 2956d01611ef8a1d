// A step backend whose model is counting: the next token is the one that has most often followed the present one in this
// sequence. It has no weights, and its KV cache is the tokens themselves, one per slot. So every rule of the step
// contract is visible in a few lines: where a token is stored, how a block table is read, which rows are wanted.
#include <sluice/sdk/backend.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace {
using namespace sluice::sdk;

constexpr uint32_t kBlockSize = 16;  // tokens
constexpr int32_t kEmpty = -1;

[[noreturn]] void refuse(int32_t code, const std::string &message) { throw Error(code, "bigram: " + message); }

class BigramModel final : public Model {
 public:
  BigramModel(uint32_t vocab_size, uint32_t max_context) : vocab_size_(vocab_size), max_context_(max_context) {}

  void info(sluice_model_info &i) const override {
    i.vocab_size = vocab_size_, i.max_context = max_context_;
    i.hidden_size = i.n_layers = 1;
    i.kv_mode = SLUICE_KV_MODE_PAGED, i.n_kv_groups = 1, i.kv_dtypes = SLUICE_DT_BIT(SLUICE_DT_I32);
    i.caps = SLUICE_CAP_MIXED_BATCH | SLUICE_CAP_BATCH_INVARIANT;
    std::strcpy(i.arch, "bigram");
  }
  void plan_memory(const sluice_model_setup &s, sluice_memory_plan &p) const override {
    check(s);
    p.block_size = s.block_size == 0 ? kBlockSize : s.block_size;
    p.workspace_bytes = uint64_t{2} * s.max_rows_per_step * vocab_size_ * sizeof(float);
    p.kv_bytes_available = uint64_t{64} << 20;
  }
  std::vector<sluice_kv_group> kv_groups(const sluice_model_setup &s) const override {
    check(s);
    sluice_kv_group g{};
    g.struct_size = SLUICE_SIZE_THROUGH(sluice_kv_group, reserved);
    g.block_size = s.block_size == 0 ? kBlockSize : s.block_size;
    g.bytes_per_block = g.block_size * sizeof(int32_t);
    return {g};
  }
  void configure(const sluice_model_setup &s, const uint32_t *device_blocks, const uint32_t *) override {
    check(s);
    setup_ = s;
    block_size_ = s.block_size == 0 ? kBlockSize : s.block_size;
    cache_.assign(uint64_t{device_blocks[0]} * block_size_, kEmpty);
    history_.reserve(max_context_);
    for (Result &r : results_) r.ticket = 0, r.logits.resize(size_t{s.max_rows_per_step} * vocab_size_);
  }
  void sample_caps(sluice_sample_caps &c) const override { c.forms = SLUICE_ROW_LOGITS_HOST; }

  /// Stores every token in its slot, then works out the rows. Everything is done when this returns.
  sluice_ticket submit(const sluice_step &s) override {
    check(s);
    Result &result = results_[next_ticket_ % results_.size()];
    if (result.ticket != 0) refuse(SLUICE_E_RESOURCE_EXHAUSTED, "two results have not been released yet");
    for (uint32_t t = 0; t < s.n_tokens; ++t)
      if (s.slots[t] != SLUICE_NO_SLOT) cache_[s.slots[t]] = s.tokens[t];
    uint32_t q = 0;
    for (uint32_t row = 0; row < s.n_rows; ++row) {
      while (s.q_indptr[q + 1] <= s.row_token[row]) ++q;  // rows ascend, so do their sequences
      if ((s.row_want[row] & SLUICE_ROW_LOGITS_HOST) == 0) continue;
      read_history(s, q, s.row_token[row]);
      count(result.logits.data() + size_t{row} * vocab_size_);
    }
    result.n_rows = s.n_rows;
    return result.ticket = next_ticket_++;
  }

  /// Block copies are what the host needs to share a prefix between sequences that then part ways.
  sluice_ticket kv_ops(const sluice_kv_batch &b) override {
    const uint64_t n_blocks = cache_.size() / block_size_;
    for (uint32_t i = 0; i < b.n; ++i) {
      if (b.op[i] != SLUICE_KV_COPY) refuse(SLUICE_E_UNSUPPORTED, "kv_batch.op is not COPY");
      if (b.src[i] >= n_blocks || b.dst[i] >= n_blocks)
        refuse(SLUICE_E_INVALID_ARGUMENT, "kv_batch names a block beyond " + std::to_string(n_blocks));
    }
    for (uint32_t i = 0; i < b.n; ++i)
      std::copy_n(cache_.begin() + int64_t{b.src[i]} * block_size_, block_size_,
                  cache_.begin() + int64_t{b.dst[i]} * block_size_);
    return 0;
  }

  bool wait(sluice_ticket ticket, uint64_t, sluice_step_result *out) override {
    if (out == nullptr) return true;
    const Result &result = results_[ticket % results_.size()];
    if (ticket == 0 || result.ticket != ticket) refuse(SLUICE_E_INVALID_ARGUMENT, "this ticket has no result");
    out->n_rows = result.n_rows;
    out->logits_host = result.logits.data();
    return true;
  }
  void release(sluice_ticket ticket) override {
    if (Result &result = results_[ticket % results_.size()]; result.ticket == ticket) result.ticket = 0;
  }

 private:
  struct Result {
    sluice_ticket ticket = 0;  // 0 = free
    uint32_t n_rows = 0;
    std::vector<float> logits;  // [max_rows, vocab]
  };

  void check(const sluice_model_setup &s) const {
    if ((s.flags & 0xFFFFu & ~SLUICE_SETUP_BATCH_INVARIANT) != 0)
      refuse(SLUICE_E_UNSUPPORTED, "setup.flags has an unknown bit");
    if (s.kv_dtype != 0 && s.kv_dtype != SLUICE_DT_I32)
      refuse(SLUICE_E_UNSUPPORTED, "it stores tokens, so kv.dtype must be auto");
    if (s.max_context > max_context_) refuse(SLUICE_E_UNSUPPORTED, "max_context is beyond the option of that name");
  }
  /// What would make us read or write outside our arrays. A host that keeps the contract never sees these.
  void check(const sluice_step &s) const {
    const auto no = [](const char *what) { refuse(SLUICE_E_INVALID_ARGUMENT, std::string("step.") + what); };
    if ((s.flags & 0xFFFFu) != 0) refuse(SLUICE_E_UNSUPPORTED, "step.flags has an unknown bit");
    if (s.n_tokens == 0 || s.n_tokens > setup_.max_tokens_per_step) no("n_tokens is outside the setup");
    if (s.n_seqs > setup_.max_seqs_per_step || s.n_rows > setup_.max_rows_per_step) no("n_seqs or n_rows is too large");
    if (s.n_kv_groups != 1 || s.q_indptr[0] != 0 || s.q_indptr[s.n_seqs] != s.n_tokens) no("q_indptr is not 0..n_tokens");
    for (uint32_t q = 0; q < s.n_seqs; ++q) {
      if (s.q_indptr[q + 1] < s.q_indptr[q] || s.block_indptr[q + 1] < s.block_indptr[q]) no("q_indptr or block_indptr falls");
      const uint64_t length = uint64_t{s.kv_len[q]} + s.q_indptr[q + 1] - s.q_indptr[q];
      if (length > uint64_t{s.block_indptr[q + 1] - s.block_indptr[q]} * block_size_) no("block_indptr has too few blocks");
    }
    for (uint32_t i = 0; i < s.block_indptr[s.n_seqs]; ++i)
      if (uint64_t{s.block_ids[i]} * block_size_ >= cache_.size()) no("block_ids has an unknown block");
    for (uint32_t t = 0; t < s.n_tokens; ++t) {
      if (s.tokens[t] < 0 || static_cast<uint32_t>(s.tokens[t]) >= vocab_size_) no("tokens has an id outside the vocabulary");
      if (s.slots[t] != SLUICE_NO_SLOT && s.slots[t] >= cache_.size()) no("slots is outside the cache");
    }
    for (uint32_t r = 0; r < s.n_rows; ++r) {
      if (s.row_token[r] >= s.n_tokens || (r > 0 && s.row_token[r] < s.row_token[r - 1])) no("row_token is out of order");
      if ((s.row_want[r] & ~SLUICE_ROW_LOGITS_HOST) != 0) refuse(SLUICE_E_UNSUPPORTED, "step.row_want: only LOGITS_HOST");
    }
  }

  /// The tokens of sequence q up to and including token t of the step: first those in its blocks, then the step's own.
  void read_history(const sluice_step &s, uint32_t q, uint32_t t) {
    history_.clear();
    const uint32_t *blocks = s.block_ids + s.block_indptr[q];
    for (uint32_t i = 0; i < s.kv_len[q]; ++i)
      history_.push_back(cache_[uint64_t{blocks[i / block_size_]} * block_size_ + i % block_size_]);
    for (uint32_t i = s.q_indptr[q]; i <= t; ++i) history_.push_back(s.tokens[i]);
  }
  /// logit = log(what followed the last token, a little of what occurred at all, a trace of everything)
  void count(float *row) const {
    std::fill_n(row, vocab_size_, 0.001f);
    for (size_t i = 0; i < history_.size(); ++i) {
      const auto id = static_cast<uint32_t>(history_[i]);
      if (id >= vocab_size_) refuse(SLUICE_E_INVALID_ARGUMENT, "step.kv_len reaches into slots that nothing was stored in");
      row[id] += 0.01f;
      if (i > 0 && history_[i - 1] == history_.back()) row[id] += 1.0f;
    }
    for (uint32_t v = 0; v < vocab_size_; ++v) row[v] = std::log(row[v]);
  }

  const uint32_t vocab_size_, max_context_;
  sluice_model_setup setup_{};
  uint32_t block_size_ = kBlockSize;
  std::vector<int32_t> cache_;    // [blocks * block_size] token per slot
  std::vector<int32_t> history_;  // scratch of submit()
  std::array<Result, 2> results_;
  sluice_ticket next_ticket_ = 1;
};

class BigramBackend final : public Backend {
 public:
  BigramBackend(const sluice_host_api &, const Config &, const sluice_backend_open &) {}
  static std::vector<sluice_device_info> devices(const sluice_host_api &, const Config &) {
    sluice_device_info d{};
    d.struct_size = SLUICE_SIZE_THROUGH(sluice_device_info, uuid);
    d.device_type = SLUICE_DEV_CPU, d.score = 1;
    std::strcpy(d.name, "counting on the host");
    return {d};
  }
  /// The file is not read: the server takes the tokenizer out of it.
  std::unique_ptr<Model> load(const sluice_model_source &, const Config &config) override {
    return std::make_unique<BigramModel>(static_cast<uint32_t>(config.i64("vocab_size")),
                                         static_cast<uint32_t>(config.i64("max_context")));
  }
};

constexpr sluice_config_field kFields[] = {
    i64_field("vocab_size", "tokens of the vocabulary; the same as in the model's file", "512", 1, 1 << 20),
    i64_field("max_context", "longest sequence in tokens", "4096", 16, 1 << 20)};
}  // namespace

SLUICE_BACKEND_PLUGIN(BigramBackend, "bigram", "1.0.0", kFields, "");

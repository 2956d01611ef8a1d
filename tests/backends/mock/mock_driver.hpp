// Drives the mock through its table as an engine would, one sequence object per sequence.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <functional>
#include <optional>

#include "backends/mock/script.hpp"
#include "tests/support/loaded_plugin.hpp"

namespace sluice::test {

constexpr uint32_t kBlockSize = 4;

struct MockSeq {
  uint64_t id;
  std::vector<int32_t> tokens;  // prompt and what was drawn
  std::vector<uint32_t> blocks;
  uint32_t cached = 0;
};

/// One step under construction; abi() points into it.
struct MockStep {
  struct Part {
    MockSeq *seq;
    uint32_t n_tokens;
  };
  std::vector<Part> parts;
  std::vector<int32_t> tokens, positions, row_history;
  std::vector<uint32_t> slots, q_indptr{0}, kv_len, block_indptr{0}, block_ids, row_token, row_spec, row_position;
  std::vector<uint64_t> ids, row_seed;
  std::vector<uint8_t> want;
  std::vector<sluice_sample_spec> specs;
  sluice_step step{};

  static sluice_sample_spec greedy() {
    sluice_sample_spec spec{};
    spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
    spec.stage[spec.n_stages++] = SLUICE_STAGE_TEMPERATURE;
    spec.repetition = spec.top_p = 1;
    return spec;
  }

  /// The next n tokens of the sequence, with a row after the last one if that ends what it has.
  MockStep &add(MockSeq &seq, uint32_t n, std::optional<sluice_sample_spec> spec = {}, uint8_t form = SLUICE_ROW_TOKEN,
                uint64_t seed = 1) {
    parts.push_back({&seq, n});
    ids.push_back(seq.id), kv_len.push_back(seq.cached);
    for (uint32_t p = seq.cached; p < seq.cached + n; ++p) {
      tokens.push_back(seq.tokens[p]), positions.push_back(static_cast<int32_t>(p));
      slots.push_back(seq.blocks[p / kBlockSize] * kBlockSize + p % kBlockSize);
    }
    q_indptr.push_back(static_cast<uint32_t>(tokens.size()));
    block_ids.insert(block_ids.end(), seq.blocks.begin(), seq.blocks.end());
    block_indptr.push_back(static_cast<uint32_t>(block_ids.size()));
    if (seq.cached + n < seq.tokens.size()) return *this;
    row_token.push_back(static_cast<uint32_t>(tokens.size()) - 1), want.push_back(form);
    row_spec.push_back(static_cast<uint32_t>(specs.size())), specs.push_back(spec.value_or(greedy()));
    row_seed.push_back(seed), row_position.push_back(static_cast<uint32_t>(seq.tokens.size()));
    return *this;
  }

  const sluice_step &abi() {
    step.struct_size = SLUICE_SIZE_THROUGH(sluice_step, row_history);
    step.n_tokens = static_cast<uint32_t>(tokens.size()), step.n_seqs = static_cast<uint32_t>(ids.size());
    step.n_rows = static_cast<uint32_t>(row_token.size()), step.n_kv_groups = 1;
    step.tokens = tokens.data(), step.positions = positions.data(), step.slots = slots.data();
    step.seq_ids = ids.data(), step.q_indptr = q_indptr.data(), step.kv_len = kv_len.data();
    step.block_indptr = block_indptr.data(), step.block_ids = block_ids.data();
    step.row_token = row_token.data(), step.row_want = want.data(), step.spec = specs.data();
    step.n_specs = static_cast<uint32_t>(specs.size()), step.spec_stride = sizeof(sluice_sample_spec);
    step.row_spec = row_spec.data(), step.row_seed = row_seed.data(), step.row_position = row_position.data();
    return step;
  }
};

class Mock {
 public:
  explicit Mock(const PluginConfig::Values &options = {}) : config_(desc_, options) {
    sluice_backend_open open{};
    open.struct_size = SLUICE_SIZE_THROUGH(sluice_backend_open, config), open.config = config_.handle();
    check(vtbl().open(&host.api, &open, &backend_, status));
    sluice_model_source source{};
    source.struct_size = SLUICE_SIZE_THROUGH(sluice_model_source, progress_ctx), source.path = "/none";
    source.config = config_.handle();
    check(vtbl().model_load(backend_, &source, &model, status));
    configure();
  }
  ~Mock() {
    if (model != nullptr) vtbl().model_unload(model);
    if (backend_ != nullptr) vtbl().close(backend_);
  }
  Mock(const Mock &) = delete;
  Mock &operator=(const Mock &) = delete;

  void configure(uint32_t device_blocks = 64, uint32_t host_blocks = 16) {
    sluice_model_setup setup{};
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs);
    setup.max_tokens_per_step = 256, setup.max_seqs_per_step = 32, setup.max_rows_per_step = 64;
    setup.max_tree_nodes = 64, setup.max_context = 256, setup.block_size = kBlockSize;
    setup.max_candidates = 64, setup.max_logprobs = 8;
    check(vtbl().configure(model, &setup, &device_blocks, &host_blocks, status));
  }
  void check(int32_t code) {
    if (code != SLUICE_OK) throw std::runtime_error(status.text());
  }

  int32_t submit(MockStep &step, sluice_ticket *ticket) { return vtbl().submit(model, &step.abi(), ticket, status); }
  int32_t wait(sluice_ticket ticket, uint64_t timeout_ns = 0) {
    result = {};
    result.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
    return vtbl().wait(model, ticket, timeout_ns, &result, status);
  }
  /// Submits, waits, appends the drawn tokens to the sequences; throws with the plugin's words.
  std::vector<int32_t> run(MockStep &step) {
    sluice_ticket ticket = 0;
    check(submit(step, &ticket));
    check(wait(ticket));
    const std::vector<int32_t> drawn(result.token, result.token + result.n_rows);
    uint32_t row = 0;
    for (const auto &[seq, n] : step.parts) {
      seq->cached += n;
      if (seq->cached == seq->tokens.size()) seq->tokens.push_back(drawn[row++]);
    }
    vtbl().release(model, ticket);
    return drawn;
  }
  int32_t kv_op(uint8_t op, uint32_t src, uint32_t dst) {
    sluice_kv_batch batch{};
    batch.struct_size = SLUICE_SIZE_THROUGH(sluice_kv_batch, keep_len);
    batch.n = 1, batch.op = &op, batch.src = &src, batch.dst = &dst;
    sluice_ticket ticket = 0;
    const int32_t code = vtbl().kv_ops(model, &batch, &ticket, status);
    return code != SLUICE_OK ? code : vtbl().wait(model, ticket, 0, nullptr, status);
  }
  MockSeq seq(uint64_t id, std::vector<int32_t> prompt, uint32_t room_tokens = 48) {
    MockSeq s{id, std::move(prompt), {}, 0};
    for (uint32_t b = 0; b < (room_tokens + kBlockSize - 1) / kBlockSize; ++b) s.blocks.push_back(next_block_++);
    return s;
  }
  /// Prompt at once, then one token a step.
  std::vector<int32_t> answer(MockSeq &s, uint32_t n) {
    const size_t n_prompt = s.tokens.size();
    while (s.tokens.size() < n_prompt + n) {
      MockStep step;
      run(step.add(s, static_cast<uint32_t>(s.tokens.size()) - s.cached));
    }
    return {s.tokens.begin() + static_cast<std::ptrdiff_t>(n_prompt), s.tokens.end()};
  }
  const sluice_backend_vtbl &vtbl() const { return *desc_.backend; }
  int32_t health() { return vtbl().health(backend_, status); }

  PluginHost host;
  PluginStatus status;
  sluice_model *model = nullptr;
  sluice_step_result result{};

 private:
  const sluice_plugin_desc &desc_ = load_plugin(SLUICE_PLUGIN_DIR, "backend", "mock", host);
  PluginConfig config_;
  sluice_backend *backend_ = nullptr;
  uint32_t next_block_ = 0;
};

}  // namespace sluice::test

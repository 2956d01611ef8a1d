// A backend plugin driven through its table, as the engine would drive it.
#pragma once
#include "tests/backends/test_host.hpp"

#include <sluice/abi/kinds/backend.h>

#include <memory>
#include <string>
#include <vector>

namespace sluice::test {

/// Throws std::runtime_error with the plugin's words when a call fails; keeps the code of the last call.
class PluginModel {
 public:
  /// name  "reference" or "cpu": build/plugins/libsluice_backend_<name>.so
  /// heads  file of draft heads, "" = none
  PluginModel(Host &host, const std::string &name, const std::string &path, const Options &options = {},
              const std::string &heads = {});
  ~PluginModel();
  PluginModel(const PluginModel &) = delete;
  PluginModel &operator=(const PluginModel &) = delete;

  /// Room for `tokens` tokens a step. kv_dtype SLUICE_DT_*.
  void configure(uint32_t tokens, uint32_t blocks, uint32_t block_size, int kv_dtype, uint32_t host_blocks = 0,
                 uint32_t tree_nodes = 0);
  sluice_model_info info() const;
  int32_t submit(const sluice_step &step, sluice_ticket *ticket);
  void kv_ops(uint8_t op, std::vector<uint32_t> src, std::vector<uint32_t> dst);
  int32_t try_kv_op(uint8_t op, uint32_t src, uint32_t dst);

  const sluice_backend_vtbl *table = nullptr;
  sluice_model *model = nullptr;
  sluice_status status{};
  uint32_t vocab = 0;

 private:
  void check(int32_t code, const char *call);
  sluice_backend *backend_ = nullptr;
};

/// One sequence of a step: tokens to feed after kv_len cached ones, in blocks. An empty parent means causal.
struct SequenceInput {
  std::vector<int32_t> tokens;
  uint32_t kv_len = 0;
  std::vector<uint32_t> blocks;
  std::vector<int32_t> parent;
};

/// A sluice_step and the arrays behind it. Every token's logits are wanted on the host, without stages.
class StepInput {
 public:
  StepInput(const std::vector<SequenceInput> &sequences, uint32_t block_size);
  sluice_step step{};
  std::vector<int32_t> tokens, positions, parent;
  std::vector<uint32_t> slots, q_indptr{0}, kv_len, block_indptr{0}, block_ids, tree_indptr{0}, row_token, row_spec,
      row_position;
  std::vector<uint64_t> seq_ids, tree_mask, row_seed;
  std::vector<uint8_t> row_want;
  sluice_sample_spec spec{};
};

/// Submits, waits, copies [rows, vocab] logits and releases.
std::vector<float> run_logits(PluginModel &model, const std::vector<SequenceInput> &sequences, uint32_t block_size);

/// sum((a-b)^2) / sum(b^2)
double nmse(const float *a, const float *b, size_t n);

}  // namespace sluice::test

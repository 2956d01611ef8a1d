#include "tests/backends/plugin_model.hpp"

#include <sluice/abi/plugin.h>

#include <dlfcn.h>

#include <stdexcept>

namespace sluice::test {
namespace {

const sluice_backend_vtbl *load_table(Host &host, const std::string &name) {
  const std::string path = std::string(SLUICE_PLUGIN_DIR) + "/libsluice_backend_" + name + ".so";
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) throw std::runtime_error(dlerror());
  const auto entry = reinterpret_cast<sluice_plugin_entry_fn>(dlsym(library, SLUICE_PLUGIN_ENTRY_NAME));
  sluice_status status{};
  status.struct_size = sizeof status;
  const sluice_plugin_desc *desc = entry == nullptr ? nullptr : entry(&host.api, &status);
  if (desc == nullptr) throw std::runtime_error(path + ": " + status.msg);
  return desc->backend;
}

}  // namespace

PluginModel::PluginModel(Host &host, const std::string &name, const std::string &path, const Options &options,
                         const std::string &heads) {
  status.struct_size = sizeof status;
  table = load_table(host, name);
  const int32_t device = 0;
  sluice_backend_open open{};
  open.struct_size = sizeof open;
  open.n_devices = 1;
  open.device_ids = &device;
  open.config = options.handle();
  check(table->open(&host.api, &open, &backend_, &status), "open");
  sluice_model_source source{};
  source.struct_size = sizeof source;
  source.path = path.c_str();
  const char *attach = heads.c_str();
  source.n_attach = heads.empty() ? 0 : 1;
  source.attach = &attach;
  source.config = options.handle();
  const int32_t code = table->model_load(backend_, &source, &model, &status);
  if (code != SLUICE_OK) table->close(backend_);
  check(code, "model_load");
  vocab = info().vocab_size;
}

PluginModel::~PluginModel() {
  table->model_unload(model);
  table->close(backend_);
}

void PluginModel::check(int32_t code, const char *call) {
  if (code != SLUICE_OK) throw std::runtime_error(std::string(call) + ": " + status.msg);
}

sluice_model_info PluginModel::info() const {
  sluice_model_info i{};
  i.struct_size = sizeof i;
  table->model_info(model, &i, nullptr);
  return i;
}

void PluginModel::configure(uint32_t tokens, uint32_t blocks, uint32_t block_size, int kv_dtype, uint32_t host_blocks,
                            uint32_t tree_nodes) {
  sluice_model_setup s{};
  s.struct_size = sizeof s;
  s.max_tokens_per_step = s.max_rows_per_step = tokens;
  s.max_seqs_per_step = 64;
  s.kv_dtype = static_cast<uint32_t>(kv_dtype);
  s.block_size = block_size;
  s.max_candidates = 16;
  s.max_logprobs = 8;
  s.max_tree_nodes = tree_nodes;
  check(table->configure(model, &s, &blocks, host_blocks == 0 ? nullptr : &host_blocks, &status), "configure");
}

int32_t PluginModel::submit(const sluice_step &step, sluice_ticket *ticket) {
  status.msg[0] = 0;
  return table->submit(model, &step, ticket, &status);
}

int32_t PluginModel::try_kv_op(uint8_t op, uint32_t src, uint32_t dst) {
  sluice_kv_batch b{};
  b.struct_size = sizeof b;
  b.n = 1;
  b.op = &op;
  b.src = &src;
  b.dst = &dst;
  sluice_ticket ticket = 0;
  return table->kv_ops(model, &b, &ticket, &status);
}

void PluginModel::kv_ops(uint8_t op, std::vector<uint32_t> src, std::vector<uint32_t> dst) {
  const std::vector<uint8_t> ops(src.size(), op);
  sluice_kv_batch b{};
  b.struct_size = sizeof b;
  b.n = static_cast<uint32_t>(src.size());
  b.op = ops.data();
  b.src = src.data();
  b.dst = dst.data();
  sluice_ticket ticket = 0;
  check(table->kv_ops(model, &b, &ticket, &status), "kv_ops");
  check(table->wait(model, ticket, UINT64_MAX, nullptr, &status), "wait");
}

StepInput::StepInput(const std::vector<SequenceInput> &sequences, uint32_t block_size) {
  bool any_tree = false;
  for (const SequenceInput &s : sequences) {
    const auto n = static_cast<uint32_t>(s.tokens.size());
    const bool tree = !s.parent.empty();
    any_tree |= tree;
    const size_t words = (n + 63) / 64, first_word = tree_mask.size();
    if (tree) tree_mask.resize(first_word + n * words);
    const size_t first = tokens.size();
    for (uint32_t j = 0; j < n; ++j) {
      const uint32_t cell = s.kv_len + j;
      tokens.push_back(s.tokens[j]);
      slots.push_back(s.blocks.at(cell / block_size) * block_size + cell % block_size);
      const int32_t up = tree ? s.parent[j] : static_cast<int32_t>(j) - 1;
      parent.push_back(up);
      positions.push_back(up < 0 ? static_cast<int32_t>(s.kv_len) : positions[first + static_cast<size_t>(up)] + 1);
      if (tree) {
        uint64_t *mask = tree_mask.data() + first_word + j * words;
        if (up >= 0)
          for (size_t w = 0; w < words; ++w) mask[w] = tree_mask[first_word + static_cast<size_t>(up) * words + w];
        mask[j / 64] |= uint64_t{1} << (j % 64);
      }
      row_token.push_back(static_cast<uint32_t>(row_token.size()));
    }
    q_indptr.push_back(static_cast<uint32_t>(tokens.size()));
    kv_len.push_back(s.kv_len);
    block_ids.insert(block_ids.end(), s.blocks.begin(), s.blocks.end());
    block_indptr.push_back(static_cast<uint32_t>(block_ids.size()));
    tree_indptr.push_back(static_cast<uint32_t>(tree_mask.size()));
    seq_ids.push_back(seq_ids.size() + 1);
  }
  row_want.assign(tokens.size(), SLUICE_ROW_LOGITS_HOST);
  row_spec.assign(tokens.size(), 0);
  row_seed.assign(tokens.size(), 1);
  row_position.assign(tokens.size(), 0);
  spec.struct_size = sizeof spec;
  step.struct_size = sizeof step;
  step.n_tokens = step.n_rows = static_cast<uint32_t>(tokens.size());
  step.n_seqs = static_cast<uint32_t>(sequences.size());
  step.n_kv_groups = 1;
  step.tokens = tokens.data();
  step.positions = positions.data();
  step.slots = slots.data();
  step.seq_ids = seq_ids.data();
  step.q_indptr = q_indptr.data();
  step.kv_len = kv_len.data();
  step.block_indptr = block_indptr.data();
  step.block_ids = block_ids.data();
  if (any_tree) {
    step.parent = parent.data();
    step.tree_mask_indptr = tree_indptr.data();
    step.tree_mask = tree_mask.data();
  }
  step.row_token = row_token.data();
  step.row_want = row_want.data();
  step.spec = &spec;
  step.n_specs = 1;
  step.spec_stride = sizeof spec;
  step.row_spec = row_spec.data();
  step.row_seed = row_seed.data();
  step.row_position = row_position.data();
}

std::vector<float> run_logits(PluginModel &m, const std::vector<SequenceInput> &sequences, uint32_t block_size) {
  const StepInput input(sequences, block_size);
  sluice_ticket ticket = 0;
  if (m.submit(input.step, &ticket) != SLUICE_OK) throw std::runtime_error(std::string("submit: ") + m.status.msg);
  sluice_step_result result{};
  result.struct_size = sizeof result;
  if (m.table->wait(m.model, ticket, UINT64_MAX, &result, &m.status) != SLUICE_OK)
    throw std::runtime_error(std::string("wait: ") + m.status.msg);
  std::vector<float> logits(result.logits_host, result.logits_host + size_t{result.n_rows} * m.vocab);
  m.table->release(m.model, ticket);
  return logits;
}

double nmse(const float *a, const float *b, size_t n) {
  double error = 0, power = 0;
  for (size_t i = 0; i < n; ++i) {
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    power += double{b[i]} * b[i];
  }
  return error / power;
}

}  // namespace sluice::test

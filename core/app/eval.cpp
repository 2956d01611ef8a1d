#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "core/app/command.hpp"
#include "core/app/model_runtime.hpp"
#include "core/app/paths.hpp"
#include "core/app/progress.hpp"

namespace sluice::app {
namespace {

struct EvalOptions {
  std::string model = default_model_path(), backend = "reference", tokens, out, kv = "f32";
};

Result<std::vector<int32_t>> parse_tokens(const std::string &text, uint32_t vocab_size) {
  std::vector<int32_t> ids;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size() || id < 0 || static_cast<uint32_t>(id) >= vocab_size)
      return invalid_argument(fmt::format("--tokens: '{}' is not an id of 0..{}", word, vocab_size - 1));
    ids.push_back(id);
  }
  if (ids.empty()) return invalid_argument("--tokens has no ids; give them separated by spaces");
  return ids;
}

/// One causal sequence in one step, with the logits after every token. [n_tokens, vocab] f32, row-major
Result<std::vector<float>> logits_of(plugin::LoadedModel &model, const std::vector<int32_t> &tokens,
                                     const config::Kv &kv) {
  const auto n = static_cast<uint32_t>(tokens.size());
  const auto &info = model.info();
  sluice_model_setup setup{};
  setup.struct_size = SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs);
  setup.max_tokens_per_step = setup.max_rows_per_step = n;
  setup.max_seqs_per_step = 1;
  setup.max_context = std::max(n, 1U);
  auto size = configure_kv(model, setup, kv, n);
  if (!size) return size.error();

  std::vector<int32_t> positions(n);
  std::vector<uint32_t> slots(n), rows(n), zeros(n, 0), row_positions(n), blocks(size->blocks);
  for (uint32_t i = 0; i < size->blocks; ++i) blocks[i] = i;
  for (uint32_t i = 0; i < n; ++i) {
    positions[i] = static_cast<int32_t>(i);
    slots[i] = rows[i] = i;
    row_positions[i] = i + 1;
  }
  const std::vector<uint8_t> want(n, SLUICE_ROW_LOGITS_HOST);
  const std::vector<uint64_t> seeds(n, 0);
  const sluice_seq_id seq = 1;
  const uint32_t indptr[] = {0, n};
  const uint32_t block_indptr[] = {0, size->blocks};
  sluice_sample_spec spec{};
  spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  sluice_step step{};
  step.struct_size = SLUICE_SIZE_THROUGH(sluice_step, row_history);
  step.step_no = 1;
  step.n_tokens = step.n_rows = n;
  step.n_seqs = step.n_kv_groups = step.n_specs = 1;
  step.tokens = tokens.data();
  step.positions = positions.data();
  step.slots = slots.data();
  step.seq_ids = &seq;
  step.q_indptr = indptr;
  step.kv_len = zeros.data();
  step.block_indptr = block_indptr;
  step.block_ids = blocks.data();
  step.row_token = rows.data();
  step.row_want = want.data();
  step.spec = &spec;
  step.spec_stride = sizeof spec;
  step.row_spec = zeros.data();
  step.row_seed = seeds.data();
  step.row_position = row_positions.data();

  const auto *vtbl = model.vtbl();
  sluice_ticket ticket = 0;
  if (auto r = engine::call(model.name().c_str(), vtbl->submit, model.get(), &step, &ticket); !r)
    return r.error().error;
  sluice_step_result result{};
  result.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
  auto waited = engine::call(model.name().c_str(), vtbl->wait, model.get(), ticket, UINT64_MAX, &result);
  std::vector<float> logits;
  if (waited && result.logits_host != nullptr)
    logits.assign(result.logits_host, result.logits_host + size_t{n} * info.vocab_size);
  vtbl->release(model.get(), ticket);
  if (!waited) return waited.error().error;
  if (logits.empty()) return Error{Code::kInternal, model.name() + " gave no logits", {}};
  return logits;
}

int eval_logits(const EvalOptions &options) {
  const SteadyClock clock;
  auto house = PluginHouse::open({}, clock, nullptr);
  if (!house) return fail(house.error());
  config::Model model;
  model.name = "eval";
  model.backend.name = options.backend;
  std::vector<config::Problem> problems;
  const auto plugins = (*house)->configure(model, problems);
  if (!problems.empty()) return fail(invalid_argument(problems.front().message));
  auto loaded = LoadedBackend::load(model.name, plugins.backend, (*house)->host(), absolute_path(options.model), {});
  if (!loaded) return fail(loaded.error());
  auto tokens = parse_tokens(options.tokens, loaded->model->info().vocab_size);
  if (!tokens) return fail(tokens.error());
  config::Kv kv;
  kv.dtype = options.kv;
  auto logits = logits_of(*loaded->model, *tokens, kv);
  if (!logits) return fail(logits.error());
  std::ofstream out(options.out, std::ios::binary);
  out.write(reinterpret_cast<const char *>(logits->data()), static_cast<std::streamsize>(logits->size() * sizeof(float)));
  out.flush();
  if (!out) return fail({Code::kUnavailable, options.out + " cannot be written", {}});
  fmt::print("{}: f32 [{}, {}]\n", options.out, tokens->size(), loaded->model->info().vocab_size);
  return 0;
}

}  // namespace

void add_eval(CLI::App &app, Exit exit) {
  auto options = std::make_shared<EvalOptions>();
  auto *command = app.add_subcommand("eval", "Compute with a model, for comparison");
  command->require_subcommand(1);
  auto *logits = command->add_subcommand("logits", "The logits after each token of a sequence, f32 [n_tokens, vocab]");
  logits->add_option("--model", options->model, "GGUF file; the model that ships without it");
  logits->add_option("--backend", options->backend, "Backend plugin")->capture_default_str();
  logits->add_option("--kv", options->kv, "Type of keys and values")
      ->check(CLI::IsMember({"f32", "f16", "auto"}))->capture_default_str();
  logits->add_option("--tokens", options->tokens, "Token ids, separated by spaces")->required();
  logits->add_option("--out", options->out, "File to write, little endian")->required();
  logits->callback([=] { exit(eval_logits(*options)); });
}

}  // namespace sluice::app

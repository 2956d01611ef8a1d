#include "backends/graph/graph_model.hpp"
#include "backends/graph/architectures.hpp"
#include "backends/graph/draft_heads.hpp"

#include <sluice/sdk/error.hpp>

#include <algorithm>
#include <cstdio>

namespace sluice::graph {
namespace {

/// Left to the rest of the process and the system when the cache is sized from what is free.
constexpr uint64_t kMemoryMarginBytes = uint64_t{256} << 20;

[[noreturn]] void refuse(const Error &error) { throw sdk::Error(static_cast<int32_t>(error.code), error.message); }

model_file::Gguf open_file(const char *path) {
  auto file = model_file::Gguf::open(path);
  if (!file) refuse(file.error());
  return std::move(*file);
}

std::optional<model_file::Safetensors> open_heads(const sluice_model_source &source) {
  if (source.n_attach == 0) return std::nullopt;
  if (source.n_attach > 1)
    throw sdk::Error(SLUICE_E_UNSUPPORTED,
                     std::to_string(source.n_attach) + " files of draft heads are attached; one is taken");
  sdk::need(source.attach, source.attach == nullptr ? nullptr : source.attach[0]);
  auto file = model_file::Safetensors::open(source.attach[0]);
  if (!file) refuse(file.error());
  return std::move(*file);
}

BuiltModel build(ModelBuilder builder) {
  const Architecture *architecture = find_architecture(builder.arch());
  if (architecture == nullptr)
    throw sdk::Error(SLUICE_E_UNSUPPORTED, "architecture '" + model_file::printable(builder.arch()) +
                                               "' is not built; known are " + architecture_names());
  return architecture->build(builder);
}

}  // namespace

GraphModel::GraphModel(const sluice_host_api &host, std::unique_ptr<Device> device, const sluice_model_source &source,
                       const ModelOptions &options)
    : host_(host),
      file_(open_file(source.path)),
      heads_(open_heads(source)),
      device_(std::move(device)),
      options_(options) {
  const auto progress = [&source](uint64_t done, uint64_t total) {
    return source.progress == nullptr || source.progress(source.progress_ctx, "weights", done, total) == 0;
  };
  built_ = build(ModelBuilder(file_, *device_, progress));
  if (const auto unchanged = file_.check_unchanged(); !unchanged) refuse(unchanged.error());
  if (!heads_) return;
  add_draft_heads(*heads_, *device_, built_);
  if (const auto unchanged = heads_->check_unchanged(); !unchanged) refuse(unchanged.error());
}

void GraphModel::info(sluice_model_info &out) const {
  const ModelShape &m = built_.shape;
  out.vocab_size = m.vocab;
  out.hidden_size = m.hidden;
  out.n_layers = m.layers;
  out.max_context = m.max_context_tokens;
  out.kv_mode = SLUICE_KV_MODE_PAGED;
  out.n_kv_groups = 1;
  out.kv_dtypes = SLUICE_DT_BIT(SLUICE_DT_F32) | SLUICE_DT_BIT(SLUICE_DT_F16);
  out.caps = SLUICE_CAP_MIXED_BATCH | SLUICE_CAP_TREE | SLUICE_CAP_MOVE_SLOTS | SLUICE_CAP_KV_HOST_SPACE |
             (options_.deterministic ? SLUICE_CAP_BATCH_INVARIANT : 0);
  out.n_heads = m.n_heads;
  out.head_top = m.head_top;
  out.weights_bytes = device_->weights_bytes();
  std::snprintf(out.arch, sizeof out.arch, "%s", m.arch.c_str());
}

uint64_t GraphModel::workspace_bytes(const Settings &s) const {
  return StepRunner::buffer_bytes(built_.program, s.limits) + device_->scratch_bytes(s.limits, built_.program.ops) +
         RowProcessor::workspace_bytes(built_.shape.vocab, host_.n_workers(host_.host)) +
         kResultSlots * RowResults::bytes(s, built_.shape) +
         uint64_t{8} * s.kv.block_size_tokens * s.kv.device_blocks;  // StepCheck's stamps
}

void GraphModel::plan_memory(const sluice_model_setup &setup, sluice_memory_plan &out) const {
  const Settings s = settle(setup, built_.shape, options_.default_kv);
  const uint64_t workspace = workspace_bytes(s), available = device_->memory().available_bytes;
  if (workspace + kMemoryMarginBytes >= available)
    throw sdk::Error(SLUICE_E_RESOURCE_EXHAUSTED,
                     "the workspace needs " + std::to_string(workspace >> 20) + " MiB, " +
                         std::to_string(available >> 20) +
                         " MiB are available; lower max_tokens_per_step or max_rows_per_step");
  // A block's bookkeeping counts with its bytes. Cache and swap space come from the same memory here: a fifth is left
  // to swap, so that taking all of both still fits.
  const uint64_t rest = available - workspace - kMemoryMarginBytes, block = s.kv.bytes_per_block();
  const double share = static_cast<double>(block) / static_cast<double>(block + 8 * s.kv.block_size_tokens);
  out.block_size = s.kv.block_size_tokens;
  out.workspace_bytes = workspace;
  out.kv_bytes_available = static_cast<uint64_t>(static_cast<double>(rest - rest / 5) * share);
  out.host_bytes_available = rest / 5;
}

std::vector<sluice_kv_group> GraphModel::kv_groups(const sluice_model_setup &setup) const {
  const Settings s = settle(setup, built_.shape, options_.default_kv);
  return {{SLUICE_SIZE_THROUGH(sluice_kv_group, window), s.kv.block_size_tokens, s.kv.bytes_per_block(), 0, 0}};
}

void GraphModel::configure(const sluice_model_setup &setup, const uint32_t *device_blocks,
                           const uint32_t *host_blocks) {
  sdk::need(device_blocks);
  Settings s = settle(setup, built_.shape, options_.default_kv);
  if (*device_blocks == 0 || uint64_t{*device_blocks} * s.kv.block_size_tokens >= SLUICE_NO_SLOT)
    throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, "device_blocks is " + std::to_string(*device_blocks) +
                                                    "; it must be at least 1 and its slots fewer than 2^32 - 1");
  if ((setup.flags & SLUICE_SETUP_BATCH_INVARIANT) != 0 && !options_.deterministic)
    throw sdk::Error(SLUICE_E_UNSUPPORTED, "SETUP_BATCH_INVARIANT needs the option deterministic = true");
  if (std::any_of(results_.begin(), results_.end(), [](const ResultSlot &r) { return r.ticket != 0; }))
    throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, "configure while a step's result is not released");
  s.kv.device_blocks = *device_blocks;
  s.kv.host_blocks = host_blocks == nullptr ? 0 : *host_blocks;
  settings_.configured = false;  // until all of it has succeeded
  runner_.reset();
  device_->configure(s.limits, built_.program.ops, s.kv);
  runner_ = std::make_unique<StepRunner>(*device_, built_.program, s, options_.deterministic ? kSplitTokens : 0);
  rows_ = std::make_unique<RowProcessor>(host_, s, built_.shape.vocab);
  check_ = StepCheck(built_.shape, s);
  results_ = std::vector<ResultSlot>(kResultSlots);
  for (ResultSlot &r : results_) r.results = RowResults(s, built_.shape);
  s.configured = true;
  settings_ = s;
}

void GraphModel::sample_caps(sluice_sample_caps &out) const {
  out.flags = SLUICE_SCF_ANY_ORDER | SLUICE_SCF_TOP_K_TIES | SLUICE_SCF_CANONICAL_DRAW;
  out.stages = kStages;
  out.forms = row_forms(built_.shape);
  out.max_top_k = 0;
  out.max_logprobs = settings_.configured ? settings_.max_logprobs : built_.shape.vocab;
  out.max_candidates = settings_.configured ? settings_.max_candidates : built_.shape.vocab;
  out.logprobs_kinds = (1u << SLUICE_LOGPROBS_RAW) | (1u << SLUICE_LOGPROBS_PROCESSED) | (1u << SLUICE_LOGITS_RAW) |
                       (1u << SLUICE_LOGITS_PROCESSED);
}

sluice_ticket GraphModel::submit(const sluice_step &step) {
  if (!settings_.configured) throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, "submit before configure");
  ResultSlot *slot = nullptr;
  {
    const std::lock_guard lock(mutex_);
    for (ResultSlot &r : results_)
      if (r.ticket == 0) slot = &r;
  }
  if (slot == nullptr)
    throw sdk::Error(SLUICE_E_RESOURCE_EXHAUSTED,
                     std::to_string(kResultSlots) + " results are not released; release one before the next submit");
  check_.check(step);
  const uint64_t start_ns = host_.now_ns(host_.host);
  const uint64_t fence = runner_->run(step);
  device_->wait(fence, UINT64_MAX);
  rows_->extend_histories(step);
  rows_->process(step, runner_->logits(), slot->results);
  slot->results.take_heads(step, runner_->head_ids(), runner_->head_logprobs());
  slot->device_ns = host_.now_ns(host_.host) - start_ns;
  const std::lock_guard lock(mutex_);
  return slot->ticket = ++last_ticket_;
}

sluice_ticket GraphModel::kv_ops(const sluice_kv_batch &batch) {
  if (!settings_.configured) throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, "kv_ops before configure");
  device_->kv_moves(check_.check(batch));
  const std::lock_guard lock(mutex_);
  return ++last_ticket_;
}

bool GraphModel::wait(sluice_ticket ticket, uint64_t, sluice_step_result *out) {
  const std::lock_guard lock(mutex_);
  if (ticket > last_ticket_)
    throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, "ticket " + std::to_string(ticket) + " was never given");
  if (out == nullptr) return true;
  for (const ResultSlot &r : results_) {
    if (ticket == 0 || r.ticket != ticket) continue;
    r.results.describe(*out);
    out->device_ns = r.device_ns;
    return true;
  }
  throw sdk::Error(SLUICE_E_INVALID_ARGUMENT,
                   "ticket " + std::to_string(ticket) + " has no result, or it was released");
}

void GraphModel::release(sluice_ticket ticket) {
  const std::lock_guard lock(mutex_);
  for (ResultSlot &r : results_)
    if (ticket != 0 && r.ticket == ticket) r.ticket = 0;
}

}  // namespace sluice::graph

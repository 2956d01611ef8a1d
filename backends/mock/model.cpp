#include "model.hpp"

#include "sampling_caps.hpp"

#include <chrono>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

namespace sluice::mock {
namespace {

constexpr uint32_t kDefaultBlockSize = 16;
constexpr uint64_t kBytesPerToken = 1024;  // what the mock says a cached token costs
constexpr uint32_t kMaxTreeNodes = 256;
constexpr uint64_t kCaps = SLUICE_CAP_MIXED_BATCH | SLUICE_CAP_TREE | SLUICE_CAP_MOVE_SLOTS | SLUICE_CAP_KV_HOST_SPACE |
                           SLUICE_CAP_TOKEN_FEED | SLUICE_CAP_BATCH_INVARIANT;

[[noreturn]] void refuse(const std::string &what) { throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, what); }

}  // namespace

MockModel::MockModel(const sluice_host_api &host, Options options, std::atomic<bool> &device_lost)
    : host_(host), options_(std::move(options)), device_lost_(device_lost), timeline_(host), rows_(options_.script) {}

void MockModel::info(sluice_model_info &out) const {
  out.vocab_size = options_.script.vocab_size;
  out.hidden_size = 1, out.n_layers = 1, out.max_context = options_.max_context;
  out.kv_mode = SLUICE_KV_MODE_PAGED, out.n_kv_groups = 1;
  out.kv_dtypes = SLUICE_DT_BIT(SLUICE_DT_F32) | SLUICE_DT_BIT(SLUICE_DT_F16) | SLUICE_DT_BIT(SLUICE_DT_BF16);
  out.max_tree_nodes = kMaxTreeNodes;
  out.caps = kCaps;
  std::strcpy(out.arch, "mock");
}

uint32_t MockModel::block_size_of(const sluice_model_setup &setup) const {
  const uint32_t size = setup.block_size == 0 ? kDefaultBlockSize : setup.block_size;
  if (size > 1024)
    throw sdk::Error(SLUICE_E_UNSUPPORTED, "block_size is " + std::to_string(size) + "; the mock takes 1..1024 tokens");
  if (setup.kv_dtype != 0 && setup.kv_dtype != SLUICE_DT_F32 && setup.kv_dtype != SLUICE_DT_F16 &&
      setup.kv_dtype != SLUICE_DT_BF16)
    throw sdk::Error(SLUICE_E_UNSUPPORTED, "kv_dtype " + std::to_string(setup.kv_dtype) + " is not one of info()");
  if ((setup.flags & 0xffffu & ~SLUICE_SETUP_BATCH_INVARIANT) != 0)
    throw sdk::Error(SLUICE_E_UNSUPPORTED, "setup.flags has unknown bits: " + std::to_string(setup.flags));
  return size;
}

void MockModel::plan_memory(const sluice_model_setup &setup, sluice_memory_plan &out) const {
  out.block_size = block_size_of(setup);
  out.workspace_bytes = uint64_t{setup.max_tokens_per_step} * 16;
  out.kv_bytes_available = uint64_t{options_.kv_tokens} * kBytesPerToken;
  out.host_bytes_available = uint64_t{options_.host_kv_tokens} * kBytesPerToken;
}

std::vector<sluice_kv_group> MockModel::kv_groups(const sluice_model_setup &setup) const {
  sluice_kv_group group{};
  group.struct_size = SLUICE_SIZE_THROUGH(sluice_kv_group, reserved);
  group.block_size = block_size_of(setup);
  group.bytes_per_block = group.block_size * kBytesPerToken;
  return {group};
}

void MockModel::configure(const sluice_model_setup &setup, const uint32_t *device_blocks, const uint32_t *host_blocks) {
  sdk::need(device_blocks);
  for (const Flight &f : flights_)
    if (f.ticket.load() != 0) refuse("configure: a step is in flight; release it first");
  const uint32_t size = block_size_of(setup), n_host = host_blocks == nullptr ? 0 : host_blocks[0];
  const uint64_t limit = uint64_t{1} << 27;
  if (uint64_t{device_blocks[0]} * size > limit || uint64_t{n_host} * size > limit)
    throw sdk::Error(SLUICE_E_RESOURCE_EXHAUSTED, std::to_string(device_blocks[0]) +
                                                      " blocks are more than the mock keeps; at most " +
                                                      std::to_string(limit / size) + " of this size");
  kv_.emplace(device_blocks[0], n_host, size);
  sequences_ = {};
  limits_ = {options_.script.vocab_size,
             size,
             device_blocks[0],
             setup.max_tokens_per_step,
             setup.max_seqs_per_step,
             setup.max_rows_per_step,
             options_.max_context,
             setup.max_candidates,
             setup.max_logprobs,
             std::min(setup.max_tree_nodes, kMaxTreeNodes),
             0};
  last_drawn_.clear(), last_drawn_.reserve(limits_.max_rows);
  tokens_.reserve(limits_.max_tokens), context_.reserve(limits_.max_tokens), sequence_.reserve(limits_.max_seqs);
  written_.assign(kv_->slots(), 0);
  rows_.configure(limits_.max_seqs);
  for (Flight &f : flights_) f.rows.reserve(limits_.max_rows);
}

void MockModel::sample_caps(sluice_sample_caps &out) const {
  out.flags = SLUICE_SCF_ANY_ORDER | SLUICE_SCF_TOP_K_TIES | SLUICE_SCF_CANONICAL_DRAW;
  out.stages = kStages;
  out.forms = kForms;
  out.max_logprobs = std::min<uint32_t>(options_.script.vocab_size, 256);
  out.max_candidates = std::min<uint32_t>(options_.script.vocab_size, 1024);
  out.logprobs_kinds = 15;
}

void MockModel::check_alive() const {
  if (device_lost_.load(std::memory_order_relaxed))
    throw sdk::Error(SLUICE_E_DEVICE_LOST, "injected fault: the device is lost since step " +
                                               std::to_string(options_.faults.lost_at) + " (lost_at)");
  if (!kv_) refuse("the model is not configured");
}

void MockModel::fail(const char *where) const {
  const std::string text = std::string("injected fault: ") + where +
                           " fails (fail_every = " + std::to_string(options_.faults.fail_every) + ")";
  if (options_.faults.fail_poisoned) throw std::runtime_error(text);  // INTERNAL, and POISONED
  throw sdk::Error(options_.faults.fail_code, text);
}

MockModel::Flight &MockModel::free_flight() {
  for (Flight &f : flights_)
    if (f.ticket.load(std::memory_order_relaxed) == 0) return f;
  throw sdk::Error(SLUICE_E_RESOURCE_EXHAUSTED,
                   std::to_string(kMaxFlights) + " steps are in flight; release one first");
}

MockModel::Flight *MockModel::find(sluice_ticket ticket) {
  for (Flight &f : flights_)
    if (f.ticket.load(std::memory_order_acquire) == ticket) return &f;
  return nullptr;
}

sluice_ticket MockModel::submit(const sluice_step &step) {
  const uint64_t n = ++n_submit_;
  if (options_.faults.lost(n) && kv_) device_lost_.store(true, std::memory_order_relaxed);
  check_alive();
  if (options_.faults.crash_at == n) std::raise(SIGSEGV);
  if (options_.faults.block_at == n) std::this_thread::sleep_for(std::chrono::milliseconds(options_.faults.block_ms));
  const bool fails = options_.faults.fails(n);
  if (fails && !options_.faults.fail_in_wait) fail("submit");
  Flight &flight = free_flight();
  limits_.prev_rows = static_cast<uint32_t>(last_drawn_.size());
  check_step(step, limits_);
  resolve_tokens(step);
  const uint64_t context_tokens = check_caches(step);
  check_slots_once(step);
  flight.failed = fails;
  if (fails) {
    forget(step);
    last_drawn_.clear();
  } else {
    store(step);
    rows_.update_history(step);
    speak(step, flight.rows);
    if (options_.faults.garbles(n))
      for (int32_t &token : flight.rows.token) token = static_cast<int32_t>(options_.script.vocab_size) + 7;
  }
  const bool hangs = options_.faults.hang_at == n;
  const Timeline::Queued q = timeline_.queue(hangs ? UINT64_MAX : options_.time.ns(n, step.n_tokens, context_tokens));
  flight.n_submit = n, flight.device_ns = q.end_ns - q.begin_ns, flight.queue_ns = q.begin_ns - q.submit_ns;
  flight.ticket.store(q.ticket, std::memory_order_release);
  return q.ticket;
}

void MockModel::resolve_tokens(const sluice_step &step) {
  tokens_.assign(step.tokens, step.tokens + step.n_tokens);
  for (uint32_t t = 0; t < step.n_tokens; ++t) {
    if (tokens_[t] >= 0) continue;
    const auto row = static_cast<uint32_t>(-1 - tokens_[t]);
    tokens_[t] = last_drawn_[row];
    if (tokens_[t] < 0)
      refuse("tokens[" + std::to_string(t) + "] names row " + std::to_string(row) +
             " of the step before, for which no token was drawn");
  }
}

/// returns  cached tokens that the step looks at.
uint64_t MockModel::check_caches(const sluice_step &step) {
  sequences_.sweep(n_submit_);
  sequence_.clear();
  uint64_t context_tokens = 0;
  for (uint32_t s = 0; s < step.n_seqs; ++s) {
    Sequence &sequence = sequences_.at(step.seq_ids[s]);
    if (sequence.last_submit == n_submit_)
      refuse("sequence " + std::to_string(step.seq_ids[s]) + " stands twice in the step");
    sequence.last_submit = n_submit_;
    if (options_.check_kv)
      check_cache(*kv_, step.seq_ids[s], step.block_ids + step.block_indptr[s], step.kv_len[s], sequence);
    sequence_.push_back(&sequence);
    context_tokens += step.kv_len[s];
  }
  return context_tokens;
}

void MockModel::check_slots_once(const sluice_step &step) {
  for (uint32_t t = 0; t < step.n_tokens; ++t) {
    const uint32_t slot = step.slots[t];
    if (slot == SLUICE_NO_SLOT) continue;
    if (slot >= kv_->slots())
      refuse("slots[" + std::to_string(t) + "] is " + std::to_string(slot) + "; there are " +
             std::to_string(kv_->slots()));
    if (written_[slot] == n_submit_)
      refuse("slots[" + std::to_string(t) + "]: block " + std::to_string(slot / kv_->block_size()) + " slot " +
             std::to_string(slot % kv_->block_size()) + " is written twice in the step; a block is shared wrongly");
    written_[slot] = n_submit_;
  }
}

/// What a failed step would have written is unknown, so nobody may read it.
void MockModel::forget(const sluice_step &step) {
  for (uint32_t t = 0; t < step.n_tokens; ++t)
    if (step.slots[t] != SLUICE_NO_SLOT) kv_->forget(step.slots[t]);
}

void MockModel::store(const sluice_step &step) {
  context_.resize(step.n_tokens);
  for (uint32_t s = 0; s < step.n_seqs; ++s) {
    const uint32_t begin = step.q_indptr[s], kv_len = step.kv_len[s];
    const uint32_t *blocks = step.block_ids + step.block_indptr[s];
    const uint32_t size = kv_->block_size(), last = kv_len - 1;
    const uint64_t before = kv_len == 0 ? kEmptyContext : kv_->slot(blocks[last / size] * size + last % size).context;
    const bool tree = is_tree(step, s);
    bool stored_all = !tree && options_.check_kv;
    for (uint32_t t = begin; t < step.q_indptr[s + 1]; ++t) {
      const int32_t parent = tree ? step.parent[t] : static_cast<int32_t>(t - begin) - 1;
      context_[t] = extend(parent < 0 ? before : context_[begin + static_cast<uint32_t>(parent)], tokens_[t]);
      if (step.slots[t] == SLUICE_NO_SLOT) {
        stored_all = false;
        continue;
      }
      const KvSlot value{tokens_[t], context_[t]};
      if (stored_all)
        store_token(*kv_, blocks, step.slots[t], kv_len + t - begin, value, *sequence_[s]);
      else
        kv_->write(step.slots[t], value);
    }
  }
}

/// Decides every row and leaves the drawn tokens for a step that feeds them.
void MockModel::speak(const sluice_step &step, RowResults &results) {
  rows_.begin(step, results);
  uint32_t s = 0, first_row = 0;
  for (uint32_t r = 0; r < step.n_rows; ++r) {
    while (step.row_token[r] >= step.q_indptr[s + 1]) ++s;
    if (r == 0 || step.row_token[r - 1] < step.q_indptr[s]) first_row = step.row_token[r];
    if (sequence_[s]->n_prompt == 0) {  // its first step with rows: the last row stands behind the prompt
      uint32_t last = r;
      while (last + 1 < step.n_rows && step.row_token[last + 1] < step.q_indptr[s + 1]) ++last;
      sequence_[s]->n_prompt = step.row_position[last];
    }
    rows_.decide(step, r, choice_for(step, s, step.row_token[r]), tokens_.data(), step.q_indptr[s], first_row, results);
  }
  last_drawn_.assign(results.token.begin(), results.token.begin() + step.n_rows);
}

Choice MockModel::choice_for(const sluice_step &step, uint32_t s, uint32_t t) const {
  const uint32_t begin = step.q_indptr[s], kv_len = step.kv_len[s], size = kv_->block_size();
  const uint32_t *blocks = step.block_ids + step.block_indptr[s];
  const auto position = static_cast<uint32_t>(step.positions[t]) + 1;
  const bool tree = is_tree(step, s);
  const auto token_at = [&](uint32_t i) {
    if (i < kv_len) return kv_->slot(blocks[i / size] * size + i % size).token;
    if (!tree) return tokens_[begin + i - kv_len];
    uint32_t node = t;
    while (step.positions[node] > static_cast<int32_t>(i)) node = begin + static_cast<uint32_t>(step.parent[node]);
    return tokens_[node];
  };
  return choose(options_.script, context_[t], position, std::min(sequence_[s]->n_prompt, position), token_at);
}

sluice_ticket MockModel::kv_ops(const sluice_kv_batch &batch) {
  check_alive();
  if (batch.n > 0) sdk::need(batch.op, batch.src, batch.dst);
  const uint32_t device = kv_->device_blocks(), host = kv_->host_blocks(), slots = kv_->slots();
  for (uint32_t i = 0; i < batch.n; ++i) {  // all of it is checked before any of it is done
    if (batch.group != nullptr && batch.group[i] != 0)
      refuse("kv_ops: group[" + std::to_string(i) + "] is " + std::to_string(batch.group[i]) +
             "; the mock has group 0");
    uint32_t from = device, to = device;
    switch (batch.op[i]) {
      case SLUICE_KV_COPY:
        break;
      case SLUICE_KV_SWAP_OUT:
        to = host;
        break;
      case SLUICE_KV_SWAP_IN:
        from = host;
        break;
      case SLUICE_KV_MOVE_SLOTS:
        from = to = slots;
        break;
      default:
        throw sdk::Error(SLUICE_E_UNSUPPORTED, "kv_ops: op " + std::to_string(batch.op[i]) + " is not known here");
    }
    if (batch.src[i] >= from || batch.dst[i] >= to)
      refuse("kv_ops[" + std::to_string(i) + "]: " + std::to_string(batch.src[i]) + " -> " +
             std::to_string(batch.dst[i]) + " is out of range");
  }
  for (uint32_t i = 0; i < batch.n; ++i) {
    const uint32_t src = batch.src[i], dst = batch.dst[i];
    switch (batch.op[i]) {
      case SLUICE_KV_COPY:
        kv_->copy(src, dst);
        break;
      case SLUICE_KV_SWAP_OUT:
        kv_->swap_out(src, dst);
        break;
      case SLUICE_KV_SWAP_IN:
        kv_->swap_in(src, dst);
        break;
      default:
        kv_->move(src, dst);
    }
  }
  // A batch is timed by its first swap: out and in come apart, since they overlap.
  for (uint32_t i = 0; i < batch.n; ++i) {
    if (batch.op[i] != SLUICE_KV_SWAP_OUT && batch.op[i] != SLUICE_KV_SWAP_IN) continue;
    const auto ns = static_cast<uint64_t>(options_.swap_block_us * 1000 * batch.n);
    return timeline_.queue(ns, batch.op[i] == SLUICE_KV_SWAP_OUT ? Lane::kSwapOut : Lane::kSwapIn).ticket;
  }
  return timeline_.queue(0).ticket;
}

bool MockModel::wait(sluice_ticket ticket, uint64_t timeout_ns, sluice_step_result *out) {
  if (ticket > timeline_.last_ticket()) refuse("ticket " + std::to_string(ticket) + " was never given out");
  if (device_lost_.load(std::memory_order_relaxed)) check_alive();
  Flight *flight = ticket == 0 ? nullptr : find(ticket);
  if (out != nullptr && flight == nullptr) refuse("ticket " + std::to_string(ticket) + " is not a step in flight");
  if (ticket != 0 && !timeline_.wait(ticket, timeout_ns)) return false;
  if (flight != nullptr && flight->failed) fail("step");
  if (out == nullptr || flight == nullptr) return true;
  flight->rows.give(*out);
  out->device_ns = flight->device_ns, out->queue_ns = flight->queue_ns;
  return true;
}

void MockModel::release(sluice_ticket ticket) {
  if (Flight *flight = ticket == 0 ? nullptr : find(ticket)) flight->ticket.store(0, std::memory_order_release);
}

}  // namespace sluice::mock

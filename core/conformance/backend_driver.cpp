#include "core/conformance/backend_driver.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

namespace sluice::conformance {
namespace {

constexpr uint64_t kStepPatienceNs = 20'000'000'000;

}  // namespace

bool BackendDriver::load(const plugin::Library &library, const sluice_host_api *api, const plugin::Options &options,
                       const std::string &path) {
  findings_.doing("loading the model");
  auto backend = plugin::Backend::open(library, api, options);
  if (!backend) return findings_.skip("open is refused: " + backend.error().message), false;
  backend_ = std::move(*backend);
  plugin::LoadedModel::Source source;
  source.path = path;
  auto model = plugin::LoadedModel::load(*backend_, source, options);
  if (!model) return findings_.skip("this model is refused (--model takes another): " + model.error().message), false;
  model_ = std::move(*model);
  if (model_->info().kv_mode != SLUICE_KV_MODE_PAGED || model_->info().n_kv_groups != 1)
    return findings_.skip("only paged KV with one group is checked so far"), false;
  exact_ = (model_->info().caps & SLUICE_CAP_BATCH_INVARIANT) != 0;
  sluice_model_setup setup{};
  setup.struct_size = SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs);
  setup.flags = exact_ ? SLUICE_SETUP_BATCH_INVARIANT : 0;
  setup.max_tokens_per_step = kMaxTokens, setup.max_seqs_per_step = kMaxSeqs;
  setup.max_rows_per_step = kMaxTokens;
  setup.max_context = std::min(kMaxContext, model_->info().max_context);
  if ((model_->info().caps & SLUICE_CAP_TREE) != 0) setup.max_tree_nodes = 16;
  auto plan = model_->plan_memory(setup);
  if (!plan) return refused("plan_memory", plan.error());
  setup.block_size = block_size_ = plan->block_size;
  if (block_size_ == 0 || block_size_ > 4096)
    return findings_.fail("F0 a step's parts fit", fmt::format("block_size is {}", block_size_), "settle on 8 to 256 tokens"), false;
  if (auto r = model_->kv_groups(setup); !r) return refused("kv_groups", r.error());
  const uint32_t blocks = kBlocks, host_blocks = kHostBlocks;
  const bool swaps = (model_->info().caps & SLUICE_CAP_KV_HOST_SPACE) != 0;
  const std::span<const uint32_t> host = swaps ? std::span(&host_blocks, 1) : std::span<const uint32_t>();
  if (auto r = model_->configure(setup, {&blocks, 1}, host); !r) return refused("configure", r.error());
  const auto caps = model_->sample_caps();
  if (!caps) return refused("sample_caps", caps.error());
  if ((caps->forms & SLUICE_ROW_LOGITS_HOST) == 0)
    return findings_.fail("F1 host logits are always there", fmt::format("sample_caps.forms is {:#x}", caps->forms),
                          "every backend delivers ROW_LOGITS_HOST; it is the last resort of samplers"), false;
  prompt_.resize(std::min<uint32_t>(52, setup.max_context - 8));
  for (size_t i = 0; i < prompt_.size(); ++i)
    prompt_[i] = static_cast<int32_t>((11 + i * i * 7) % std::max(1u, model_->info().vocab_size - 3) + 3) % static_cast<int32_t>(model_->info().vocab_size);
  return true;
}
bool BackendDriver::refused(const char *call, const Error &error) {
  findings_.fail("F0 an ordinary setup is accepted", std::string(call) + ": " + error.message,
                 "64 tokens, 4 sequences and 48 blocks are little; refuse by name what cannot be done");
  return false;
}

BackendSequence BackendDriver::make(const std::vector<int32_t> &tokens, uint32_t first, int32_t stride) {
  BackendSequence s;
  s.id = ++next_id_, s.tokens = tokens;
  const auto n = static_cast<uint32_t>((tokens.size() + block_size_ - 1) / block_size_);
  for (uint32_t i = 0; i < n; ++i) s.blocks.push_back(static_cast<uint32_t>(static_cast<int32_t>(first) + static_cast<int32_t>(i) * stride) % kBlocks);
  return s;
}

struct BackendDriver::Arrays {
  std::vector<int32_t> tokens, positions;
  std::vector<uint32_t> slots, q_indptr{0}, kv_len, block_indptr{0}, block_ids, row_token, row_spec, row_position;
  std::vector<int32_t> parent;
  std::vector<uint32_t> mask_indptr{0};
  std::vector<uint64_t> seq_ids, row_seed, mask;
  std::vector<uint8_t> row_want;
  sluice_sample_spec spec{};
  sluice_step step{};
};

void BackendDriver::fill(Arrays &a, const std::vector<BackendPart> &parts) {
  bool any_tree = false;
  for (const auto &part : parts) any_tree |= !part.parent.empty();
  for (const auto &[s, n, parent] : parts) {
    const auto first = static_cast<uint32_t>(a.tokens.size());
    std::vector<uint32_t> depth(n);
    for (uint32_t i = 0; i < n; ++i) {
      const uint32_t at = s->cached + i;
      const int32_t up = parent.empty() ? static_cast<int32_t>(i) - 1 : parent[i];
      depth[i] = up < 0 ? 0 : depth[static_cast<size_t>(up)] + 1;
      a.tokens.push_back(s->tokens[at]), a.positions.push_back(static_cast<int32_t>(s->cached + depth[i]));
      a.slots.push_back(s->blocks[at / block_size_] * block_size_ + at % block_size_);
      a.parent.push_back(up);
      if (!parent.empty()) a.mask.push_back((up < 0 ? 0 : a.mask[a.mask.size() - i + static_cast<size_t>(up)]) | uint64_t{1} << i);
      if (parent.empty() && i + 1 < n) continue;
      a.row_token.push_back(first + i), a.row_want.push_back(SLUICE_ROW_LOGITS_HOST);
      a.row_spec.push_back(0), a.row_seed.push_back(1), a.row_position.push_back(s->cached + depth[i] + 1);
    }
    const auto used = (s->cached + n + block_size_ - 1) / block_size_;
    a.block_ids.insert(a.block_ids.end(), s->blocks.begin(), s->blocks.begin() + used);
    a.seq_ids.push_back(s->id), a.kv_len.push_back(s->cached);
    a.q_indptr.push_back(static_cast<uint32_t>(a.tokens.size()));
    a.block_indptr.push_back(static_cast<uint32_t>(a.block_ids.size()));
    a.mask_indptr.push_back(static_cast<uint32_t>(a.mask.size()));
  }
  a.spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  a.spec.temperature = a.spec.top_p = a.spec.repetition = 1;
  sluice_step &step = a.step;
  step.struct_size = SLUICE_SIZE_THROUGH(sluice_step, row_history);
  step.step_no = ++step_no_;
  step.n_tokens = static_cast<uint32_t>(a.tokens.size()), step.n_seqs = static_cast<uint32_t>(parts.size());
  step.n_rows = static_cast<uint32_t>(a.row_token.size());
  step.n_kv_groups = 1;
  step.tokens = a.tokens.data(), step.positions = a.positions.data(), step.slots = a.slots.data();
  step.seq_ids = a.seq_ids.data(), step.q_indptr = a.q_indptr.data(), step.kv_len = a.kv_len.data();
  step.block_indptr = a.block_indptr.data(), step.block_ids = a.block_ids.data();
  if (any_tree)
    step.parent = a.parent.data(), step.tree_mask_indptr = a.mask_indptr.data(), step.tree_mask = a.mask.data();
  step.row_token = a.row_token.data(), step.row_want = a.row_want.data();
  step.spec = &a.spec, step.n_specs = 1, step.spec_stride = sizeof a.spec;
  step.row_spec = a.row_spec.data(), step.row_seed = a.row_seed.data(), step.row_position = a.row_position.data();
}

std::vector<Logits> BackendDriver::step(const std::vector<BackendPart> &parts, const std::string &doing) {
  Arrays a;
  fill(a, parts);
  findings_.doing(doing);
  const auto *v = model_->vtbl();
  sluice_status st = plugin::fresh_status();
  sluice_ticket ticket = 0;
  if (const int32_t code = v->submit(model_->get(), &a.step, &ticket, &st); code != SLUICE_OK)
    return failed(doing, "submit", code, st);
  // The arrays are the host's again as soon as submit has returned.
  std::fill(a.tokens.begin(), a.tokens.end(), -99), std::fill(a.block_ids.begin(), a.block_ids.end(), 0xFFFFFFFFu);
  sluice_step_result result{};
  result.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
  if (const int32_t code = v->wait(model_->get(), ticket, kStepPatienceNs, &result, &st); code != SLUICE_OK)
    return failed(doing, "wait", code, st);
  std::vector<Logits> rows;
  const uint32_t vocab = model_->info().vocab_size;
  if (result.n_rows != a.step.n_rows || result.logits_host == nullptr) {
    findings_.fail("F1 host logits are always there",
                   fmt::format("{}: {} rows asked for, {} came, logits_host is {}", doing, a.step.n_rows, result.n_rows,
                               result.logits_host == nullptr ? "NULL" : "set"),
                   "fill n_rows and logits_host [n_rows, vocab] in wait()");
  } else {
    for (size_t r = 0; r < a.step.n_rows; ++r) rows.emplace_back(result.logits_host + r * vocab, result.logits_host + (r + 1) * vocab);
  }
  v->release(model_->get(), ticket);
  for (const auto &[s, n, parent] : parts)
    if (parent.empty()) s->cached += n;
  for (const Logits &row : rows)
    if (std::any_of(row.begin(), row.end(), [](float l) { return std::isnan(l); })) {
      findings_.fail("F2 logits are numbers", doing + ": a row holds NaN", "look for uninitialised memory and overflow");
      break;
    }
  return rows;
}
std::vector<Logits> BackendDriver::failed(const std::string &doing, const char *call, int32_t code, const sluice_status &st) {
  findings_.fail("F3 an ordinary step runs", fmt::format("{}: {} returned {}: {}", doing, call, code, std::string(st.msg, strnlen(st.msg, 495))),
                 "see step.h for what a step may hold");
  return {};
}

Logits BackendDriver::feed(BackendSequence &s, const std::vector<uint32_t> &chunks, const std::string &doing) {
  std::vector<Logits> rows;
  for (size_t i = 0; s.cached < s.tokens.size(); ++i) {
    const uint32_t n = std::min<uint32_t>(chunks[std::min(i, chunks.size() - 1)], static_cast<uint32_t>(s.tokens.size()) - s.cached);
    rows = step({{&s, n}}, doing);
    if (rows.empty()) return {};
  }
  return rows.empty() ? Logits{} : rows.front();
}

void BackendDriver::expect_same(const Logits &is, const Logits &should, const char *rule, const std::string &what, const std::string &fix) {
  if (is.empty() || should.empty()) return;  // reported already
  if (is.size() != should.size())
    return findings_.fail(rule, fmt::format("{}: {} logits, and {} before", what, is.size(), should.size()), fix);
  double scale = 1e-3, worst = 0;
  for (size_t i = 0; i < is.size(); ++i) {
    if (std::isinf(should[i]) && is[i] == should[i]) continue;
    scale = std::max(scale, std::fabs(static_cast<double>(should[i])));
    worst = std::max(worst, std::fabs(static_cast<double>(is[i]) - static_cast<double>(should[i])));
  }
  const double allowed = exact_ ? 0 : 0.02 * scale;
  if (worst > allowed || std::isnan(worst))
    findings_.fail(rule, fmt::format("{}: logits differ by {:.3g}, of {:.3g} at most{}", what, worst, scale,
                                     exact_ ? "; it says BATCH_INVARIANT, so not a bit may differ" : ""), fix);
}

Logits BackendDriver::whole(const std::vector<int32_t> &tokens) {
  BackendSequence s = make(tokens, 0, 1);
  return feed(s, {kMaxTokens}, "a whole prompt in one step");
}

bool BackendDriver::kv_ops(uint8_t op, const std::vector<uint32_t> &src, const std::vector<uint32_t> &dst, const char *rule) {
  const std::vector<uint8_t> ops(src.size(), op);
  sluice_kv_batch batch{};
  batch.struct_size = SLUICE_SIZE_THROUGH(sluice_kv_batch, keep_len);
  batch.n = static_cast<uint32_t>(ops.size()), batch.op = ops.data();
  batch.src = src.data(), batch.dst = dst.data();
  sluice_ticket ticket = 0;
  sluice_status st = plugin::fresh_status();
  findings_.doing(fmt::format("kv_ops, op {}", op));
  const int32_t code = model_->vtbl()->kv_ops(model_->get(), &batch, &ticket, &st);
  if (code == SLUICE_OK) return true;
  findings_.fail(rule, fmt::format("kv_ops({}) returned {}: {}", op, code, std::string(st.msg, strnlen(st.msg, 495))),
                 "an operation that the capabilities promise is done, in order with the steps");
  return false;
}

int32_t BackendDriver::submit_with(uint32_t flags, int32_t first_token) {
  BackendSequence s = make(prompt_, 0, 1);
  Arrays a;
  fill(a, {{&s, 4}});
  a.step.flags = flags, a.tokens[0] = first_token;
  sluice_ticket ticket = 0;
  const auto *v = model_->vtbl();
  const int32_t code = v->submit(model_->get(), &a.step, &ticket, nullptr);
  if (code != SLUICE_OK) return code;
  v->wait(model_->get(), ticket, kStepPatienceNs, nullptr, nullptr);
  v->release(model_->get(), ticket);
  return code;
}

}  // namespace sluice::conformance

// Stage I: greedy answers with a decoder are those without, by the server's own verifier over a target that knows what
// lies in every slot of its cache.
#include <fmt/format.h>
#include <sluice/sdk/backend.hpp>
#include <sluice/sdk/decoder.hpp>
#include <sluice/sdk/scheduler.hpp>

#include <algorithm>
#include <random>

#include "core/conformance/stages.hpp"
#include "core/engine/engine_core.hpp"

namespace sluice::conformance {
namespace {

constexpr uint32_t kTrafficVocab = 8, kBlockSize = 4, kHeads = 4, kHeadTop = 4, kRequests = 40;

/// The next token, from the two before it: so texts soon repeat themselves, and a wrong slot changes all that follows.
int32_t after(int32_t a, int32_t b) { return 1 + (a * 5 + b * 3 + a * b) % 7; }

/// Keeps the token of every slot and reads its context from there. Heads know what comes three times out of four, on
/// one of their first three ranks.
class ToyTarget final : public sdk::Model {
 public:
  void info(sluice_model_info &i) const override {
    i = plain_model(kTrafficVocab);
    i.n_heads = kHeads, i.head_top = kHeadTop;
  }
  void plan_memory(const sluice_model_setup &, sluice_memory_plan &) const override {}
  std::vector<sluice_kv_group> kv_groups(const sluice_model_setup &) const override { return {}; }
  void configure(const sluice_model_setup &, const uint32_t *blocks, const uint32_t *) override { slots_.assign(*blocks * kBlockSize, -1); }
  void sample_caps(sluice_sample_caps &c) const override {
    c.flags = SLUICE_SCF_CANONICAL_DRAW;
    c.forms = SLUICE_ROW_TOKEN | SLUICE_ROW_LOGITS_HOST | SLUICE_ROW_HEADS;
  }

  sluice_ticket submit(const sluice_step &s) override {
    std::vector<int32_t> before(s.n_tokens);
    for (uint32_t q = 0; q < s.n_seqs; ++q) {
      const bool tree = s.tree_mask_indptr != nullptr && s.tree_mask_indptr[q] != s.tree_mask_indptr[q + 1];
      for (uint32_t t = s.q_indptr[q]; t < s.q_indptr[q + 1]; ++t) {
        const int32_t own = static_cast<int32_t>(t - s.q_indptr[q]), parent = tree ? s.parent[t] : own - 1;
        before[t] = parent >= 0 ? s.tokens[s.q_indptr[q] + static_cast<uint32_t>(parent)] : cached(s, q);
        slots_[s.slots[t]] = s.tokens[t];
      }
    }
    token_.resize(s.n_rows), logprob_.assign(s.n_rows, 0);
    head_ids_.assign(size_t{s.n_rows} * kHeads * kHeadTop, -1), head_logprobs_.assign(head_ids_.size(), -1);
    for (uint32_t r = 0; r < s.n_rows; ++r) {
      const uint32_t t = s.row_token[r];
      token_[r] = after(before[t], s.tokens[t]);
      if ((s.row_want[r] & SLUICE_ROW_HEADS) != 0) guess(s.tokens[t], token_[r], s.row_position[r], &head_ids_[size_t{r} * kHeads * kHeadTop]);
    }
    return ++ticket_;
  }
  sluice_ticket kv_ops(const sluice_kv_batch &b) override {
    for (uint32_t i = 0; i < b.n; ++i) {
      if (b.op[i] == SLUICE_KV_MOVE_SLOTS) slots_[b.dst[i]] = slots_[b.src[i]];
      for (uint32_t k = 0; b.op[i] == SLUICE_KV_COPY && k < kBlockSize; ++k) slots_[b.dst[i] * kBlockSize + k] = slots_[b.src[i] * kBlockSize + k];
    }
    return ++ticket_;
  }
  bool wait(sluice_ticket, uint64_t, sluice_step_result *out) override {
    if (out == nullptr) return true;
    out->n_rows = static_cast<uint32_t>(token_.size());
    out->token = token_.data(), out->logprob = logprob_.data(), out->device_ns = 1'000'000;
    out->head_ids = head_ids_.data(), out->head_logprobs = head_logprobs_.data();
    return true;
  }
  void release(sluice_ticket) override {}

 private:
  /// The token that lies in front of the step's own; 0 at the very beginning.
  int32_t cached(const sluice_step &s, uint32_t q) const {
    if (s.kv_len[q] == 0) return 0;
    const uint32_t cell = s.kv_len[q] - 1;
    return slots_[s.block_ids[s.block_indptr[q] + cell / kBlockSize] * kBlockSize + cell % kBlockSize];
  }
  static void guess(int32_t a, int32_t b, uint32_t position, int32_t *ids) {
    for (uint32_t head = 0; head < kHeads; ++head) {
      const int32_t next = after(a, b);
      a = b, b = next;
      const uint32_t rank = (position * 7 + head * 5) % 4;  // 3: not among them
      for (uint32_t k = 0; k < kHeadTop; ++k)
        ids[head * kHeadTop + k] = k == rank && rank < 3 ? next : 1 + (next + static_cast<int32_t>(k)) % 7;
    }
  }

  sluice_ticket ticket_ = 0;
  std::vector<int32_t> slots_, token_, head_ids_;
  std::vector<float> logprob_, head_logprobs_;
};

struct Nothing {};
struct PlainDecoder final : sdk::Decoder<Nothing> {
  PlainDecoder(const sluice_host_api &, const sdk::Config &, const sluice_decoder_setup &) {}
  Nothing open(const sluice_seq_start &, const sdk::Config &) override { return {}; }
};

/// First come, first served, with all the drafts that are wished for.
struct Simple final : sdk::Scheduler {
  static constexpr uint32_t kFlags = 0;
  Simple(const sdk::Config &, const sluice_sched_setup &) {}
  void plan(const sdk::View &step, sdk::Plan &out) override {
    uint32_t tokens = step.v.token_budget, seats = step.v.max_seqs, blocks = step.usable_blocks();
    const auto run = [&](sluice_seq_ref r) {
      const uint32_t n = std::min(step.t.pending[r], tokens), needs = step.blocks_for(r, n);
      if (n == 0 || seats == 0 || (step.t.state[r] == SLUICE_SEQ_WAITING && needs + step.v.watermark > blocks)) return;
      const uint32_t drafts = std::min(step.t.draft_wish[r], tokens - n);
      out.run(r, n, drafts);
      tokens -= n + drafts, --seats, blocks -= std::min(blocks, needs);
    };
    for (const auto r : step.resident()) run(r);
    for (const auto r : step.waiting()) run(r);
    const auto residents = step.resident();
    for (uint32_t i = residents.n; i > 0; --i) out.victim(residents.p[i - 1]);
    if (out.size() == 0) out.wake_at(step.v.now_ns + 1'000'000);
  }
};

struct Answers {
  std::vector<std::vector<int32_t>> answers;
  request::GeneratorStats stats;
  std::string failure;
};

/// kv_blocks  few of them let sequences lose their cache in between
Answers run(const Subject &subject, const std::string &name, const sluice_decoder_vtbl *vtbl, sluice_decoder *instance,
            uint32_t kv_blocks) {
  Answers out;
  ManualClock clock;
  ToyTarget target;
  target.configure({}, &kv_blocks, nullptr);
  struct ToyBackend final : sdk::Backend {
    ToyBackend(const sluice_host_api &, const sdk::Config &, const sluice_backend_open &) {}
    static std::vector<sluice_device_info> devices(const sluice_host_api &, const sdk::Config &) { return {}; }
    std::unique_ptr<sdk::Model> load(const sluice_model_source &, const sdk::Config &) override { return nullptr; }
  };
  const auto backend = sdk::BackendAdapter<ToyBackend>::vtbl();
  const auto scheduler = sdk::SchedulerAdapter<Simple>::vtbl();
  engine::EngineLimits limits;
  limits.max_seqs = 8, limits.token_budget = 160, limits.max_live = 64, limits.waiting_window = 32;
  limits.max_context = 256, limits.vocab_size = kTrafficVocab, limits.block_size = kBlockSize;
  limits.kv_blocks = kv_blocks, limits.watermark_blocks = 1, limits.max_rows = 160;
  engine::EngineParts parts;
  parts.host = subject.api(), parts.clock = &clock;
  parts.backend_name = "toy", parts.backend = &backend;
  parts.model = reinterpret_cast<sluice_model *>(static_cast<sdk::Model *>(&target));
  parts.scheduler_name = "simple", parts.scheduler = &scheduler;
  parts.decoder_name = name, parts.decoder = vtbl, parts.decoder_instance = instance;
  auto core = engine::EngineCore::create(parts, limits);
  if (!core) return out.failure = core.error().message, out;
  std::vector<std::shared_ptr<request::Request>> requests;
  std::mt19937_64 random(11);
  for (uint64_t id = 1; id <= kRequests; ++id) {
    auto r = std::make_shared<request::Request>();
    r->id = id, r->seed = id;
    for (uint64_t n = 1 + random() % 30; n > 0; --n) r->prompt.push_back(static_cast<int32_t>(1 + random() % 7));
    r->max_new = static_cast<uint32_t>(1 + random() % 60);
    if (id % 3 == 0) r->stop_tokens = {static_cast<int32_t>(1 + random() % 7)};
    r->events = std::make_shared<request::EventChannel>(nullptr);
    requests.push_back(std::move(r));
  }
  size_t next = 0;
  for (int steps = 0; steps < 20'000 && (next < requests.size() || (*core)->live() > 0) && out.failure.empty(); ++steps) {
    if (next < requests.size() && steps % 3 == 0)
      if (const auto r = (*core)->submit(requests[next++]); !r) out.failure = r.error().message;
    (*core)->step(0);
    clock.advance_ns(1'000'000);
    if (const std::string wrong = (*core)->audit(); !wrong.empty()) out.failure = "the core's own books are wrong: " + wrong;
  }
  for (const auto &r : requests) {
    std::vector<request::Event> events;
    r->events->drain(events);
    std::vector<int32_t> &answer = out.answers.emplace_back();
    for (const auto &event : events) {
      if (event.error != nullptr && out.failure.empty()) out.failure = fmt::format("request {}: {}", r->id, event.error->message);
      if (event.token >= 0) answer.push_back(event.token);
    }
  }
  out.stats = (*core)->stats();
  return out;
}

}  // namespace

void check_decoded_text(const std::string &path, Findings &findings) {
  const auto subject = Subject::load(path, findings);
  if (!subject) return;
  if (subject->options() == nullptr) return findings.skip("it has a required option: " + subject->needs_options());
  sluice_model_info target{};
  ToyTarget().info(target);
  findings.doing("creating it for the toy target");
  auto decoder = plugin::Decoder::create(subject->library(), subject->api(), *subject->options(), 8, target);
  if (!decoder) return findings.skip("create is refused: " + decoder.error().message);
  const auto &needs = (*decoder)->needs();
  if (needs.max_nodes == 0) return findings.skip(needs.max_branches > 1 ? "it branches, so its answers are others" : "it drafts nothing");
  if (needs.draft_model != nullptr) return findings.skip("it wants a draft model, which the checker has not");
  if (needs.verify == SLUICE_VERIFY_TYPICAL) return findings.skip("it asks for typical acceptance, which is not lossless");

  const auto plain = sdk::DecoderAdapter<PlainDecoder>::vtbl();
  sluice_decoder *none = nullptr;
  sluice_decoder_setup setup{};
  setup.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_setup, target);
  plain.create(subject->api(), nullptr, &setup, &none, nullptr);
  for (const uint32_t kv_blocks : {400u, 40u}) {
    const std::string what = kv_blocks == 400 ? "room for all" : "little room";
    findings.doing("plain decoding, " + what);
    const Answers expected = run(*subject, "plain", &plain, none, kv_blocks);
    findings.doing("decoding with drafts, " + what);
    const Answers is = run(*subject, subject->library().metadata.name, (*decoder)->vtbl(), (*decoder)->get(), kv_blocks);
    if (!expected.failure.empty() || !is.failure.empty())
      findings.fail("I9 drafts change no token", what + ": " + (is.failure.empty() ? "without it: " + expected.failure : is.failure),
                    "an answer failed that should not");
    else if (is.answers != expected.answers)
      findings.fail("I9 drafts change no token", what + ": greedy answers differ from plain decoding", "if its trees are sound this is the host's mistake: report it");
    if (is.stats.plugin_errors > 0)
      findings.fail("I9 drafts change no token", fmt::format("{}: {} of its calls were refused in the traffic", what, is.stats.plugin_errors),
                    "the log names the first; such a step has no drafts");
    findings.note(fmt::format("{}: {} tokens in {} steps, {} plain; {} of {} drafts accepted, {} preemptions", what,
                              is.stats.output_tokens, is.stats.steps, expected.stats.steps, is.stats.draft_accepted_tokens,
                              is.stats.draft_tokens, is.stats.preemptions));
  }
  plain.destroy(none);
}

}  // namespace sluice::conformance

// Stage F: a backend against itself. However a prompt is cut into steps, wherever its blocks lie and whoever is beside
// it, the logits of its last row are the same.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/conformance/stages.hpp"

namespace sluice::conformance {
namespace {

constexpr uint32_t kMaxTokens = 64, kMaxSeqs = 4, kBlocks = 48, kMaxContext = 128;
constexpr uint64_t kStepPatienceNs = 20'000'000'000;

struct Sequence {
  uint64_t id = 0;
  std::vector<int32_t> tokens;
  std::vector<uint32_t> blocks;
  uint32_t cached = 0;
};
/// Feed the next n tokens of a sequence.
struct Part {
  Sequence *sequence;
  uint32_t n;
};
using Logits = std::vector<float>;

class BackendCheck {
 public:
  BackendCheck(const Subject &subject, Findings &findings) : subject_(subject), findings_(findings) {}

  void run(const std::string &path) {
    if (!load(path)) return;
    check_chunks();
    check_blocks();
    check_company();
    check_copies();
    check_refusals();
  }

 private:
  bool load(const std::string &path) {
    findings_.doing("loading the model");
    auto backend = plugin::Backend::open(subject_.library(), subject_.api(), *subject_.options());
    if (!backend) return findings_.skip("open is refused: " + backend.error().message), false;
    backend_ = std::move(*backend);
    plugin::LoadedModel::Source source;
    source.path = path;
    auto model = plugin::LoadedModel::load(*backend_, source, *subject_.options());
    if (!model) return findings_.skip("this model is refused (--model takes another): " + model.error().message), false;
    model_ = std::move(*model);
    if (model_->info().kv_mode != SLUICE_KV_MODE_PAGED || model_->info().n_kv_groups != 1)
      return findings_.skip("only paged KV with one group is checked so far"), false;
    exact_ = (model_->info().caps & SLUICE_CAP_BATCH_INVARIANT) != 0;
    sluice_model_setup setup{};
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs);
    setup.flags = exact_ ? SLUICE_SETUP_BATCH_INVARIANT : 0;
    setup.max_tokens_per_step = kMaxTokens, setup.max_seqs_per_step = setup.max_rows_per_step = kMaxSeqs;
    setup.max_context = std::min(kMaxContext, model_->info().max_context);
    auto plan = model_->plan_memory(setup);
    if (!plan) return refused("plan_memory", plan.error());
    setup.block_size = block_size_ = plan->block_size;
    if (block_size_ == 0 || block_size_ > 4096)
      return findings_.fail("F0 a step's parts fit", fmt::format("block_size is {}", block_size_), "settle on 8 to 256 tokens"), false;
    if (auto r = model_->kv_groups(setup); !r) return refused("kv_groups", r.error());
    const uint32_t blocks = kBlocks;
    if (auto r = model_->configure(setup, {&blocks, 1}); !r) return refused("configure", r.error());
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
  bool refused(const char *call, const Error &error) {
    findings_.fail("F0 an ordinary setup is accepted", std::string(call) + ": " + error.message,
                   "64 tokens, 4 sequences and 48 blocks are little; refuse by name what cannot be done");
    return false;
  }

  /// A sequence with its own blocks, in the order that `first` and `stride` give.
  Sequence make(const std::vector<int32_t> &tokens, uint32_t first, int32_t stride) {
    Sequence s;
    s.id = ++next_id_, s.tokens = tokens;
    const auto n = static_cast<uint32_t>((tokens.size() + block_size_ - 1) / block_size_);
    for (uint32_t i = 0; i < n; ++i) s.blocks.push_back(static_cast<uint32_t>(static_cast<int32_t>(first) + static_cast<int32_t>(i) * stride) % kBlocks);
    return s;
  }

  struct Arrays {
    std::vector<int32_t> tokens, positions;
    std::vector<uint32_t> slots, q_indptr{0}, kv_len, block_indptr{0}, block_ids, row_token, row_spec, row_position;
    std::vector<uint64_t> seq_ids, row_seed;
    std::vector<uint8_t> row_want;
    sluice_sample_spec spec{};
    sluice_step step{};
  };

  void fill(Arrays &a, const std::vector<Part> &parts) {
    for (const auto &[s, n] : parts) {
      for (uint32_t i = 0; i < n; ++i) {
        const uint32_t at = s->cached + i;
        a.tokens.push_back(s->tokens[at]), a.positions.push_back(static_cast<int32_t>(at));
        a.slots.push_back(s->blocks[at / block_size_] * block_size_ + at % block_size_);
      }
      const auto used = (s->cached + n + block_size_ - 1) / block_size_;
      a.block_ids.insert(a.block_ids.end(), s->blocks.begin(), s->blocks.begin() + used);
      a.seq_ids.push_back(s->id), a.kv_len.push_back(s->cached);
      a.q_indptr.push_back(static_cast<uint32_t>(a.tokens.size()));
      a.block_indptr.push_back(static_cast<uint32_t>(a.block_ids.size()));
      a.row_token.push_back(a.q_indptr.back() - 1), a.row_want.push_back(SLUICE_ROW_LOGITS_HOST);
      a.row_spec.push_back(0), a.row_seed.push_back(1), a.row_position.push_back(s->cached + n);
    }
    a.spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
    a.spec.temperature = a.spec.top_p = a.spec.repetition = 1;
    sluice_step &step = a.step;
    step.struct_size = SLUICE_SIZE_THROUGH(sluice_step, row_history);
    step.step_no = ++step_no_;
    step.n_tokens = static_cast<uint32_t>(a.tokens.size()), step.n_seqs = step.n_rows = static_cast<uint32_t>(parts.size());
    step.n_kv_groups = 1;
    step.tokens = a.tokens.data(), step.positions = a.positions.data(), step.slots = a.slots.data();
    step.seq_ids = a.seq_ids.data(), step.q_indptr = a.q_indptr.data(), step.kv_len = a.kv_len.data();
    step.block_indptr = a.block_indptr.data(), step.block_ids = a.block_ids.data();
    step.row_token = a.row_token.data(), step.row_want = a.row_want.data();
    step.spec = &a.spec, step.n_specs = 1, step.spec_stride = sizeof a.spec;
    step.row_spec = a.row_spec.data(), step.row_seed = a.row_seed.data(), step.row_position = a.row_position.data();
  }

  /// One step; the logits of each sequence's last token. Empty after a failure, which is reported.
  std::vector<Logits> step(const std::vector<Part> &parts, const std::string &doing) {
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
    if (result.n_rows != parts.size() || result.logits_host == nullptr) {
      findings_.fail("F1 host logits are always there",
                     fmt::format("{}: {} rows asked for, {} came, logits_host is {}", doing, parts.size(), result.n_rows,
                                 result.logits_host == nullptr ? "NULL" : "set"),
                     "fill n_rows and logits_host [n_rows, vocab] in wait()");
    } else {
      for (size_t r = 0; r < parts.size(); ++r) rows.emplace_back(result.logits_host + r * vocab, result.logits_host + (r + 1) * vocab);
    }
    v->release(model_->get(), ticket);
    for (const auto &[s, n] : parts) s->cached += n;
    for (const Logits &row : rows)
      if (std::any_of(row.begin(), row.end(), [](float l) { return std::isnan(l); })) {
        findings_.fail("F2 logits are numbers", doing + ": a row holds NaN", "look for uninitialised memory and overflow");
        break;
      }
    return rows;
  }
  std::vector<Logits> failed(const std::string &doing, const char *call, int32_t code, const sluice_status &st) {
    findings_.fail("F3 an ordinary step runs", fmt::format("{}: {} returned {}: {}", doing, call, code, std::string(st.msg, strnlen(st.msg, 495))),
                   "see step.h for what a step may hold");
    return {};
  }

  /// Feeds a whole sequence in chunks of at most these sizes, the last one repeated. returns  the last row
  Logits feed(Sequence &s, const std::vector<uint32_t> &chunks, const std::string &doing) {
    std::vector<Logits> rows;
    for (size_t i = 0; s.cached < s.tokens.size(); ++i) {
      const uint32_t n = std::min<uint32_t>(chunks[std::min(i, chunks.size() - 1)], static_cast<uint32_t>(s.tokens.size()) - s.cached);
      rows = step({{&s, n}}, doing);
      if (rows.empty()) return {};
    }
    return rows.empty() ? Logits{} : rows.front();
  }

  void expect_same(const Logits &is, const Logits &should, const char *rule, const std::string &what, const std::string &fix) {
    if (is.empty() || should.empty()) return;  // reported already
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

  Logits whole(const std::vector<int32_t> &tokens) {
    Sequence s = make(tokens, 0, 1);
    return feed(s, {kMaxTokens}, "a whole prompt in one step");
  }

  void check_chunks() {
    const Logits expected = whole(prompt_);
    for (const auto &chunks : std::vector<std::vector<uint32_t>>{{1}, {7, 13}, {block_size_}, {static_cast<uint32_t>(prompt_.size()) - 1, 1}}) {
      Sequence s = make(prompt_, 0, 1);
      expect_same(feed(s, chunks, fmt::format("a prompt in chunks of {}", chunks.front())), expected, "F4 chunks equal the whole",
                  fmt::format("a prompt in chunks of {}", chunks.front()),
                  "kv_len tokens are cached; positions, masks and slots go on from there");
    }
  }

  void check_blocks() {
    const Logits expected = whole(prompt_);
    for (const auto &[first, stride] : {std::pair<uint32_t, int32_t>{kBlocks - 1, -1}, {5, 7}, {17, 11}}) {
      Sequence s = make(prompt_, first, stride);
      expect_same(feed(s, {20}, "blocks in another order"), expected, "F5 any blocks will do",
                  fmt::format("blocks {}, {}, ...", s.blocks[0], s.blocks.size() > 1 ? s.blocks[1] : 0),
                  "find every cached token through block_ids; blocks are in order of position, not of number");
    }
  }

  void check_company() {
    const uint32_t half = std::min<uint32_t>(16, static_cast<uint32_t>(prompt_.size()) / 2);
    std::vector<std::vector<int32_t>> prompts(3);
    for (size_t i = 0; i < 3; ++i) {
      prompts[i].assign(prompt_.begin(), prompt_.begin() + half);
      std::rotate(prompts[i].begin(), prompts[i].begin() + static_cast<std::ptrdiff_t>(i), prompts[i].end());
    }
    std::vector<Logits> alone;
    for (const auto &p : prompts) alone.push_back(whole(p));
    std::vector<Sequence> all;
    for (uint32_t i = 0; i < 3; ++i) all.push_back(make(prompts[i], 15 * i, 1));
    const auto together = step({{&all[0], half}, {&all[1], half}, {&all[2], half}}, "three prompts in one step");
    for (size_t i = 0; i < together.size(); ++i)
      expect_same(together[i], alone[i], "F6 a batch equals its parts", fmt::format("prompt {} of three in one step", i),
                  "q_indptr separates the sequences; nothing may cross it");
    if ((model_->info().caps & SLUICE_CAP_MIXED_BATCH) == 0) return;
    Sequence decoding = make(prompts[0], 0, 1), starting = make(prompts[1], 20, 1);
    if (step({{&decoding, half - 1}}, "all but the last token").empty()) return;
    const auto mixed = step({{&decoding, 1}, {&starting, half}}, "a decode beside a prompt");
    for (size_t i = 0; i < mixed.size(); ++i)
      expect_same(mixed[i], alone[i], "F6 a batch equals its parts", i == 0 ? "a decode beside a prompt" : "a prompt beside a decode",
                  "CAP_MIXED_BATCH promises this");
  }

  void check_copies() {
    Sequence one = make(prompt_, 0, 1);
    const Logits expected = whole(prompt_);
    const auto most = static_cast<uint32_t>(prompt_.size()) - 1;
    if (step({{&one, most}}, "all but the last token").empty()) return;
    Sequence copy = one;
    copy.id = ++next_id_;
    std::vector<uint8_t> ops(one.blocks.size(), SLUICE_KV_COPY);
    for (uint32_t &b : copy.blocks) b += 20;
    sluice_kv_batch batch{};
    batch.struct_size = SLUICE_SIZE_THROUGH(sluice_kv_batch, keep_len);
    batch.n = static_cast<uint32_t>(ops.size()), batch.op = ops.data();
    batch.src = one.blocks.data(), batch.dst = copy.blocks.data();
    sluice_ticket ticket = 0;
    sluice_status st = plugin::fresh_status();
    findings_.doing("copying blocks");
    if (const int32_t code = model_->vtbl()->kv_ops(model_->get(), &batch, &ticket, &st); code != SLUICE_OK) {
      findings_.fail("F7 blocks can be copied", fmt::format("kv_ops(COPY) returned {}: {}", code, st.msg), "prefixes are shared by copies of their last block");
      return;
    }
    one.tokens.back() = one.tokens.front();  // the original goes another way
    const auto other = step({{&one, 1}}, "the original goes on");
    const auto rows = step({{&copy, 1}}, "the copy goes on");
    if (!rows.empty()) expect_same(rows[0], expected, "F7 blocks can be copied", "a copy that goes on by itself", "COPY takes the whole block, before the next submit writes");
  }

  void check_refusals() {
    Sequence s = make(prompt_, 0, 1);
    Arrays a;
    fill(a, {{&s, 4}});
    sluice_status st = plugin::fresh_status();
    sluice_ticket ticket = 0;
    findings_.doing("a step with an unknown flag that must be understood");
    a.step.flags = 1u << 15;
    const auto *v = model_->vtbl();
    if (const int32_t code = v->submit(model_->get(), &a.step, &ticket, &st); code == SLUICE_OK) {
      v->wait(model_->get(), ticket, kStepPatienceNs, nullptr, nullptr);
      v->release(model_->get(), ticket);
      findings_.fail("F8 what is unknown and matters is refused", "a step with the flag 0x8000 was run", "R6: refuse unknown bits of the low half with UNSUPPORTED");
    }
    findings_.doing("a token outside the vocabulary");
    a.step.flags = 0, a.tokens[0] = static_cast<int32_t>(model_->info().vocab_size);
    if (const int32_t code = v->submit(model_->get(), &a.step, &ticket, nullptr); code == SLUICE_OK) {
      v->wait(model_->get(), ticket, kStepPatienceNs, nullptr, nullptr);
      v->release(model_->get(), ticket);
      findings_.warn("F9 ids are checked", "a token outside the vocabulary was taken", "refuse it with INVALID_ARGUMENT; the host does not send any, but a bug might");
    }
    const Logits expected = whole(prompt_);
    if (expected.empty()) findings_.fail("F8 what is unknown and matters is refused", "after a refusal no step runs any more", "a refused step changes nothing");
  }

  const Subject &subject_;
  Findings &findings_;
  std::unique_ptr<plugin::Backend> backend_;
  std::unique_ptr<plugin::LoadedModel> model_;
  bool exact_ = false;
  uint32_t block_size_ = 0;
  uint64_t next_id_ = 0, step_no_ = 0;
  std::vector<int32_t> prompt_;
};

}  // namespace

void check_backend(const std::string &path, const std::string &model, Findings &findings) {
  const auto subject = Subject::load(path, findings);
  if (!subject) return;
  if (subject->options() == nullptr) return findings.skip("it has a required option: " + subject->needs_options());
  BackendCheck(*subject, findings).run(model);
}

}  // namespace sluice::conformance

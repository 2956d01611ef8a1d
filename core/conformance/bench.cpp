#include "core/conformance/bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "core/conformance/backend_driver.hpp"
#include "core/conformance/tiny_model.hpp"

namespace sluice::conformance {
namespace {

using Clock = std::chrono::steady_clock;

/// Times of single calls, in nanoseconds.
class Times {
 public:
  template <class F> void measure(F &&call) {
    const auto begin = Clock::now();
    call();
    ns_.push_back(std::chrono::duration<double, std::nano>(Clock::now() - begin).count());
  }
  size_t size() const { return ns_.size(); }
  /// "p50 12.3 us, p99 20.1 us per step"; divided by `per`
  std::string text(const char *of, double per = 1) {
    std::sort(ns_.begin(), ns_.end());
    const auto at = [&](double q) { return ns_[std::min(ns_.size() - 1, static_cast<size_t>(q * static_cast<double>(ns_.size())))] / per; };
    const bool us = at(0.5) >= 1000;
    return fmt::format("p50 {:.1f} {}, p99 {:.1f} {} per {} ({} measured)", at(0.5) / (us ? 1000 : 1), us ? "us" : "ns",
                       at(0.99) / (us ? 1000 : 1), us ? "us" : "ns", of, ns_.size());
  }

 private:
  std::vector<double> ns_;
};

void bench_sampler(const Subject &subject, Findings &findings) {
  const auto usual = usual_options(subject);
  const plugin::Options &options = usual ? *usual : *subject.options();
  if (usual) findings.note("the request sets temperature, top_p, min_p and penalties, as far as it has them");
  constexpr uint32_t kVocab = 32'000, kRows = 8;
  constexpr int kRounds = 300;
  const auto &v = *subject.desc().sampler;
  auto made = plugin::Sampler::create(subject.library(), subject.api(), *subject.options(), plain_model(kVocab));
  if (!made) return findings.skip("creating it is refused: " + made.error().message);
  sluice_sampler *sampler = (*made)->get();
  const int32_t prompt[] = {5, 6, 7};
  std::vector<sluice_sampler_seq *> seqs(kRows);
  for (uint32_t i = 0; i < kRows; ++i) {
    sluice_seq_start start{};
    start.struct_size = SLUICE_SIZE_THROUGH(sluice_seq_start, request);
    start.seq = start.request_id = i + 1, start.n_answers = 1, start.max_new = 1000;
    start.prompt = prompt, start.n_prompt = 3, start.request = options.handle();
    if (v.seq_open(sampler, &start, &seqs[i], nullptr) != SLUICE_OK) return findings.skip("seq_open() fails");
  }
  if (v.lower != nullptr) {
    sluice_sample_caps caps{};
    caps.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_caps, logprobs_kinds);
    caps.flags = SLUICE_SCF_ANY_ORDER | SLUICE_SCF_CANONICAL_DRAW, caps.stages = 0x3FE, caps.forms = 15;
    Times times;
    for (int i = 0; i < kRounds * 10; ++i) {
      sluice_sample_spec spec{};
      spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
      spec.temperature = spec.top_p = spec.repetition = 1;
      times.measure([&] { v.lower(sampler, seqs[0], &caps, &spec, nullptr); });
    }
    findings.note("lower: " + times.text("call"));
  }
  if (v.apply != nullptr && (v.forms & SLUICE_ROW_LOGITS_HOST) != 0) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 4);
    std::vector<float> fresh(size_t{kRows} * kVocab);
    for (float &l : fresh) l = normal(random);
    const std::vector<int32_t> none(kRows, -1);
    const std::vector<uint64_t> seeds(kRows, 1);
    const std::vector<uint32_t> positions(kRows, 4);
    Times times;
    for (int i = 0; i < kRounds; ++i) {
      std::vector<float> logits = fresh;
      std::vector<int32_t> token(kRows, -1);
      std::vector<float> logprob(kRows);
      sluice_sample_batch batch{};
      batch.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_batch, sync);
      batch.form = SLUICE_ROW_LOGITS_HOST, batch.n_rows = kRows, batch.vocab_size = kVocab;
      batch.row_seq = seqs.data(), batch.row_parent = none.data(), batch.row_token = none.data();
      batch.row_seed = seeds.data(), batch.row_position = positions.data(), batch.logits_host = logits.data();
      sluice_sample_out out{};
      out.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_out, token_dev);
      out.token = token.data(), out.logprob = logprob.data();
      int32_t code = SLUICE_OK;
      times.measure([&] { code = v.apply(sampler, &batch, &out, nullptr); });
      if (code != SLUICE_OK) return findings.skip(fmt::format("apply() returned {}", code));
    }
    findings.note(fmt::format("apply, {} rows of {} logits: {}", kRows, kVocab, times.text("row", kRows)));
  }
  std::vector<uint32_t> indptr(kRows + 1);
  for (uint32_t i = 0; i <= kRows; ++i) indptr[i] = i;
  const std::vector<int32_t> tokens(kRows, 9);
  const std::vector<float> logprobs(kRows, -1);
  Times times;
  for (int i = 0; i < kRounds; ++i)
    times.measure([&] { v.commit(sampler, seqs.data(), indptr.data(), tokens.data(), logprobs.data(), kRows, nullptr); });
  findings.note("commit: " + times.text("sequence", kRows));
  for (auto *seq : seqs) v.seq_close(sampler, seq);
}

void bench_decoder(const Subject &subject, Findings &findings) {
  const auto &v = *subject.desc().decoder;
  auto made = plugin::Decoder::create(subject.library(), subject.api(), *subject.options(), 8, plain_model(512));
  if (!made) return findings.skip("creating it is refused: " + made.error().message);
  const int32_t prompt[] = {5, 6, 7, 5, 6, 7};
  sluice_seq_start start{};
  start.struct_size = SLUICE_SIZE_THROUGH(sluice_seq_start, request);
  start.seq = start.request_id = 1, start.n_answers = 1, start.max_new = 1000;
  start.prompt = prompt, start.n_prompt = 6, start.request = subject.options()->handle();
  sluice_decoder_seq *seq = nullptr;
  if (v.seq_open((*made)->get(), &start, &seq, nullptr) != SLUICE_OK) return findings.skip("seq_open() fails");
  const uint32_t indptr[] = {0, 1}, zero = 0;
  sluice_decoder_commit told{};
  told.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_commit, draft_ns);
  told.n_seqs = 1, told.seq = &seq, told.tok_indptr = indptr, told.n_drafted = told.n_accepted = &zero;
  Times times;
  for (int i = 0; i < 3000; ++i) {
    const int32_t token = 5 + i % 3;
    told.tok = &token;
    int32_t code = SLUICE_OK;
    times.measure([&] { code = v.commit((*made)->get(), &told, nullptr); });
    if (code != SLUICE_OK) return findings.skip(fmt::format("commit() returned {}", code));
  }
  findings.note("commit: " + times.text("token"));
  v.seq_close((*made)->get(), seq);
}

void bench_backend(const Subject &subject, const std::string &model, Findings &findings) {
  BackendDriver d(findings);
  if (!d.load(subject.library(), subject.api(), *subject.options(), model)) return;
  Times health;
  for (int i = 0; i < 3000; ++i) health.measure([&] { d.health(); });
  findings.note("health: " + health.text("call"));
  Times prefill;
  for (int i = 0; i < 30; ++i) {
    bool failed = false;
    prefill.measure([&] { failed = d.whole(d.prompt()).empty(); });
    if (failed) return;
  }
  findings.note(fmt::format("a prompt of {} tokens in one step: {}", d.prompt().size(), prefill.text("step")));
  for (const uint32_t batch : {1U, BackendDriver::kMaxSeqs}) {
    Times decode;
    for (int round = 0; round < 20; ++round) {
      std::vector<BackendSequence> all;
      const std::vector<int32_t> tokens(d.prompt().begin(), d.prompt().begin() + std::min<std::ptrdiff_t>(24, static_cast<std::ptrdiff_t>(d.prompt().size())));
      for (uint32_t i = 0; i < batch; ++i) all.push_back(d.make(tokens, i * (BackendDriver::kBlocks / BackendDriver::kMaxSeqs), 1));
      for (auto &s : all)
        if (d.step({{&s, 4}}, "the beginning of a sequence").empty()) return;
      while (all.front().cached < tokens.size()) {
        std::vector<BackendPart> parts;
        for (auto &s : all) parts.push_back({&s, 1});
        bool failed = false;
        decode.measure([&] { failed = d.step(parts, "a decode step").empty(); });
        if (failed) return;
      }
    }
    findings.note(fmt::format("a decode step of {}, with all its logits on the host: {}", batch, decode.text("step")));
  }
}

void bench_engine(const Subject &subject, const std::string &model, Findings &findings) {
  auto made = plugin::ForeignEngine::open(subject.library(), subject.api(), *subject.options(), model);
  if (!made) return findings.skip("open is refused: " + made.error().message);
  Times health, generate, cancel;
  for (int i = 0; i < 3000; ++i) health.measure([&] { (void)(*made)->health(); });
  findings.note("health: " + health.text("call"));
  if (((*made)->info().inputs & SLUICE_INPUT_TOKENS) == 0) return;
  const int32_t prompt[] = {5, 6, 7};
  sluice_sample_spec spec{};
  spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  spec.temperature = spec.top_p = spec.repetition = 1;
  for (uint64_t i = 1; i <= 200; ++i) {
    sluice_engine_request r{};
    r.struct_size = SLUICE_SIZE_THROUGH(sluice_engine_request, request);
    r.input_kind = SLUICE_INPUT_TOKENS, r.request_id = i, r.prompt = prompt, r.n_prompt = 3, r.max_new = 4;
    r.spec = &spec, r.request = subject.options()->handle();
    Result<> taken;
    generate.measure([&] { taken = (*made)->generate(r); });
    if (!taken && taken.error().code != Code::kResourceExhausted) return findings.skip("generate() is refused: " + taken.error().message);
    cancel.measure([&] { (void)(*made)->cancel(i); });
  }
  findings.note("generate: " + generate.text("call"));
  findings.note("cancel: " + cancel.text("call"));
}

}  // namespace

Report bench_plugin(const CheckOptions &options) {
  Report report;
  report.path = options.path;
  const auto metadata = plugin::read_metadata(options.path);
  const uint64_t kinds = metadata ? metadata->kinds : 0;
  report.title = metadata ? plugin::kind_names(kinds) + " " + metadata->name + " " + metadata->version : "no plugin";
  std::unique_ptr<TinyModel> tiny;
  std::string model = options.model;
  if (model.empty() && (kinds & (SLUICE_KIND_BACKEND | SLUICE_KIND_ENGINE)) != 0) {
    tiny = std::make_unique<TinyModel>();
    model = tiny->path();
  }
  const auto run = [&](uint64_t kind, const char *name, const std::function<void(const Subject &, Findings &)> &bench) {
    if (metadata && (kinds & kind) == 0) return;
    report.cases.push_back(run_in_child('-', name, options.case_timeout, [&](Findings &f) {
      const auto subject = Subject::load(options.path, f);
      if (!subject) return;
      if (subject->options() == nullptr) return f.skip("it has a required option: " + subject->needs_options());
      bench(*subject, f);
    }));
    report.loadable &= !report.cases.back().failed();
  };
  run(SLUICE_KIND_BACKEND, "backend", [&](const Subject &s, Findings &f) { bench_backend(s, model, f); });
  run(SLUICE_KIND_ENGINE, "engine", [&](const Subject &s, Findings &f) { bench_engine(s, model, f); });
  run(SLUICE_KIND_SCHEDULER, "scheduler", bench_scheduler);
  run(SLUICE_KIND_SAMPLER, "sampler", bench_sampler);
  run(SLUICE_KIND_DECODER, "decoder", bench_decoder);
  return report;
}

}  // namespace sluice::conformance

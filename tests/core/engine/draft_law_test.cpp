// The distribution of whole answers under speculation against the target's own, which is computed: 200 000 answers of a
// toy model through the real engine, its verifier and its cache, for every kind of draft and sampler. And the proof that
// the test can fail: the same statistics over verifiers with planted bugs.
#include <gtest/gtest.h>
#include <sluice/sdk/decoder.hpp>
#include <sluice/sdk/sampling.hpp>

#include <boost/math/distributions/chi_squared.hpp>
#include <cmath>
#include <random>

#include "backends/mock/script.hpp"
#include "core/engine/residual.hpp"
#include "tests/core/engine/plugin_fixture.hpp"

namespace sluice::engine::testing {
namespace {

constexpr uint32_t kVocab = 5;
constexpr uint32_t kLength = 3;
constexpr uint32_t kCells = kVocab * kVocab * kVocab;
constexpr uint32_t kAnswers = 200'000;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kEngineAnswers = 20'000;  // here it is about memory; the law is judged in the plain build
#else
constexpr uint32_t kEngineAnswers = kAnswers;
#endif
const std::vector<int32_t> kPrompt = {3, 1, 4, 1};

using Counts = std::vector<double>;
using Law = std::vector<double>;

uint32_t cell_of(const std::vector<int32_t> &tokens) {
  uint32_t cell = 0;
  for (const int32_t token : tokens) cell = cell * kVocab + static_cast<uint32_t>(token);
  return cell;
}

/// p of the observed counts, if the law is right. Cells that expect fewer than 5 are pooled; a count where the law is 0
/// refutes it.
double p_value(const Counts &seen, const Law &law) {
  double n = 0;
  for (const double count : seen) n += count;
  double statistic = 0, pooled_seen = 0, pooled_expected = 0;
  int cells = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    const double expected = n * law[i];
    if (expected == 0 && seen[i] > 0) return 0;
    if (expected < 5) {
      pooled_seen += seen[i];
      pooled_expected += expected;
      continue;
    }
    statistic += (seen[i] - expected) * (seen[i] - expected) / expected;
    ++cells;
  }
  if (pooled_expected > 0) {
    statistic += (pooled_seen - pooled_expected) * (pooled_seen - pooled_expected) / pooled_expected;
    ++cells;
  }
  return cells < 2 ? 1 : boost::math::cdf(boost::math::complement(boost::math::chi_squared(cells - 1), statistic));
}

struct SamplerCase {
  const char *name;
  TestConfig options;
  sluice_sample_spec spec;
};

sluice_sample_spec spec_of(std::vector<uint8_t> stages, float temperature, float top_p, float min_p, float repetition,
                           float presence) {
  sluice_sample_spec spec{};
  spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  spec.n_stages = static_cast<uint32_t>(stages.size());
  std::copy(stages.begin(), stages.end(), spec.stage);
  spec.temperature = temperature;
  spec.top_p = top_p;
  spec.min_p = min_p;
  spec.repetition = repetition;
  spec.presence = presence;
  spec.penalty_prompt = SLUICE_SCOPE_REPETITION;
  return spec;
}

const char *const kOrder = "bias,repetition,frequency,presence,temperature,min_p,top_k,top_p";

const std::vector<SamplerCase> &samplers() {
  static const std::vector<SamplerCase> cases = {
      {"temperature 1", {{"order", kOrder}, {"temperature", "1"}}, spec_of({SLUICE_STAGE_TEMPERATURE}, 1, 1, 0, 1, 0)},
      {"temperature 0.8, top_p 0.9", {{"order", kOrder}, {"temperature", "0.8"}, {"top_p", "0.9"}},
       spec_of({SLUICE_STAGE_TEMPERATURE, SLUICE_STAGE_TOP_P}, 0.8F, 0.9F, 0, 1, 0)},
      {"penalties, min_p", {{"order", kOrder}, {"temperature", "1.3"}, {"min_p", "0.1"}, {"repetition_penalty", "1.2"},
                            {"presence_penalty", "0.7"}},
       spec_of({SLUICE_STAGE_REPETITION, SLUICE_STAGE_PRESENCE, SLUICE_STAGE_TEMPERATURE, SLUICE_STAGE_MIN_P}, 1.3F, 1,
               0.1F, 1.2F, 0.7F)},
  };
  return cases;
}

const TestConfig kTarget = {{"script", "hash"}, {"vocab_size", "5"}, {"eos_token", "-1"}, {"spread", "1.5"},
                            {"hash_tokens", "2"}, {"seed", "6"}};

mock::ScriptOptions script() {
  mock::ScriptOptions out;
  out.script = mock::Script::kHash;
  out.vocab_size = kVocab;
  out.eos_token = -1;
  out.spread = 1.5;
  out.hash_tokens = 2;
  out.seed = 6;
  return out;
}

Law next_token_law(const std::vector<int32_t> &text, const sluice_sample_spec &spec) {
  std::vector<float> row(kVocab);
  mock::fill_row(script(), mock::choose(script(), text, static_cast<uint32_t>(kPrompt.size())), row.data());
  sdk::TokenHistory history;
  history.reset();
  history.append_prompt(text.data(), kPrompt.size());
  history.append_output(text.data() + kPrompt.size(), text.size() - kPrompt.size());
  sdk::RowInputs in;
  in.counts = history.counts().data();
  in.n_counts = history.counts().size();
  sdk::RowSampler sampler;
  sampler.run(row.data(), kVocab, spec, in);
  sampler.write_back();
  Law law(kVocab);
  double sum = 0;
  for (uint32_t v = 0; v < kVocab; ++v) sum += law[v] = std::exp(static_cast<double>(row[v]));
  for (auto &p : law) p /= sum;
  return law;
}

Law answer_law(const sluice_sample_spec &spec) {
  Law law(kCells, 1);
  for (uint32_t cell = 0; cell < kCells; ++cell) {
    std::vector<int32_t> text = kPrompt;
    for (uint32_t i = 0, rest = cell, power = kCells / kVocab; i < kLength; ++i, power /= kVocab) {
      const auto token = static_cast<int32_t>(rest / std::max(power, 1U) % kVocab);
      law[cell] *= next_token_law(text, spec)[static_cast<size_t>(token)];
      text.push_back(token);
    }
  }
  return law;
}

/// Independent draws from made-up distributions, told as sparse rows: two at the root and one behind each.
struct None {};
class Independent final : public sdk::Decoder<None> {
 public:
  static inline bool lies = false;  ///< it draws from other distributions than it tells
  Independent(const sluice_host_api &, const sdk::Config &, const sluice_decoder_setup &) {}
  void needs(sluice_decoder_needs &needs) const override {
    needs.proposals = SLUICE_PROPOSE_SAMPLED_IID;
    needs.max_nodes = 4;
    needs.max_depth = 2;
    needs.flags = SLUICE_DECF_PINNED;
  }
  None open(const sluice_seq_start &, const sdk::Config &) override { return {}; }
  void draft(const sluice_draft_in &in, sdk::Tree &tree) override {
    auto &raw = tree.raw();
    raw.q_form = SLUICE_Q_SPARSE;
    raw.q_indptr[0] = 0;
    for (uint32_t row = 0; row < 2; ++row) {
      std::copy_n(kIds, 3, raw.q_id + 3 * row);
      std::copy_n(kProb[row], 3, raw.q_prob + 3 * row);
      raw.q_indptr[row + 1] = 3 * (row + 1);
    }
    raw.n_q = 2;
    for (uint32_t i = 0; i < in.n_seqs; ++i)
      for (int k = 0; k < 2; ++k) {
        const int32_t child = tree.add(i, -1, drawn(0), 0, 0);
        tree.add(i, child, drawn(1), 0, 1);
      }
  }

 private:
  static constexpr int32_t kIds[3] = {4, 0, 2};
  static constexpr float kProb[2][3] = {{0.5F, 0.3F, 0.2F}, {0.1F, 0.3F, 0.6F}};
  int32_t drawn(uint32_t row) {
    const uint32_t from = lies ? 1 - row : row;
    std::discrete_distribution<int> pick(kProb[from], kProb[from] + 3);
    return kIds[pick(random_)];
  }
  std::mt19937 random_{17};
};
const sluice_decoder_vtbl kIndependent = sdk::DecoderAdapter<Independent>::vtbl();

/// Two tokens at random at every place, chosen in no way that is told.
class Guesses final : public sdk::Decoder<None> {
 public:
  Guesses(const sluice_host_api &, const sdk::Config &, const sluice_decoder_setup &) {}
  void needs(sluice_decoder_needs &needs) const override {
    needs.proposals = SLUICE_PROPOSE_DETERMINISTIC;
    needs.max_nodes = 6;
    needs.max_depth = 2;
    needs.flags = SLUICE_DECF_PINNED;
  }
  None open(const sluice_seq_start &, const sdk::Config &) override { return {}; }
  void draft(const sluice_draft_in &in, sdk::Tree &tree) override {
    for (uint32_t i = 0; i < in.n_seqs; ++i)
      for (int k = 0; k < 2; ++k) {
        const int32_t child = tree.add(i, -1, static_cast<int32_t>(random_() % kVocab), 1);
        for (int m = 0; m < 2; ++m) tree.add(i, child, static_cast<int32_t>(random_() % kVocab), 0);
      }
  }

 private:
  std::mt19937 random_{19};
};
const sluice_decoder_vtbl kGuesses = sdk::DecoderAdapter<Guesses>::vtbl();

struct DecoderCase {
  const char *name;
  MockModel::Use use{"plain"};
  const sluice_decoder_vtbl *own = nullptr;
  bool rejection = false;
  bool stale_cache = false;  ///< the backend computes the row of every draft as if none had been said before it
};

/// A backend that gives every row of a draft the logits of its sequence's first row.
class StaleBackend {
 public:
  explicit StaleBackend(const sluice_backend_vtbl &real) {
    real_ = real;
    vtbl_ = real;
    vtbl_.submit = [](sluice_model *model, const sluice_step *step, sluice_ticket *out, sluice_status *status) {
      first_row_.clear();
      for (uint32_t row = 0, seq = 0; row < step->n_rows; ++row) {
        while (step->row_token[row] >= step->q_indptr[seq + 1]) ++seq;
        const bool goes_on = row > 0 && step->row_token[row - 1] >= step->q_indptr[seq];
        first_row_.push_back(goes_on ? first_row_.back() : row);
      }
      return real_.submit(model, step, out, status);
    };
    vtbl_.wait = [](sluice_model *model, sluice_ticket ticket, uint64_t timeout, sluice_step_result *out,
                    sluice_status *status) {
      const int32_t code = real_.wait(model, ticket, timeout, out, status);
      if (code != SLUICE_OK || out == nullptr || out->logits_host == nullptr) return code;
      rows_.clear();
      for (const uint32_t from : first_row_)
        rows_.insert(rows_.end(), out->logits_host + size_t{from} * kVocab, out->logits_host + size_t{from + 1} * kVocab);
      out->logits_host = rows_.data();
      return code;
    };
  }
  const sluice_backend_vtbl *vtbl() const { return &vtbl_; }

 private:
  static inline sluice_backend_vtbl real_{};
  static inline std::vector<uint32_t> first_row_;
  static inline std::vector<float> rows_;
  sluice_backend_vtbl vtbl_{};
};

const DecoderCase kDecoders[] = {
    {"plain"},
    {"ngram", {"ngram", {{"min_ngram", "1"}, {"max_drafts", "2"}, {"adaptive", "false"}}}},
    {"replay", {"replay", {{"max_drafts", "2"}, {"acceptance", "0.7"}, {"adaptive", "false"}}}},
    {"guessed trees", {"plain"}, &kGuesses},
    {"draft, match", {"draft", {{"model", "small"}, {"max_drafts", "2"}, {"width", "2"}, {"adaptive", "false"}}}},
    {"draft, rejection", {"draft", {{"model", "small"}, {"max_drafts", "2"}, {"adaptive", "false"}}}, nullptr, true},
    {"draft, rejection among 3", {"draft", {{"model", "small"}, {"max_drafts", "2"}, {"width", "3"}, {"adaptive", "false"}}},
     nullptr, true},
    {"independent draws, rejection", {"plain"}, &kIndependent, true},
};

struct Observed {
  Counts counts = Counts(kCells, 0);
  request::GeneratorStats stats;
};

Observed observe(const DecoderCase &decoder, const SamplerCase &sampler, uint32_t n_answers) {
  TestHost host;
  EngineLimits limits;
  limits.max_seqs = 128;
  limits.token_budget = 1024;
  limits.max_rows = 1024;
  limits.max_live = 1024;
  limits.max_context = 32;
  limits.block_size = 4;
  limits.kv_blocks = 1024;
  MockModel model(host, kTarget, limits, {"chain", sampler.options}, decoder.use);
  TestConfig small = {{"spread", "1"}};  // the target's logits, flattened
  small.insert(kTarget.begin(), kTarget.end());
  MockModel draft_model(host, small, limits, "greedy");
  auto parts = model.parts(load_plugin(host, "scheduler", "fcfs")->scheduler);
  const StaleBackend stale(*parts.backend);
  if (decoder.stale_cache) parts.backend = stale.vtbl();
  if (decoder.use.name == "draft") parts.draft_model = draft_model.drafting_parts(limits);
  sluice_decoder *own = nullptr;
  if (decoder.own != nullptr) {
    sluice_decoder_setup setup{};
    EXPECT_EQ(decoder.own->create(host.api(), nullptr, &setup, &own, nullptr), SLUICE_OK);
    parts.decoder = decoder.own;
    parts.decoder_instance = own;
  }
  Observed out;
  {
    auto core = EngineCore::create(parts, limits);
    EXPECT_TRUE(core.has_value()) << (core ? "" : core.error().message);
    constexpr uint32_t kTogether = 500;
    std::vector<request::Event> events;
    for (uint32_t first = 0; first < n_answers; first += kTogether) {
      auto request = std::make_shared<request::Request>();
      request->id = first + 1;
      request->prompt = kPrompt;
      request->max_new = kLength;
      request->seed = 1'000'000 + first;
      request->n_answers = kTogether;
      request->exact_rejection = decoder.rejection;
      request->events = std::make_shared<request::EventChannel>(nullptr);
      EXPECT_TRUE((*core)->submit(request).has_value());
      while ((*core)->live() > 0) (*core)->step(0);
      std::vector<std::vector<int32_t>> answers(kTogether);
      request->events->drain(events);
      for (const auto &event : events)
        if (event.token >= 0) answers[event.answer].push_back(event.token);
      for (const auto &tokens : answers)
        if (tokens.size() == kLength) ++out.counts[cell_of(tokens)];
    }
    out.stats = (*core)->stats();
    EXPECT_EQ(out.stats.plugin_errors, 0U);
  }
  if (own != nullptr) decoder.own->destroy(own);
  return out;
}

class AnswersUnder : public ::testing::TestWithParam<size_t> {};

TEST_P(AnswersUnder, EveryDecoderFollowTheTargetsLaw) {
  const auto &sampler = samplers()[GetParam()];
  const Law law = answer_law(sampler.spec);
  double sum = 0;
  for (const double p : law) sum += p;
  ASSERT_NEAR(sum, 1, 1e-9);
  for (const auto &decoder : kDecoders) {
    const auto observed = observe(decoder, sampler, kEngineAnswers);
    double n = 0;
    for (const double count : observed.counts) n += count;
    ASSERT_EQ(n, kEngineAnswers) << decoder.name;
    EXPECT_GT(p_value(observed.counts, law), 1e-6) << decoder.name << " x " << sampler.name;
    const bool drafts = std::string(decoder.name) != "plain";
    EXPECT_EQ(observed.stats.draft_tokens > kEngineAnswers / 400, drafts) << decoder.name << ": " << observed.stats.draft_tokens;
    // What n-grams guess of this prompt, top_p cuts off every time.
    const bool can_be_right = drafts && (std::string(decoder.name) != "ngram" || sampler.spec.top_p == 1);
    EXPECT_EQ(observed.stats.draft_accepted_tokens > kEngineAnswers / 400, can_be_right)
        << decoder.name << ": " << observed.stats.draft_accepted_tokens << " of " << observed.stats.draft_tokens;
  }
}
INSTANTIATE_TEST_SUITE_P(Samplers, AnswersUnder, ::testing::Range<size_t>(0, 3));

// ---- the statistics see planted bugs ----

enum class Bug {
  kNone,
  kResampleFromTarget,
  kReportsQWithoutItsTopP,
  kResidualOfUnfilteredTarget,
  kBonusFromResidual,
  kCacheOffByOne,
  kAcceptanceWithoutQ,
  kLenient,
  kPenaltiesIgnoreThePath,
  kNotRenormalised,
};

struct Toy {
  std::mt19937_64 random;
  double unit() { return std::uniform_real_distribution<double>()(random); }
  int32_t draw(std::span<const double> law) {
    double at = unit();
    for (size_t v = 0; v + 1 < law.size(); ++v)
      if ((at -= law[v]) < 0) return static_cast<int32_t>(v);
    for (size_t v = law.size(); v > 0; --v)
      if (law[v - 1] > 0) return static_cast<int32_t>(v - 1);
    return 0;
  }
};

Law flattened(const Law &law) {
  Law out = law;
  double sum = 0;
  for (auto &p : out) sum += p = std::sqrt(p) + 0.02;
  for (auto &p : out) p /= sum;
  return out;
}

/// Far from the law, so that second tries matter.
Law mirrored(const Law &law) {
  Law out(law.rbegin(), law.rend());
  for (auto &p : out) p = 0.8 * p + 0.2 / static_cast<double>(out.size());
  return out;
}

Law without_tail(Law law) {
  for (auto &p : law) p = p < 0.12 ? 0 : p;
  double sum = 0;
  for (const double p : law) sum += p;
  for (auto &p : law) p /= sum;
  return law;
}

/// One answer by rejection sampling over chains of two drafts (two siblings at each place for kNotRenormalised).
std::vector<int32_t> answer_with(Bug bug, const std::vector<Law> &law_after, const std::vector<Law> &other_law,
                                 uint32_t n_siblings, Toy &toy) {
  std::vector<int32_t> out;
  const auto law_of = [&](const std::vector<int32_t> &text, const std::vector<Law> &laws) -> const Law & {
    size_t index = 0;
    for (const int32_t token : text) index = index * (kVocab + 1) + static_cast<size_t>(token) + 1;
    return laws[index];
  };
  while (out.size() < kLength) {
    for (uint32_t depth = 0; depth < 2 && out.size() < kLength; ++depth) {
      Law p = law_of(out, law_after);
      if (depth > 0 && bug == Bug::kPenaltiesIgnoreThePath) p = law_of(out, other_law);
      if (depth > 0 && bug == Bug::kCacheOffByOne) p = law_of(std::vector<int32_t>(out.begin(), out.end() - 1), law_after);
      const Law q = n_siblings > 1 ? mirrored(p) : flattened(p);
      const Law drawn_from = bug == Bug::kReportsQWithoutItsTopP ? without_tail(q) : q;
      const std::vector<float> reported(q.begin(), q.end());
      const DraftDistribution distribution{reported, {}, {}};
      Law left = p;
      Residual at(left, bug == Bug::kNotRenormalised ? Siblings::kIndependent : Siblings::kWithoutReplacement);
      bool accepted = false;
      Law rest = drawn_from;
      for (uint32_t sibling = 0; sibling < n_siblings && !accepted; ++sibling) {
        const int32_t x = toy.draw(rest);
        double chance = at.acceptance(x, distribution);
        if (bug == Bug::kAcceptanceWithoutQ) chance = left[static_cast<size_t>(x)];
        if (bug == Bug::kLenient) chance /= 0.95;
        if (toy.unit() < chance) {
          out.push_back(x);
          accepted = true;
          break;
        }
        at.reject(x, distribution);
        const double gone = rest[static_cast<size_t>(x)];
        rest[static_cast<size_t>(x)] = 0;
        for (auto &mass : rest) mass /= 1 - gone;
      }
      if (accepted) continue;
      Law end(at.left().begin(), at.left().end());
      if (bug == Bug::kResampleFromTarget) end = p;
      if (bug == Bug::kResidualOfUnfilteredTarget) {
        Law whole = law_of(out, other_law);
        double sum = 0;
        for (size_t v = 0; v < kVocab; ++v) sum += whole[v] = std::max(0.0, whole[v] - q[v]);
        if (sum > 0) {
          for (auto &mass : whole) mass /= sum;
          end = whole;
        }
      }
      out.push_back(toy.draw(end));
      depth = 2;
    }
    if (out.size() < kLength && bug == Bug::kBonusFromResidual) {
      Law p = law_of(out, law_after);
      const Law q = flattened(p);
      const std::vector<float> reported(q.begin(), q.end());
      Residual at(p, Siblings::kIndependent);
      at.reject(0, {reported, {}, {}});
      out.push_back(toy.draw(at.left()));
    }
  }
  out.resize(kLength);
  return out;
}

/// The law after every text of up to kLength tokens, by the index that answer_with() uses.
std::vector<Law> laws_of(const sluice_sample_spec &spec) {
  std::vector<Law> out(1 + 6 + 36 + 216);
  const std::function<void(const std::vector<int32_t> &)> fill = [&](const std::vector<int32_t> &answer) {
    size_t index = 0;
    for (const int32_t token : answer) index = index * (kVocab + 1) + static_cast<size_t>(token) + 1;
    std::vector<int32_t> text = kPrompt;
    text.insert(text.end(), answer.begin(), answer.end());
    out[index] = next_token_law(text, spec);
    if (answer.size() + 1 >= kLength) return;
    for (int32_t v = 0; v < static_cast<int32_t>(kVocab); ++v) {
      auto longer = answer;
      longer.push_back(v);
      fill(longer);
    }
  };
  fill({});
  return out;
}

// Faults around the real verifier, in what it is told: the same run as above, and it must not pass.
TEST(PlantedBugs, AroundTheRealVerifierAreSeen) {
  const auto &sampler = samplers()[0];
  const Law law = answer_law(sampler.spec);
  constexpr uint32_t kFew = 20'000;
  const DecoderCase honest = {"independent draws", {"plain"}, &kIndependent, true};
  EXPECT_GT(p_value(observe(honest, sampler, kFew).counts, law), 1e-6) << "without a fault so few answers pass";
  Independent::lies = true;
  EXPECT_LT(p_value(observe(honest, sampler, kFew).counts, law), 1e-6) << "drafts drawn from another q than was told";
  Independent::lies = false;
  const DecoderCase stale = {"independent draws", {"plain"}, &kIndependent, true, true};
  EXPECT_LT(p_value(observe(stale, sampler, kFew).counts, law), 1e-6) << "rows of drafts that do not see their path";
}

TEST(PlantedBugs, AreSeenByTheStatisticsAndTheRightRuleIsNotAccused) {
  const auto &sampler = samplers()[2];
  const Law law = answer_law(sampler.spec);
  const auto laws = laws_of(sampler.spec);
  const auto unfiltered = laws_of(spec_of({SLUICE_STAGE_TEMPERATURE}, 1.3F, 1, 0, 1, 0));
  for (int bug = 0; bug <= static_cast<int>(Bug::kNotRenormalised); ++bug) {
    const uint32_t siblings = static_cast<Bug>(bug) == Bug::kNotRenormalised ? 2 : 1;
    Toy toy{std::mt19937_64(29)};
    Counts counts(kCells, 0);
    for (uint32_t i = 0; i < kAnswers; ++i)
      ++counts[cell_of(answer_with(static_cast<Bug>(bug), laws, unfiltered, siblings, toy))];
    if (static_cast<Bug>(bug) == Bug::kNone) {
      EXPECT_GT(p_value(counts, law), 1e-6);
    } else {
      EXPECT_LT(p_value(counts, law), 1e-6) << "bug " << bug;
    }
  }
  Toy toy{std::mt19937_64(31)};
  Counts counts(kCells, 0);
  for (uint32_t i = 0; i < kAnswers; ++i) ++counts[cell_of(answer_with(Bug::kNone, laws, unfiltered, 2, toy))];
  EXPECT_GT(p_value(counts, law), 1e-6) << "two siblings, renormalised";
}

}  // namespace
}  // namespace sluice::engine::testing

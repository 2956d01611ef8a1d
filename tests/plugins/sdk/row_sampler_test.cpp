#include <gtest/gtest.h>
#include <sluice/sdk/sampling.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>
#include <vector>

namespace {
using namespace sluice::sdk;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

sluice_sample_spec spec_of(std::vector<uint8_t> stages) {
  sluice_sample_spec s{};
  s.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  for (const uint8_t stage : stages) s.stage[s.n_stages++] = stage;
  s.temperature = s.repetition = s.top_p = 1;
  return s;
}

std::vector<float> random_row(uint32_t n, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(n);
  for (float &l : row) l = std::round(normal(random) * 64) / 64;  // coarse, so that ties occur
  return row;
}

// ---- the stages, one definition after the other, on a full row in f64 ----
std::vector<uint32_t> by_rank(const std::vector<float> &row) {
  std::vector<uint32_t> ids(row.size());
  std::iota(ids.begin(), ids.end(), 0u);
  std::stable_sort(ids.begin(), ids.end(), [&](uint32_t a, uint32_t b) { return row[a] > row[b]; });
  return ids;
}
std::vector<double> softmax(const std::vector<float> &row) {
  const float max = *std::max_element(row.begin(), row.end());
  std::vector<double> p;
  double total = 0;
  for (const float l : row) p.push_back(std::exp(static_cast<double>(l) - max)), total += p.back();
  for (double &v : p) v /= total;
  return p;
}
std::vector<float> keep(const std::vector<float> &row, const std::set<uint32_t> &ids) {
  std::vector<float> out(row.size(), -kInfinity);
  for (const uint32_t id : ids) out[id] = row[id];
  return out;
}
std::vector<float> brute_top_k(const std::vector<float> &row, int32_t k, bool ties) {
  const auto rank = by_rank(row);
  std::set<uint32_t> kept(rank.begin(), rank.begin() + std::min<size_t>(static_cast<size_t>(k), rank.size()));
  if (ties)
    for (uint32_t v = 0; v < row.size(); ++v)
      if (row[v] == row[rank[static_cast<size_t>(k) - 1]]) kept.insert(v);
  return keep(row, kept);
}
std::vector<float> brute_top_p(const std::vector<float> &row, double top_p) {
  const auto p = softmax(row);
  std::set<uint32_t> kept;
  double sum = 0;
  for (const uint32_t v : by_rank(row)) {
    if (!kept.empty() && sum >= top_p) break;
    kept.insert(v), sum += p[v];
  }
  return keep(row, kept);
}
std::vector<float> brute_min_p(const std::vector<float> &row, double min_p) {
  const auto p = softmax(row);
  const double limit = min_p * *std::max_element(p.begin(), p.end());
  std::set<uint32_t> kept;
  for (uint32_t v = 0; v < row.size(); ++v)
    if (p[v] >= limit) kept.insert(v);
  return keep(row, kept);
}

std::vector<float> run(const sluice_sample_spec &spec, std::vector<float> row, const RowInputs &in = {}) {
  RowSampler s;
  s.run(row.data(), static_cast<uint32_t>(row.size()), spec, in);
  s.write_back();
  return row;
}

constexpr uint32_t kSizes[] = {1, 7, 16, 40, 333, 5000};

TEST(RowSampler, NoStagesChangeNothing) {
  const auto row = random_row(100, 2, 1);
  EXPECT_EQ(run(spec_of({}), row), row);
}

TEST(RowSampler, MaskForbidsExactlyTheZeroBits) {
  for (const uint32_t n : kSizes) {
    const auto row = random_row(n, 2, n);
    std::vector<uint32_t> words((n + 31) / 32, UINT32_MAX);
    auto want = row;
    for (uint32_t v = 0; v < n; v += 1 + v % 5) words[v / 32] &= ~(1u << v % 32), want[v] = -kInfinity;
    RowInputs in;
    in.mask = words.data();
    EXPECT_EQ(run(spec_of({SLUICE_STAGE_MASK}), row, in), want) << n;
  }
}

TEST(RowSampler, BiasAddsAndIgnoresIdsOutsideTheVocabulary) {
  const int32_t tokens[] = {3, 9, 3, -1, 10};
  const float values[] = {1.5f, -kInfinity, 0.25f, 7, 7};
  RowInputs in;
  in.bias_token = tokens, in.bias_value = values, in.n_bias = 5;
  std::vector<float> want(10, 1.0f);
  want[3] = 2.75f, want[9] = -kInfinity;
  EXPECT_EQ(run(spec_of({SLUICE_STAGE_BIAS}), std::vector<float>(10, 1.0f), in), want);
}

TEST(RowSampler, PenaltiesFollowTheirFormulasAndScopes) {
  const TokenCount counts[] = {{0, 2, 0}, {1, 0, 3}, {2, 1, 1}};
  RowInputs in;
  in.counts = counts, in.n_counts = 3;
  auto spec = spec_of({SLUICE_STAGE_REPETITION, SLUICE_STAGE_FREQUENCY, SLUICE_STAGE_PRESENCE});
  spec.repetition = 2, spec.frequency = 0.5f, spec.presence = 0.25f;
  const std::vector<float> row{4, -4, 4, 4};
  EXPECT_EQ(run(spec, row, in), (std::vector<float>{4, -8 - 1.5f - 0.25f, 2 - 0.5f - 0.25f, 4}));
  spec.penalty_prompt = SLUICE_SCOPE_REPETITION;
  EXPECT_EQ(run(spec, row, in)[0], 2.0f);
  spec.penalty_prompt = SLUICE_SCOPE_FREQUENCY | SLUICE_SCOPE_PRESENCE;
  EXPECT_EQ(run(spec, row, in)[0], 4 - 1.0f - 0.25f);
  EXPECT_EQ(run(spec, row, in)[2], 2 - 1.0f - 0.25f);
}

TEST(RowSampler, TemperatureDividesAndZeroKeepsTheFirstOfTheBest) {
  auto spec = spec_of({SLUICE_STAGE_TEMPERATURE});
  spec.temperature = 0.7f;
  for (const uint32_t n : kSizes) {
    auto row = random_row(n, 2, n);
    auto want = row;
    for (float &l : want) l /= 0.7f;
    EXPECT_EQ(run(spec, row), want);
  }
  spec.temperature = 0;
  EXPECT_EQ(run(spec, {1, 3, 3, 2}), (std::vector<float>{-kInfinity, 3, -kInfinity, -kInfinity}));
}

TEST(RowSampler, TopKIsByRankAndOptionallyWithTies) {
  for (const uint32_t n : kSizes)
    for (const int32_t k : {1, 2, 5, 16, 40, 300, 4999}) {
      if (static_cast<uint32_t>(k) > n) continue;
      for (const bool ties : {false, true}) {
        const auto row = random_row(n, 0.5f, n + static_cast<uint32_t>(k));
        auto spec = spec_of({SLUICE_STAGE_TOP_K});
        spec.top_k = k;
        spec.flags = ties ? SLUICE_SPF_TOP_K_TIES : 0;
        ASSERT_EQ(run(spec, row), brute_top_k(row, k, ties)) << n << " " << k << " " << ties;
      }
    }
}

TEST(RowSampler, TopPKeepsTheShortestPrefix) {
  for (const uint32_t n : kSizes)
    for (const float spread : {0.0f, 0.3f, 2.0f, 8.0f})
      for (const float p : {0.0f, 0.01f, 0.37f, 0.9f, 0.95f, 0.999f}) {
        const auto row = random_row(n, spread, n + static_cast<uint32_t>(p * 100));
        auto spec = spec_of({SLUICE_STAGE_TOP_P});
        spec.top_p = p;
        const auto got = run(spec, row), want = brute_top_p(row, static_cast<double>(p));
        if (got == want) continue;
        // f32 and f64 may see the same sum on either side of p: then the sets differ in the last entry by rank.
        const auto count = [](const std::vector<float> &r) { return std::count(r.begin(), r.end(), -kInfinity); };
        ASSERT_LE(std::abs(count(got) - count(want)), 1) << n << " " << spread << " " << p;
        const auto probs = softmax(row);
        double sum = 0;
        for (size_t v = 0; v < row.size(); ++v) sum += got[v] == -kInfinity ? 0 : probs[v];
        ASSERT_NEAR(sum, p, 2e-6 + 1.0 / n) << n << " " << spread << " " << p;
      }
}

TEST(RowSampler, MinPIsRelativeToTheBest) {
  for (const uint32_t n : kSizes)
    for (const float p : {0.001f, 0.0513f, 0.31f, 1.0f}) {
      const auto row = random_row(n, 2, n);
      auto spec = spec_of({SLUICE_STAGE_MIN_P});
      spec.min_p = p;
      EXPECT_EQ(run(spec, row), brute_min_p(row, static_cast<double>(p))) << n << " " << p;
    }
}

TEST(RowSampler, StagesRunInTheOrderListed) {
  const auto row = random_row(2000, 2, 9);
  auto spec = spec_of({SLUICE_STAGE_TOP_P, SLUICE_STAGE_TOP_K, SLUICE_STAGE_TEMPERATURE, SLUICE_STAGE_MIN_P});
  spec.top_p = 0.8f, spec.top_k = 50, spec.temperature = 2, spec.min_p = 0.2f;
  auto want = brute_top_k(brute_top_p(row, 0.8), 50, false);
  for (float &l : want) l /= 2;
  EXPECT_EQ(run(spec, row), brute_min_p(want, 0.2));

  auto reversed = spec_of({SLUICE_STAGE_MIN_P, SLUICE_STAGE_TEMPERATURE, SLUICE_STAGE_TOP_K, SLUICE_STAGE_TOP_P});
  reversed.top_p = 0.8f, reversed.top_k = 50, reversed.temperature = 2, reversed.min_p = 0.2f;
  want = brute_min_p(row, 0.2);
  for (float &l : want) l /= 2;
  EXPECT_EQ(run(reversed, row), brute_top_p(brute_top_k(want, 50, false), 0.8));
}

TEST(RowSampler, ValueStagesAfterASetStageEditOnlyWhatIsLeft) {
  const int32_t tokens[] = {0, 1};
  const float values[] = {100, 100};
  RowInputs in;
  in.bias_token = tokens, in.bias_value = values, in.n_bias = 2;
  auto spec = spec_of({SLUICE_STAGE_TOP_K, SLUICE_STAGE_BIAS});
  spec.top_k = 2;
  EXPECT_EQ(run(spec, {1, 5, 6, 2}, in), (std::vector<float>{-kInfinity, 105, 6, -kInfinity}));
}

TEST(RowSampler, DrawFollowsTheProcessedDistribution) {
  const std::vector<float> row{1, 3, 2, 0, 2.5f, -1};
  auto spec = spec_of({SLUICE_STAGE_TEMPERATURE, SLUICE_STAGE_TOP_K});
  spec.temperature = 1.5f, spec.top_k = 4;
  const auto processed = run(spec, row);
  const auto p = softmax(processed);
  std::vector<uint32_t> seen(row.size());
  RowSampler s;
  constexpr uint32_t kDraws = 100000;
  for (uint32_t i = 0; i < kDraws; ++i) {
    auto copy = row;
    s.run(copy.data(), 6, spec);
    const int32_t token = s.draw(7, i);
    ++seen[static_cast<size_t>(token)];
    if (i < 100) {
      ASSERT_EQ(token, draw_row(processed.data(), 6, 7, i)) << "sparse and dense draws differ";
    }
  }
  double chi = 0;
  for (size_t v = 0; v < row.size(); ++v) {
    if (p[v] == 0) {
      EXPECT_EQ(seen[v], 0u);
      continue;
    }
    chi += (seen[v] - p[v] * kDraws) * (seen[v] - p[v] * kDraws) / (p[v] * kDraws);
  }
  EXPECT_LT(chi, 30.7);  // 3 degrees of freedom, p = 1e-6
}

TEST(RowSampler, LogprobsAreLogSoftmaxOfTheKindAskedFor) {
  const auto row = random_row(1000, 2, 4);
  auto spec = spec_of({SLUICE_STAGE_TEMPERATURE, SLUICE_STAGE_TOP_K});
  spec.temperature = 0.5f, spec.top_k = 10, spec.flags = SLUICE_SPF_LOGPROB, spec.n_logprobs = 20;
  const auto processed = run(spec, row);
  const auto raw_p = softmax(row), processed_p = softmax(processed);
  for (const uint32_t kind :
       {SLUICE_LOGPROBS_RAW, SLUICE_LOGPROBS_PROCESSED, SLUICE_LOGITS_RAW, SLUICE_LOGITS_PROCESSED}) {
    spec.logprobs_kind = kind;
    auto copy = row;
    RowSampler s;
    s.run(copy.data(), 1000, spec);
    const bool raw = kind == SLUICE_LOGPROBS_RAW || kind == SLUICE_LOGITS_RAW;
    const auto &source = raw ? row : processed;
    const auto want = [&](uint32_t v) {
      if (kind == SLUICE_LOGPROBS_RAW) return static_cast<float>(std::log(raw_p[v]));
      if (kind == SLUICE_LOGPROBS_PROCESSED) return static_cast<float>(std::log(processed_p[v]));
      return source[v];
    };
    const auto rank = by_rank(source);
    int32_t ids[20];
    float values[20];
    s.top(20, ids, values);
    for (uint32_t i = 0; i < 20; ++i) {
      if (!raw && i >= 10) {
        EXPECT_EQ(ids[i], -1);
        EXPECT_EQ(values[i], -kInfinity);
        continue;
      }
      EXPECT_EQ(ids[i], static_cast<int32_t>(rank[i]));
      EXPECT_NEAR(values[i], want(rank[i]), 2e-5f);
    }
    const int32_t chosen = s.draw(1, 1);
    EXPECT_NEAR(s.value(chosen), want(static_cast<uint32_t>(chosen)), 2e-5f);
    EXPECT_EQ(s.value(-1), -kInfinity);
    EXPECT_EQ(s.value(1000), -kInfinity);
  }
}

TEST(RowSampler, CandidatesAreTheBestOfWhatIsLeftAndCanBeWorkedOnFurther) {
  const auto row = random_row(500, 2, 5);
  auto device = spec_of({SLUICE_STAGE_TOP_K});
  device.top_k = 30;
  RowSampler s;
  auto copy = row;
  s.run(copy.data(), 500, device);
  int32_t ids[40];
  float logits[40];
  EXPECT_EQ(s.candidates(40, ids, logits), 30u);
  EXPECT_EQ(ids[30], -1);
  auto host = spec_of({SLUICE_STAGE_TEMPERATURE, SLUICE_STAGE_TOP_P});
  host.temperature = 0.8f, host.top_p = 0.7f;
  auto both = spec_of({SLUICE_STAGE_TOP_K, SLUICE_STAGE_TEMPERATURE, SLUICE_STAGE_TOP_P});
  both.top_k = 30, both.temperature = 0.8f, both.top_p = 0.7f;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    RowSampler whole, rest;
    auto again = row;
    whole.run(again.data(), 500, both);
    rest.run_candidates(ids, logits, 40, kNan, host);
    EXPECT_EQ(whole.draw(seed, 1), rest.draw(seed, 1));
  }
}

TEST(RowSampler, ReportsAnEmptyRow) {
  std::vector<float> row(100, -kInfinity);
  RowSampler s;
  for (const auto &stages : std::vector<std::vector<uint8_t>>{
           {}, {SLUICE_STAGE_TEMPERATURE}, {SLUICE_STAGE_TOP_K}, {SLUICE_STAGE_TOP_P}, {SLUICE_STAGE_MIN_P}}) {
    auto spec = spec_of(stages);
    spec.temperature = 0, spec.top_k = 3, spec.top_p = 0.5f, spec.min_p = 0.5f;
    s.run(row.data(), 100, spec);
    EXPECT_EQ(s.draw(1, 1), -1);
    EXPECT_EQ(s.argmax(), -1);
    EXPECT_EQ(s.lse(), -kInfinity);
  }
}

TEST(RowSampler, RefusesParametersThatMeanNothing) {
  float row[] = {1, 2};
  RowSampler s;
  const auto refused = [&](uint8_t stage, auto &&set) {
    auto spec = spec_of({stage});
    set(spec);
    EXPECT_THROW(s.run(row, 2, spec), Error) << int{stage};
  };
  refused(SLUICE_STAGE_TEMPERATURE, [](auto &x) { x.temperature = -1; });
  refused(SLUICE_STAGE_TEMPERATURE, [](auto &x) { x.temperature = kNan; });
  refused(SLUICE_STAGE_REPETITION, [](auto &x) { x.repetition = 0; });
  refused(SLUICE_STAGE_FREQUENCY, [](auto &x) { x.frequency = kInfinity; });
  refused(SLUICE_STAGE_PRESENCE, [](auto &x) { x.presence = kNan; });
  refused(SLUICE_STAGE_TOP_P, [](auto &x) { x.top_p = kNan; });
  refused(SLUICE_STAGE_MIN_P, [](auto &x) { x.min_p = 1.5f; });
  refused(SLUICE_STAGE_MIROSTAT, [](auto &) {});
  refused(SLUICE_STAGE_MASK, [](auto &x) { x.n_stages = 17; });
  refused(SLUICE_STAGE_MASK, [](auto &x) { x.logprobs_kind = 4; });
}

TEST(RowMath, ExpIsAccurateOverItsWholeRange) {
  double worst = 0;
  for (float x = -86.9f; x <= 0; x += 0.0137f) {
    const double want = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(exp_nonpositive(x)) - want) / want);
  }
  EXPECT_LT(worst, 2e-7);
  EXPECT_EQ(exp_nonpositive(0), 1.0f);
  EXPECT_EQ(exp_nonpositive(-kInfinity), 0.0f);
}

TEST(RowMath, LogSumExpKeepsSixDigitsOverALargeVocabulary) {
  const auto row = random_row(200000, 3, 8);
  double total = 0;
  for (const float l : row) total += std::exp(static_cast<double>(l));
  EXPECT_NEAR(log_sum_exp(row.data(), 200000), std::log(total), 2e-6 * std::log(total));
}

}  // namespace

// `sluice bench --decoder NAME`: the same requests without and with drafts, in turn.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>

#include "core/app/bench_run.hpp"
#include "core/app/command.hpp"

namespace sluice::app {
namespace {

/// Mean of the logarithms of ratios, with its one-sided lower 95 % bound (Student's t).
struct RatioOfPairs {
  double mean = 1, lower = 1;
};

RatioOfPairs ratio_of(const std::vector<double> &ratios) {
  static constexpr double kT95[] = {0,     6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812,
                                    1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725};
  double sum = 0;
  for (const double ratio : ratios) sum += std::log(ratio);
  const auto n = static_cast<double>(ratios.size());
  const double mean = sum / n;
  double squares = 0;
  for (const double ratio : ratios) squares += (std::log(ratio) - mean) * (std::log(ratio) - mean);
  if (ratios.size() < 2) return {std::exp(mean), 0};
  const double t = ratios.size() - 1 < std::size(kT95) ? kT95[ratios.size() - 1] : 1.645;
  return {std::exp(mean), std::exp(mean - t * std::sqrt(squares / (n - 1) / n))};
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Comparison {
  uint32_t batch = 0;
  double plain_tokens_per_s = 0, tokens_per_s = 0;
  RatioOfPairs ratio;
  double tokens_per_round = 1;  ///< of a sequence whose drafts were verified
  double acceptance = 0;
  double step_cost = 1;         ///< of a decoding step with drafts, drafting included, by one without
  double predicted = 1;
};

/// stats  before and after the rounds with drafts; plain: of those without
Comparison compare(uint32_t batch, const std::vector<double> &plain, const std::vector<double> &drafted,
                   const request::GeneratorStats &sum, double plain_step_ns) {
  Comparison out;
  out.batch = batch;
  out.plain_tokens_per_s = median_of(plain);
  out.tokens_per_s = median_of(drafted);
  std::vector<double> ratios;
  for (size_t i = 0; i < plain.size(); ++i) ratios.push_back(drafted[i] / plain[i]);
  out.ratio = ratio_of(ratios);
  if (sum.draft_rounds == 0) return out;
  const auto real = [](uint64_t value) { return static_cast<double>(value); };
  out.tokens_per_round = 1 + real(sum.draft_accepted_tokens) / real(sum.draft_rounds);
  out.acceptance = real(sum.draft_accepted_tokens) / std::max(1.0, real(sum.draft_tokens));
  if (sum.draft_steps == 0 || plain_step_ns <= 0) return out;
  out.step_cost = real(sum.draft_verify_ns + sum.drafting_ns) / real(sum.draft_steps) / plain_step_ns;
  out.predicted = out.tokens_per_round / out.step_cost;
  return out;
}

request::GeneratorStats difference(const request::GeneratorStats &from, const request::GeneratorStats &to) {
  request::GeneratorStats out;
  out.plain_steps = to.plain_steps - from.plain_steps;
  out.plain_ns = to.plain_ns - from.plain_ns;
  out.draft_rounds = to.draft_rounds - from.draft_rounds;
  out.draft_tokens = to.draft_tokens - from.draft_tokens;
  out.draft_accepted_tokens = to.draft_accepted_tokens - from.draft_accepted_tokens;
  out.draft_steps = to.draft_steps - from.draft_steps;
  out.draft_verify_ns = to.draft_verify_ns - from.draft_verify_ns;
  out.drafting_ns = to.drafting_ns - from.drafting_ns;
  return out;
}

void add_to(request::GeneratorStats &sum, const request::GeneratorStats &part) {
  sum.plain_steps += part.plain_steps;
  sum.plain_ns += part.plain_ns;
  sum.draft_rounds += part.draft_rounds;
  sum.draft_tokens += part.draft_tokens;
  sum.draft_accepted_tokens += part.draft_accepted_tokens;
  sum.draft_steps += part.draft_steps;
  sum.draft_verify_ns += part.draft_verify_ns;
  sum.drafting_ns += part.drafting_ns;
}

Result<Comparison> run_pairs(LocalModel &model, uint32_t batch, const DecoderBench &options,
                             const std::shared_ptr<const plugin::Options> &without) {
  std::vector<double> plain;
  std::vector<double> drafted;
  request::GeneratorStats of_plain;
  request::GeneratorStats of_drafted;
  for (uint32_t round = 0; round <= options.rounds; ++round) {
    const auto start = model.generator().stats();
    auto one = run_bench(model, {batch, options.prompt_tokens, options.gen_tokens, without});
    if (!one) return one.error();
    const auto middle = model.generator().stats();
    auto other = run_bench(model, {batch, options.prompt_tokens, options.gen_tokens, nullptr});
    if (!other) return other.error();
    if (round == 0) continue;  // warms caches and clocks; `replay` records, and a draft length is found
    plain.push_back(one->decode_tokens_per_s);
    drafted.push_back(other->decode_tokens_per_s);
    add_to(of_plain, difference(start, middle));
    add_to(of_drafted, difference(middle, model.generator().stats()));
  }
  const double plain_step_ns =
      of_plain.plain_steps == 0 ? 0 : static_cast<double>(of_plain.plain_ns) / static_cast<double>(of_plain.plain_steps);
  return compare(batch, plain, drafted, of_drafted, plain_step_ns);
}

}  // namespace

int bench_decoder(DecoderBench options) {
  options.model.max_seqs = *std::max_element(options.batches.begin(), options.batches.end());
  if (options.model.context == 0) options.model.context = options.prompt_tokens + options.gen_tokens;
  auto model = LocalModel::load(options.model);
  if (!model) return fail(model.error());
  if ((*model)->generator().limits().max_branches > 1)
    return fail(invalid_argument(fmt::format("decoder {} makes no drafts, it searches: its answers are others than plain "
                                             "decoding's, so there is no ratio to measure", options.model.decoder)));
  const char *const limit = (*model)->decoder_takes("max_drafts") ? "max_drafts" : "max_nodes";
  auto without = (*model)->decoder_options(boost::json::object{{limit, 0}});
  if (!without)
    return fail(invalid_argument(fmt::format("decoder {} cannot be switched off by {}, so there is nothing to compare with: {}",
                                             options.model.decoder, limit, without.error().message)));
  boost::json::array rows;
  if (!options.json)
    fmt::print("{:>6} {:>12} {:>12} {:>8} {:>10} {:>12} {:>11} {:>10} {:>10}\n", "batch", "plain tok/s", "drafted",
               "ratio", "95% above", "tokens/step", "acceptance", "step cost", "predicted");
  for (const uint32_t batch : options.batches) {
    auto c = run_pairs(**model, batch, options, *without);
    if (!c) return fail(c.error());
    if (!options.json)
      fmt::print("{:>6} {:>12.2f} {:>12.2f} {:>8.3f} {:>10.3f} {:>12.2f} {:>11.3f} {:>10.2f} {:>10.3f}\n", c->batch,
                 c->plain_tokens_per_s, c->tokens_per_s, c->ratio.mean, c->ratio.lower, c->tokens_per_round,
                 c->acceptance, c->step_cost, c->predicted);
    rows.push_back(boost::json::object{{"batch", c->batch},
                                       {"plain_tokens_per_s", c->plain_tokens_per_s},
                                       {"tokens_per_s", c->tokens_per_s},
                                       {"ratio", c->ratio.mean},
                                       {"ratio_lower_95", c->ratio.lower},
                                       {"tokens_per_step", c->tokens_per_round},
                                       {"acceptance", c->acceptance},
                                       {"step_cost", c->step_cost},
                                       {"predicted_ratio", c->predicted}});
  }
  if (options.json) {
    fmt::print("{}\n", boost::json::serialize(boost::json::object{{"backend", options.model.backend},
                                                                  {"decoder", options.model.decoder},
                                                                  {"prompt_tokens", options.prompt_tokens},
                                                                  {"gen_tokens", options.gen_tokens},
                                                                  {"pairs", options.rounds},
                                                                  {"results", rows}}));
  } else {
    fmt::print("{} pairs in turn on one engine; acceptance = right / verified drafts; step cost = a step with drafts by "
               "one without; predicted = tokens/step / step cost\n", options.rounds);
  }
  return 0;
}

}  // namespace sluice::app

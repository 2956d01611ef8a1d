#include "settings.hpp"

#include <algorithm>
#include <string>
#include <string_view>

namespace sluice::chain {
namespace {

constexpr double kGreedyBelow = 1e-5;  // smaller temperatures would overflow f32; vLLM draws the line here too
constexpr double kMaxBias = 100;       // OpenAI's range

struct StageName {
  std::string_view name;
  uint8_t stage;
};
constexpr StageName kStageNames[] = {{"bias", SLUICE_STAGE_BIAS},
                                     {"repetition", SLUICE_STAGE_REPETITION},
                                     {"frequency", SLUICE_STAGE_FREQUENCY},
                                     {"presence", SLUICE_STAGE_PRESENCE},
                                     {"temperature", SLUICE_STAGE_TEMPERATURE},
                                     {"min_p", SLUICE_STAGE_MIN_P},
                                     {"top_k", SLUICE_STAGE_TOP_K},
                                     {"top_p", SLUICE_STAGE_TOP_P}};

[[noreturn]] void refuse(const std::string &what) { throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, what); }

std::vector<uint8_t> read_order(const sdk::Config &config) {
  std::vector<uint8_t> order;
  for (const std::string &name : config.list("order")) {
    const auto *known = std::find_if(std::begin(kStageNames), std::end(kStageNames),
                                     [&](const StageName &s) { return s.name == name; });
    if (known == std::end(kStageNames))
      refuse("order: '" + name +
             "' is no stage; there are bias, repetition, frequency, presence, temperature, min_p, "
             "top_k and top_p");
    if (std::find(order.begin(), order.end(), known->stage) != order.end())
      refuse("order: '" + name + "' stands twice");
    order.push_back(known->stage);
  }
  return order;
}

}  // namespace

bool Settings::penalises() const {
  return std::any_of(spec.stage, spec.stage + spec.n_stages, [](uint8_t stage) {
    return stage == SLUICE_STAGE_REPETITION || stage == SLUICE_STAGE_FREQUENCY || stage == SLUICE_STAGE_PRESENCE;
  });
}

Defaults::Defaults(const sdk::Config &config, uint32_t vocab_size) : vocab_size_(vocab_size) {
  order_ = read_order(config);
  penalty_prompt_ = (config.flag("repetition_prompt", true) ? SLUICE_SCOPE_REPETITION : 0) |
                    (config.flag("frequency_prompt", false) ? SLUICE_SCOPE_FREQUENCY : 0) |
                    (config.flag("presence_prompt", false) ? SLUICE_SCOPE_PRESENCE : 0);
  penalty_last_n_ = static_cast<uint32_t>(config.i64("penalty_last_n", 0));
  flags_ = config.flag("top_k_ties", false) ? SLUICE_SPF_TOP_K_TIES : 0;
  values_ = read(config, {});
  settle(values_);
}

Settings Defaults::apply(const sdk::Config &request) const { return settle(read(request, values_)); }

Defaults::Values Defaults::read(const sdk::Config &config, const Values &otherwise) const {
  Values v;
  v.temperature = config.f64("temperature", otherwise.temperature);
  v.top_p = config.f64("top_p", otherwise.top_p);
  v.min_p = config.f64("min_p", otherwise.min_p);
  v.repetition = config.f64("repetition_penalty", otherwise.repetition);
  v.frequency = config.f64("frequency_penalty", otherwise.frequency);
  v.presence = config.f64("presence_penalty", otherwise.presence);
  v.top_k = config.i64("top_k", otherwise.top_k);
  v.bias = config.table("logit_bias");
  if (v.bias.empty()) v.bias = otherwise.bias;
  for (const auto &[token, value] : v.bias) {
    if (static_cast<uint32_t>(token) >= vocab_size_)
      refuse("logit_bias: token " + std::to_string(token) + " is not in the vocabulary of " +
             std::to_string(vocab_size_));
    if (!(value >= -kMaxBias && value <= kMaxBias))
      refuse("logit_bias." + std::to_string(token) + " is " + std::to_string(value) + "; it must be -100..100");
  }
  return v;
}

Settings Defaults::settle(const Values &v) const {
  Settings s;
  sluice_sample_spec &spec = s.spec;
  spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
  spec.flags = flags_;
  spec.temperature = v.temperature < kGreedyBelow ? 0.0f : static_cast<float>(v.temperature);
  spec.top_k = static_cast<int32_t>(v.top_k);
  spec.top_p = static_cast<float>(v.top_p), spec.min_p = static_cast<float>(v.min_p);
  spec.repetition = static_cast<float>(v.repetition), spec.frequency = static_cast<float>(v.frequency);
  spec.presence = static_cast<float>(v.presence);
  spec.penalty_prompt = penalty_prompt_, spec.penalty_last_n = penalty_last_n_;
  for (const auto &[token, value] : v.bias)
    s.bias_token.push_back(token), s.bias_value.push_back(static_cast<float>(value));

  const auto acts = [&](uint8_t stage) {
    switch (stage) {
      case SLUICE_STAGE_BIAS:
        return !s.bias_token.empty();
      case SLUICE_STAGE_REPETITION:
        return spec.repetition != 1;
      case SLUICE_STAGE_FREQUENCY:
        return spec.frequency != 0;
      case SLUICE_STAGE_PRESENCE:
        return spec.presence != 0;
      case SLUICE_STAGE_TEMPERATURE:
        return spec.temperature != 1;
      case SLUICE_STAGE_MIN_P:
        return spec.min_p > 0;
      case SLUICE_STAGE_TOP_K:
        return spec.top_k > 0;
      default:
        return spec.top_p < 1;
    }
  };
  for (const auto &[name, stage] : kStageNames)
    if (acts(stage) && std::find(order_.begin(), order_.end(), stage) == order_.end())
      refuse("this model's sampler runs without the stage '" + std::string(name) +
             "'; leave its parameter at the "
             "value that changes nothing, or add it to `order`");
  for (const uint8_t stage : order_) {
    if (!acts(stage)) continue;
    spec.stage[spec.n_stages++] = stage;
    if (stage == SLUICE_STAGE_TEMPERATURE && spec.temperature == 0) break;  // one token is left: no stage can matter
  }
  return s;
}

}  // namespace sluice::chain

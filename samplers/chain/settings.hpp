// The sampling parameters of a request, and the stages they come to.
#pragma once
#include <sluice/abi/sampling.h>
#include <sluice/sdk/config.hpp>

#include <cstdint>
#include <vector>

namespace sluice::chain {

/// What one sequence is sampled with. Stages without effect (top_p = 1, say) are not listed.
struct Settings {
  sluice_sample_spec spec{};
  std::vector<int32_t> bias_token;
  std::vector<float> bias_value;

  bool penalises() const;
};

/// The defaults of the configuration, and how a request changes them.
class Defaults {
 public:
  /// errors  sdk::Error kInvalidArgument: `order` names no stage or one twice; as apply().
  Defaults(const sdk::Config &config, uint32_t vocab_size);
  /// The settings of a request; what it does not say is as configured.
  /// errors  sdk::Error kInvalidArgument: a bias for an id outside the vocabulary, or no number from -100 to 100; a
  ///         parameter whose stage is not in `order`.
  Settings apply(const sdk::Config &request) const;

 private:
  struct Values {
    double temperature = 1, top_p = 1, min_p = 0, repetition = 1, frequency = 0, presence = 0;
    int64_t top_k = 0;
    std::vector<std::pair<int32_t, double>> bias;
  };
  Values read(const sdk::Config &config, const Values &otherwise) const;
  Settings settle(const Values &values) const;

  uint32_t vocab_size_;
  std::vector<uint8_t> order_;  // SLUICE_STAGE_*
  uint32_t penalty_prompt_ = 0, penalty_last_n_ = 0, flags_ = 0;
  Values values_;
};

/// Names as OpenAI's and vLLM's APIs have them. The order is vLLM's: bias, penalties, temperature, min_p, top_k, top_p.
inline constexpr sluice_config_field kFields[] = {
    sdk::f64_field("temperature", "divides logits; 0 (below 0.00001) takes the best token", "1.0", 0, 2,
                   SLUICE_CFGF_PER_REQUEST),
    sdk::i64_field("top_k", "keeps the k best tokens; 0 or -1 = all", "0", -1, 2147483647, SLUICE_CFGF_PER_REQUEST),
    sdk::f64_field("top_p", "keeps the fewest best tokens with this much probability", "1.0", 0, 1,
                   SLUICE_CFGF_PER_REQUEST),
    sdk::f64_field("min_p", "keeps tokens with at least this fraction of the best one's probability", "0.0", 0, 1,
                   SLUICE_CFGF_PER_REQUEST),
    sdk::f64_field("repetition_penalty", "divides positive and multiplies negative logits of tokens seen; 1 = off",
                   "1.0", 0.01, 100, SLUICE_CFGF_PER_REQUEST),
    sdk::f64_field("frequency_penalty", "taken from a token's logit for every time it was seen", "0.0", -2, 2,
                   SLUICE_CFGF_PER_REQUEST),
    sdk::f64_field("presence_penalty", "taken from a token's logit once it was seen", "0.0", -2, 2,
                   SLUICE_CFGF_PER_REQUEST),
    sdk::table_field("logit_bias", "token id = number from -100 to 100, added to its logit", SLUICE_CFGF_PER_REQUEST),
    sdk::list_field("order", "stages in the order in which they run; what is left out cannot be asked for",
                    "[\"bias\", \"repetition\", \"frequency\", \"presence\", \"temperature\", \"min_p\", \"top_k\", "
                    "\"top_p\"]"),
    sdk::bool_field("repetition_prompt", "repetition_penalty counts the prompt too", "true"),
    sdk::bool_field("frequency_prompt", "frequency_penalty counts the prompt too", "false"),
    sdk::bool_field("presence_prompt", "presence_penalty counts the prompt too", "false"),
    sdk::i64_field("penalty_last_n", "penalties look at the last n tokens; 0 = at all", "0", 0, 1 << 24),
    sdk::bool_field("top_k_ties", "top_k also keeps what equals the k-th", "false"),
};

}  // namespace sluice::chain

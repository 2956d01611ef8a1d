#include "core/api/sampling_fields.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <charconv>

#include "core/api/beam_fields.hpp"
#include "core/api/error_reply.hpp"
#include "core/text/tokenizer.hpp"

namespace sluice::api {
namespace {

namespace json = boost::json;
using lifecycle::RequestSchema;
using lifecycle::ServedModel;

struct NumberField {
  const char *name;
  double min, max, neutral;
};

// source: OpenAI's API reference for the first four, vLLM's sampling parameters for the others.
constexpr NumberField kNumbers[] = {
    {"temperature", 0, 2, 1},        {"top_p", 0, 1, 1}, {"presence_penalty", -2, 2, 0}, {"frequency_penalty", -2, 2, 0},
    {"repetition_penalty", 0.01, 10, 1}, {"min_p", 0, 1, 0},
};
constexpr double kMaxBias = 100;
constexpr size_t kMaxBiases = 1024;

std::string sampler_names(const ServedModel &model) {
  std::string out;
  for (const auto &sampler : model.samplers) out += (out.empty() ? "" : ", ") + sampler.plugin;
  return out.empty() ? "none" : out;
}

bool anybody_takes(const ServedModel &model, std::string_view key) {
  return std::any_of(model.samplers.begin(), model.samplers.end(), [&](const auto &s) { return s.takes(key); }) ||
         (model.decoder && model.decoder->takes(key));
}

bool only_greedy(const ServedModel &model) {
  return !model.samplers.empty() && std::all_of(model.samplers.begin(), model.samplers.end(),
                                                [](const auto &s) { return s.plugin == "greedy"; });
}

void refuse_untaken(Fields &fields, const ServedModel &model, const std::string &name) {
  fields.fail(unsupported(fmt::format("{} is not supported by the samplers of model '{}' ({}); leave it out, or configure a "
                                      "sampler that has it",
                                      name, model.name, sampler_names(model)),
                          name));
}

// {"50256": -100}: ids as strings, as JSON wants its keys.
void read_logit_bias(Fields &fields, const ServedModel &model, json::object &wanted) {
  const auto *value = fields.get("logit_bias");
  if (value == nullptr) return;
  const auto *object = value->if_object();
  if (object == nullptr || object->size() > kMaxBiases) {
    return fields.fail(bad_request(fmt::format("logit_bias must be an object of at most {} token ids and biases", kMaxBiases),
                                   "logit_bias"));
  }
  const auto vocab_size = static_cast<int64_t>(model.tokenizer->vocab_size());
  for (const auto &item : *object) {
    const std::string_view key(item.key().data(), item.key().size());
    int64_t id = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || id < 0 || id >= vocab_size) {
      return fields.fail(bad_request(fmt::format("logit_bias names token '{}'; it must be a token id from 0 to {}",
                                                 key.substr(0, 32), vocab_size - 1),
                                     "logit_bias"));
    }
    const bool is_number = item.value().is_number();
    const double bias = is_number ? item.value().to_number<double>() : 0;
    if (!is_number || !(bias >= -kMaxBias && bias <= kMaxBias)) {
      return fields.fail(bad_request(fmt::format("logit_bias of token {} is {}; it must be a number from {} to {}", id,
                                                 shown(item.value()), -kMaxBias, kMaxBias),
                                     "logit_bias"));
    }
  }
  if (object->empty()) return;
  if (!anybody_takes(model, "logit_bias")) return refuse_untaken(fields, model, "logit_bias");
  wanted["logit_bias"] = *value;
}

void read_numbers(Fields &fields, const ServedModel &model, json::object &wanted) {
  for (const auto &field : kNumbers) {
    const auto value = fields.number(field.name, field.min, field.max);
    if (!value) continue;
    if (anybody_takes(model, field.name)) {
      wanted[field.name] = *value;
    } else if (*value != field.neutral &&
               !(std::string_view(field.name) == "temperature" && *value == 0 && only_greedy(model))) {
      refuse_untaken(fields, model, field.name);
    }
  }
  if (const auto top_k = fields.integer("top_k", -1, INT32_MAX)) {
    if (anybody_takes(model, "top_k")) {
      wanted["top_k"] = std::max<int64_t>(*top_k, 0);  // -1 is another spelling of "off"
    } else if (*top_k > 0) {
      refuse_untaken(fields, model, "top_k");
    }
  }
}

void add_defaults(const ServedModel &model, json::object &wanted) {
  if (only_greedy(model)) return;  // how the model would like to be drawn from does not matter to who takes the best token
  const auto add = [&](const char *key, const auto &value) {
    if (value && !wanted.contains(key) && anybody_takes(model, key)) wanted[key] = *value;
  };
  add("temperature", model.defaults.temperature);
  add("top_p", model.defaults.top_p);
  add("min_p", model.defaults.min_p);
  add("repetition_penalty", model.defaults.repetition_penalty);
  add("top_k", model.defaults.top_k);
}

std::shared_ptr<const plugin::Options> options_for(const RequestSchema &schema, const json::object &wanted, Fields &fields) {
  json::object table;
  for (const auto &key : schema.keys) {
    if (const auto *value = wanted.if_contains(key)) table[key] = *value;
  }
  if (table.empty() || fields.failed()) return nullptr;
  auto options = schema.validate(table);
  if (options) return std::move(*options);
  fields.fail(bad_request(options.error().message, options.error().param));
  return nullptr;
}

}  // namespace

void read_sampling(Fields &fields, const json::object &body, const ServedModel &model, lifecycle::GenerationSpec &spec,
                   std::vector<std::string_view> &ignored) {
  json::object wanted;
  read_beams(fields, model, spec, wanted);
  read_numbers(fields, model, wanted);
  read_logit_bias(fields, model, wanted);
  for (const auto name : fields.unread()) {
    if (anybody_takes(model, name)) {
      wanted[name] = body.at(name);
    } else {
      ignored.push_back(name);
    }
  }
  if (spec.beams > 0) refuse_sampling(fields, model, wanted);
  add_defaults(model, wanted);
  for (const auto &sampler : model.samplers) spec.sampler_options.push_back(options_for(sampler, wanted, fields));
  if (model.decoder) spec.decoder_options = options_for(*model.decoder, wanted, fields);
}

}  // namespace sluice::api

#include "core/api/beam_fields.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/api/error_reply.hpp"

namespace sluice::api {
namespace {

namespace json = boost::json;
using lifecycle::GenerationSpec;
using lifecycle::ServedModel;

constexpr int64_t kMostBeams = 1024;  // of any decoder; the model's own limit is named when it is passed
constexpr double kMostPenalty = 10;

// true, false or "never", in JSON as in Hugging Face; the decoder takes it as text.
std::optional<std::string> read_early_stopping(Fields &fields) {
  const auto *value = fields.get("early_stopping");
  if (value == nullptr) return {};
  if (value->is_bool()) return value->get_bool() ? "true" : "false";
  if (value->is_string() && value->get_string() == "never") return "never";
  fields.fail(bad_request("early_stopping is " + shown(*value) + "; it must be true, false or \"never\"", "early_stopping"));
  return {};
}

// Whether a sampling field asks for what a search does anyway. Temperature 0 is how clients say "do not sample".
bool asks_for_nothing(std::string_view name, const json::value &value) {
  if (!value.is_number()) return false;
  const double number = value.to_number<double>();
  if (name == "temperature") return number == 0 || number == 1;
  if (name == "top_p" || name == "repetition_penalty") return number == 1;
  static constexpr std::string_view kOffAtZero[] = {"top_k", "min_p", "presence_penalty", "frequency_penalty"};
  return number == 0 && std::find(std::begin(kOffAtZero), std::end(kOffAtZero), name) != std::end(kOffAtZero);
}

}  // namespace

void read_beams(Fields &fields, const ServedModel &model, GenerationSpec &spec, json::object &wanted) {
  const bool search = fields.flag("use_beam_search").value_or(false);
  const auto beams = fields.integer("num_beams", 1, kMostBeams);
  if (!search) {
    if (beams.value_or(1) > 1) {
      fields.fail(bad_request(fmt::format("num_beams is {}; it needs use_beam_search: true", *beams), "num_beams"));
    }
    return;  // the others say how to search, so they stay unread and are listed as ignored
  }
  const auto penalty = fields.number("length_penalty", -kMostPenalty, kMostPenalty);
  const auto early = read_early_stopping(fields);
  const uint32_t most = model.generator->limits().max_branches;
  if (most < 2 || !model.decoder || !model.decoder->takes("use_beam_search")) {
    const std::string decoder = model.decoder ? "'" + model.decoder->plugin + "'" : "its engine's own";
    return fields.fail(unsupported(fmt::format("use_beam_search is true, but the decoder of model '{}' is {}, which keeps "
                                               "no beams; leave it out, or configure decoder = \"beam\"",
                                               model.name, decoder),
                                   "use_beam_search"));
  }
  spec.beams = beams ? static_cast<uint32_t>(*beams) : std::max(model.decoder->default_beams, spec.n);
  if (spec.beams > most) {
    return fields.fail(bad_request(fmt::format("num_beams is {}; model '{}' keeps at most {}", spec.beams, model.name, most),
                                   "num_beams"));
  }
  if (spec.n > spec.beams) {
    return fields.fail(bad_request(fmt::format("n is {}, num_beams {}; there are as many answers as beams at most", spec.n,
                                               spec.beams),
                                   "n"));
  }
  wanted["use_beam_search"] = true;
  wanted["num_beams"] = static_cast<int64_t>(spec.beams);
  if (penalty) wanted["length_penalty"] = *penalty;
  if (early) wanted["early_stopping"] = *early;
}

void refuse_sampling(Fields &fields, const ServedModel &model, const json::object &wanted) {
  for (const auto &field : wanted) {
    const std::string_view name = field.key();
    const bool samples = std::any_of(model.samplers.begin(), model.samplers.end(),
                                     [&](const auto &sampler) { return sampler.takes(name); });
    if (!samples || asks_for_nothing(name, field.value())) continue;
    fields.fail(bad_request(fmt::format("{} is {}, but with use_beam_search the model's own probabilities decide; leave one "
                                        "of them out",
                                        name, shown(field.value())),
                            std::string(name)));
    return;
  }
}

}  // namespace sluice::api

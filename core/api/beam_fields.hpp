#pragma once
#include <boost/json/object.hpp>

#include "core/api/fields.hpp"
#include "core/lifecycle/generation.hpp"

namespace sluice::api {

/// Reads use_beam_search, num_beams, length_penalty and early_stopping, hands them to the decoder by these names and sets
/// spec.beams. n must have been read. Refused: a search by a decoder that does not branch, more beams than it has, more
/// answers than beams, num_beams without a search.
/// source  names and meaning: vLLM's use_beam_search, the others Hugging Face's GenerationConfig
void read_beams(Fields &fields, const lifecycle::ServedModel &model, lifecycle::GenerationSpec &spec,
                boost::json::object &wanted);

/// Refuses what is meant for a sampler and would change something: a search ranks by the model's own probabilities.
void refuse_sampling(Fields &fields, const lifecycle::ServedModel &model, const boost::json::object &wanted);

}  // namespace sluice::api

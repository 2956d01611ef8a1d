#pragma once
#include <string>
#include <vector>

#include "core/api/fields.hpp"
#include "core/lifecycle/generation.hpp"

namespace sluice::api {

/// Hands the sampling fields to the model's samplers and decoder by name: each plugin gets the keys it declares, the
/// model's own defaults fill what the request leaves out. A field that nobody takes is refused unless its value changes
/// nothing. Fields of other names that a plugin declares are handed over as they are.
/// ignored  gets the names that remain
void read_sampling(Fields &fields, const boost::json::object &body, const lifecycle::ServedModel &model,
                   lifecycle::GenerationSpec &spec, std::vector<std::string_view> &ignored);

}  // namespace sluice::api

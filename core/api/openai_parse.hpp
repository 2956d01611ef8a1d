#pragma once
#include <boost/json/fwd.hpp>
#include <boost/system/result.hpp>
#include <string>
#include <vector>

#include "core/lifecycle/generation.hpp"
#include "core/lifecycle/service.hpp"

namespace sluice::api {

enum class Dialect : uint8_t { kChat, kCompletion };

/// A request body understood: what to generate and how to answer.
struct ParsedRequest {
  lifecycle::GenerationSpec spec;  ///< without request_id, route and client
  bool stream = false;
  bool include_usage = false;
  std::string ignored_fields;  ///< comma-separated names of fields nobody knows; may be empty
};

/// Checks every field's type and range against the request's model. [any]
/// errors  kBadRequest, kUnsupportedParameter with the field as param; what find_ready() says about the model
boost::system::result<ParsedRequest, lifecycle::Failure> parse_request(Dialect dialect, const boost::json::object &body,
                                                                      const lifecycle::Service &service);

}  // namespace sluice::api

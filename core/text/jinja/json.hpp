#pragma once
#include "core/text/jinja/value.hpp"

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <string>

namespace sluice::text::jinja {

/// Fails when nested deeper than Value::kMaxDepth.
Value from_json(const boost::json::value &json);
Value from_json(const boost::json::array &json);
Value from_json(const boost::json::object &json);

/// json.dumps(value, ensure_ascii=False, indent=indent): what the filter `tojson` means in chat templates, where it
/// escapes nothing for HTML.
/// indent      spaces a level; below 0: on one line
/// max_bytes   fails beyond
void append_json(const Value &value, int indent, size_t max_bytes, std::string &out);

}  // namespace sluice::text::jinja

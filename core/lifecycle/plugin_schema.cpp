#include "core/lifecycle/plugin_schema.hpp"

#include <boost/json/object.hpp>

#include "core/plugin/options.hpp"

namespace sluice::lifecycle {

RequestSchema request_schema(std::string plugin, std::shared_ptr<const plugin::Options> base) {
  RequestSchema schema;
  schema.plugin = std::move(plugin);
  schema.keys = base->schema().keys(true);
  schema.validate = [base](const boost::json::object &fields) { return plugin::Options::from_json(*base, fields); };
  return schema;
}

}  // namespace sluice::lifecycle

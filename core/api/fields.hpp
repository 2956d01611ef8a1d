#pragma once
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/lifecycle/failure.hpp"

namespace sluice::api {

/// Reads a request's fields with their types and ranges, remembers which were read, and keeps the first failure.
/// null counts as absent. After a failure every getter returns nothing.
class Fields {
 public:
  explicit Fields(const boost::json::object &object) : object_(object) {}

  const boost::json::value *get(std::string_view name);  ///< null when absent or null
  std::optional<bool> flag(std::string_view name);
  std::optional<int64_t> integer(std::string_view name, int64_t min, int64_t max);
  std::optional<double> number(std::string_view name, double min, double max);
  std::optional<std::string> text(std::string_view name, size_t max_bytes);

  void ignore(std::string_view name) { seen_.insert(name); }
  void fail(lifecycle::Failure failure);
  bool failed() const { return failure_.has_value(); }
  const lifecycle::Failure &failure() const { return *failure_; }

  std::vector<std::string_view> unread() const;  ///< in the object's order

 private:
  const boost::json::object &object_;
  std::set<std::string_view> seen_;
  std::optional<lifecycle::Failure> failure_;
};

/// A short form of a value for messages: `-1`, `"NaN"`, `an array`.
std::string shown(const boost::json::value &value);

/// Parses a body. errors: kBadRequest; depth at most 32, UTF-8, an object; of equal keys the last counts
boost::system::result<boost::json::object, lifecycle::Failure> parse_object(std::string_view body);

}  // namespace sluice::api

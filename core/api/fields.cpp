#include "core/api/fields.hpp"

#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/system/result.hpp>
#include <cmath>

#include "core/api/error_reply.hpp"

namespace sluice::api {
namespace {
constexpr size_t kMaxJsonDepth = 32;
constexpr size_t kShownBytes = 40;
}  // namespace

std::string shown(const boost::json::value &value) {
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  std::string text = boost::json::serialize(value);
  if (text.size() <= kShownBytes) return text;
  size_t cut = kShownBytes;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xc0) == 0x80) --cut;
  return text.substr(0, cut) + "...";
}

boost::system::result<boost::json::object, lifecycle::Failure> parse_object(std::string_view body) {
  boost::json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  boost::system::error_code ec;
  auto value = boost::json::parse(body, ec, {}, options);
  if (ec == boost::json::error::too_deep) {
    return bad_request(fmt::format("the request body nests deeper than {} levels", kMaxJsonDepth), "");
  }
  if (ec) return bad_request("the request body is not valid JSON: " + ec.message(), "");
  if (!value.is_object()) return bad_request("the request body must be a JSON object, not " + shown(value), "");
  return std::move(value.get_object());
}

void Fields::fail(lifecycle::Failure failure) {
  if (!failure_) failure_ = std::move(failure);
}

const boost::json::value *Fields::get(std::string_view name) {
  seen_.insert(name);
  const auto *value = object_.if_contains(name);
  return value == nullptr || value->is_null() || failure_ ? nullptr : value;
}

std::optional<bool> Fields::flag(std::string_view name) {
  const auto *value = get(name);
  if (value == nullptr) return {};
  if (value->is_bool()) return value->get_bool();
  fail(bad_request(fmt::format("{} is {}; it must be true or false", name, shown(*value)), std::string(name)));
  return {};
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t min, int64_t max) {
  const auto *value = get(name);
  if (value == nullptr) return {};
  if (const auto *number = value->if_int64(); number != nullptr && *number >= min && *number <= max) return *number;
  fail(bad_request(fmt::format("{} is {}; it must be an integer from {} to {}", name, shown(*value), min, max),
                   std::string(name)));
  return {};
}

std::optional<double> Fields::number(std::string_view name, double min, double max) {
  const auto *value = get(name);
  if (value == nullptr) return {};
  double number = std::nan("");
  if (value->is_double()) number = value->get_double();
  if (value->is_int64()) number = static_cast<double>(value->get_int64());
  if (value->is_uint64()) number = static_cast<double>(value->get_uint64());
  if (number >= min && number <= max) return number;
  fail(bad_request(fmt::format("{} is {}; it must be a number from {} to {}", name, shown(*value), min, max),
                   std::string(name)));
  return {};
}

std::optional<std::string> Fields::text(std::string_view name, size_t max_bytes) {
  const auto *value = get(name);
  if (value == nullptr) return {};
  if (const auto *string = value->if_string(); string != nullptr && string->size() <= max_bytes) {
    return std::string(*string);
  }
  fail(bad_request(fmt::format("{} is {}; it must be a string of at most {} bytes", name, shown(*value), max_bytes),
                   std::string(name)));
  return {};
}

std::vector<std::string_view> Fields::unread() const {
  std::vector<std::string_view> out;
  for (const auto &item : object_) {
    const std::string_view key(item.key().data(), item.key().size());
    if (!seen_.contains(key)) out.push_back(key);
  }
  return out;
}

}  // namespace sluice::api

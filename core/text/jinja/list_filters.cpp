#include "core/text/jinja/renderer.hpp"
#include "core/text/jinja/strings.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <bit>

namespace sluice::text::jinja {
namespace {

/// A string argument or nothing.
const std::string *text_argument(const Args &args, size_t position, std::string_view name) {
  const Value *value = args.find(position, name);
  return value != nullptr ? value->string() : nullptr;
}

Args rest_of(const Args &args, size_t skip) {
  Args out;
  for (size_t i = skip; i < args.positional.size(); ++i) out.positional.push_back(args.positional[i]);
  return out;
}

/// Strings are ordered without regard to case, unless asked for.
Value sort_key(const Value &value, bool case_sensitive) {
  return value.string() != nullptr && !case_sensitive ? Value(lower(*value.string())) : value;
}

}  // namespace

Value Renderer::join(const Value &value, const Args &args) {
  const std::string *separator = text_argument(args, 0, "d");
  const std::string *name = text_argument(args, 1, "attribute");
  std::string out;
  bool first = true;
  for (const Value &item : iterate(value)) {
    if (!first && separator != nullptr) out += *separator;
    first = false;
    append_text(name != nullptr ? attribute(item, *name) : item, out);
    if (out.size() > limits_.max_output_bytes) charge_bytes(out.size());
  }
  return text(std::move(out));
}

/// select, reject, selectattr, rejectattr: by truth, or by a test with its arguments.
Value Renderer::select(const Value &value, const Args &args, bool by_attribute, bool keep) {
  const std::string *name = by_attribute ? text_argument(args, 0, "attribute") : nullptr;
  if (by_attribute && name == nullptr) fail("selectattr and rejectattr need the name of an attribute");
  const size_t at = by_attribute ? 1 : 0;
  const std::string *test_name = text_argument(args, at, "test");
  const Args test_args = rest_of(args, at + 1);
  std::vector<Value> out;
  if (!value.truthy()) return Value::list({});
  for (const Value &item : iterate(value)) {
    charge(1);
    const Value looked_at = name != nullptr ? attribute(item, *name) : item;
    const bool holds = test_name != nullptr ? test(*test_name, looked_at, test_args) : looked_at.truthy();
    if (holds == keep) out.push_back(item);
  }
  return Value::list(std::move(out));
}

/// map('upper') or map(attribute='name', default=...).
Value Renderer::map(const Value &value, const Args &args) {
  const std::string *name = nullptr;
  for (const auto &[key, argument] : args.named)
    if (key == "attribute") name = argument.string();
  const Value *fallback = args.find(args.positional.size(), "default");
  const std::string *filter_name = text_argument(args, 0, "filter");
  if (name == nullptr && filter_name == nullptr) fail("map needs the name of a filter or attribute='...'");
  const Args filter_args = rest_of(args, 1);
  std::vector<Value> out;
  if (!value.truthy()) return Value::list({});
  for (const Value &item : iterate(value)) {
    charge(1);
    Value mapped = name != nullptr ? attribute(item, *name) : filter(*filter_name, item, filter_args);
    out.push_back(mapped.is_undefined() && fallback != nullptr ? *fallback : std::move(mapped));
  }
  return Value::list(std::move(out));
}

Value Renderer::sorted(std::vector<Value> items, const Args &args) {
  charge(items.size() * static_cast<uint64_t>(std::bit_width(items.size())));
  const Value *reverse = args.find(0, "reverse");
  const Value *case_sensitive = args.find(1, "case_sensitive");
  const std::string *name = text_argument(args, 2, "attribute");
  const bool exact = case_sensitive != nullptr && case_sensitive->truthy();
  std::vector<std::pair<Value, Value>> keyed;
  for (Value &item : items) keyed.emplace_back(sort_key(name != nullptr ? attribute(item, *name) : item, exact), item);
  std::stable_sort(keyed.begin(), keyed.end(), [](const auto &a, const auto &b) { return less(a.first, b.first); });
  if (reverse != nullptr && reverse->truthy()) std::reverse(keyed.begin(), keyed.end());
  items.clear();
  for (auto &[key, item] : keyed) items.push_back(std::move(item));
  return Value::list(std::move(items));
}

bool Renderer::list_filter(std::string_view name, const Value &value, const Args &args, Value &out) {
  if (name == "join") {
    out = join(value, args);
  } else if (name == "list") {
    out = Value::list(iterate(value));
  } else if (name == "items" || name == "dictsort") {
    static const Dict kEmpty;
    if (value.entries() == nullptr && !value.is_undefined())
      fail(fmt::format("'{}' needs a dict, not a {}", name, value.type_name()));
    out = dict_method(value.entries() != nullptr ? *value.entries() : kEmpty, "items", {});
    if (name == "dictsort") {
      std::vector<Value> pairs = *out.items();
      charge(pairs.size() * static_cast<uint64_t>(std::bit_width(pairs.size())));
      std::stable_sort(pairs.begin(), pairs.end(), [](const Value &a, const Value &b) {
        return lower(*(*a.items())[0].string()) < lower(*(*b.items())[0].string());
      });
      out = Value::list(std::move(pairs));
    }
  } else if (name == "first" || name == "last") {
    const std::vector<Value> items = iterate(value);
    out = items.empty() ? Value::undefined(std::string(name)) : name == "first" ? items.front() : items.back();
  } else if (name == "reverse") {
    std::vector<Value> items = iterate(value);
    std::reverse(items.begin(), items.end());
    out = Value::list(std::move(items));
    if (value.string() != nullptr) out = join(out, {});
  } else if (name == "sort") {
    out = sorted(iterate(value), args);
  } else if (name == "unique") {
    std::vector<Value> kept;
    for (Value &item : iterate(value)) {
      charge(kept.size() / 8);
      if (std::none_of(kept.begin(), kept.end(), [&](const Value &other) { return equal(item, other); }))
        kept.push_back(std::move(item));
    }
    out = Value::list(std::move(kept));
  } else if (name == "sum" || name == "min" || name == "max") {
    const std::vector<Value> items = iterate(value);
    if (name == "sum") out = int64_t{0};
    for (const Value &item : items) {
      if (name == "sum")
        out = arithmetic(Op::kAdd, out, item);
      else if (out.is_undefined() || (name == "min" ? less(item, out) : less(out, item)))
        out = item;
    }
  } else if (name == "map") {
    out = map(value, args);
  } else if (name == "select" || name == "reject") {
    out = select(value, args, false, name == "select");
  } else if (name == "selectattr" || name == "rejectattr") {
    out = select(value, args, true, name == "selectattr");
  } else {
    return false;
  }
  return true;
}

}  // namespace sluice::text::jinja

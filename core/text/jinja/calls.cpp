#include "core/text/jinja/deeper.hpp"
#include "core/text/jinja/renderer.hpp"
#include "core/text/jinja/strings.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <ctime>
#include <limits>

namespace sluice::text::jinja {
namespace {

constexpr uint64_t kAll = std::numeric_limits<uint64_t>::max();

const std::string &string_argument(const Args &args, size_t position, std::string_view name) {
  const Value *value = args.find(position, name);
  if (value == nullptr || value->string() == nullptr) fail(fmt::format("argument '{}' must be a string", name));
  return *value->string();
}

/// An integer from 0 up; missing or negative: all of them, as Python has it.
uint64_t count_argument(const Args &args, size_t position, std::string_view name) {
  const Value *value = args.find(position, name);
  if (value == nullptr) return kAll;
  const auto *count = value->as<int64_t>();
  if (count == nullptr) fail(fmt::format("argument '{}' must be an integer", name));
  return *count < 0 ? kAll : static_cast<uint64_t>(*count);
}

/// startswith and endswith take one string or a list of them.
template <class Matches>
bool any_affix(const Args &args, const Matches &matches) {
  const Value *value = args.find(0, "prefix");
  if (value != nullptr && value->items() != nullptr) {
    for (const Value &affix : *value->items())
      if (affix.string() != nullptr && matches(*affix.string())) return true;
    return false;
  }
  return matches(string_argument(args, 0, "prefix"));
}

}  // namespace

Value Renderer::call(const Expr &e) {
  const Expr &callee = *e.parts[0];
  if (callee.kind == Expr::Kind::kAttribute) {
    const Value object = evaluate(*callee.parts[0]);
    const Args args = arguments(e.arguments);
    if (const Namespace *names = object.name_space())
      if (const Value *member = names->values.find(callee.name)) return call_value(*member, callee.name, args);
    return method(object, callee.name, args);
  }
  const Value function = evaluate(callee);
  return call_value(function, callee.name, arguments(e.arguments));
}

Value Renderer::call_value(const Value &callee, std::string_view name, const Args &args) {
  if (const auto *macro = callee.as<const Statement *>()) return call_macro(**macro, args);
  if (const auto *builtin = callee.as<Builtin>()) return call_builtin(*builtin, args);
  if (callee.is_undefined()) fail(fmt::format("there is no function '{}'", name));
  fail(fmt::format("'{}' is a {}, not a function", name, callee.type_name()));
}

/// A macro sees its own variables and the template's, not those of its caller.
Value Renderer::call_macro(const Statement &macro, const Args &args) {
  const Deeper deeper(*this);
  if (args.positional.size() > macro.names.size())
    fail(fmt::format("the macro '{}' takes {} arguments, not {}", macro.text, macro.names.size(),
                     args.positional.size()));
  for (const auto &[name, value] : args.named)
    if (std::find(macro.names.begin(), macro.names.end(), name) == macro.names.end())
      fail(fmt::format("the macro '{}' has no parameter '{}'", macro.text, name));
  const size_t base = std::exchange(macro_base_, scopes_.size());
  scopes_.emplace_back();
  for (size_t i = 0; i < macro.names.size(); ++i) {
    const Value *given = args.find(i, macro.names[i]);
    if (given != nullptr)
      assign(macro.names[i], *given);
    else
      assign(macro.names[i], macro.exprs[i] != nullptr ? evaluate(*macro.exprs[i]) : Value::undefined(macro.names[i]));
  }
  Value out = text(capture(macro.bodies[0]));
  scopes_.pop_back();
  macro_base_ = base;
  return out;
}

Value Renderer::call_builtin(Builtin function, const Args &args) {
  switch (function) {
    case Builtin::kRange:
      return range(args);
    case Builtin::kStrftimeNow:
      return strftime_now(args);
    case Builtin::kRaiseException: {
      std::string message;
      if (const Value *value = args.find(0, "message")) append_text(*value, message);
      throw Failure{Code::kInvalidArgument, std::move(message), true};
    }
    case Builtin::kNamespace:
    case Builtin::kDict:
      break;
  }
  Dict dict;
  if (!args.positional.empty()) {
    if (args.positional[0].entries() == nullptr)
      fail(fmt::format("a dict is expected, not a {}", args.positional[0].type_name()));
    charge(args.positional[0].entries()->all().size());
    dict = *args.positional[0].entries();
  }
  for (const auto &[name, value] : args.named) dict.set(std::string(name), value);
  if (function == Builtin::kDict) return Value::dict(std::move(dict));
  namespaces_.push_back(std::make_unique<Namespace>(Namespace{std::move(dict)}));
  return Value(namespaces_.back().get());
}

Value Renderer::range(const Args &args) {
  int64_t bounds[3] = {0, 0, 1};
  const size_t n = args.positional.size();
  if (n < 1 || n > 3) fail("range takes one to three arguments");
  for (size_t i = 0; i < n; ++i) {
    const auto *number = args.positional[i].as<int64_t>();
    constexpr int64_t kFar = int64_t{1} << 40;
    if (number == nullptr || *number < -kFar || *number > kFar) fail("range takes integers below 2^40");
    bounds[n == 1 ? 1 : i] = *number;
  }
  const auto [from, to, step] = bounds;
  if (step == 0) fail("the step of range is 0");
  std::vector<Value> out;
  for (int64_t at = from; step > 0 ? at < to : at > to; at += step) {
    charge(1);
    out.emplace_back(at);
  }
  return Value::list(std::move(out));
}

/// The time in UTC, as strftime(3) writes it.
Value Renderer::strftime_now(const Args &args) {
  const std::string &format = string_argument(args, 0, "format");
  if (format.size() > 64) fail("the format of strftime_now is longer than 64 bytes");
  for (size_t at = format.find('%'); at != std::string::npos && at + 1 < format.size(); at = format.find('%', at + 2))
    if (std::string_view("aAbBcdDeFgGHIjmMnprRsStTuUVwWxXyYzZ%-").find(format[at + 1]) == std::string_view::npos)
      fail(fmt::format("strftime_now has no '%{}'", format[at + 1]));
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now_);
  std::tm calendar{};
  gmtime_r(&seconds, &calendar);
  char buffer[1024];
  return text(std::string(buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &calendar)));
}

Value Renderer::method(const Value &object, const std::string &name, const Args &args) {
  if (const auto *s = object.string()) return string_method(*s, name, args);
  if (const auto *entries = object.entries()) return dict_method(*entries, name, args);
  if (const auto *loop = object.loop(); loop != nullptr && name == "cycle" && !args.positional.empty())
    return args.positional[loop->index % args.positional.size()];
  if (const auto *items = object.items(); items != nullptr && (name == "index" || name == "count")) {
    const Value *wanted = args.find(0, "value");
    charge(items->size());
    int64_t count = 0;
    for (size_t i = 0; wanted != nullptr && i < items->size(); ++i) {
      if (!equal((*items)[i], *wanted)) continue;
      if (name == "index") return static_cast<int64_t>(i);
      ++count;
    }
    if (name == "count") return count;
    fail("the list does not have that element");
  }
  if (const auto *u = object.as<Undefined>(); u != nullptr && u->name != nullptr)
    fail(fmt::format("'{}' is undefined", *u->name));
  fail(fmt::format("a {} has no method '{}'", object.type_name(), name));
}

Value Renderer::strings(const std::vector<std::string_view> &parts) {
  charge(parts.size());
  std::vector<Value> out;
  out.reserve(parts.size());
  for (const std::string_view part : parts) out.push_back(text(std::string(part)));
  return Value::list(std::move(out));
}

Value Renderer::string_method(const std::string &s, std::string_view name, const Args &args) {
  charge_bytes(s.size());
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const Value *drop = args.find(0, "chars");
    const Side side = name == "strip" ? Side::kBoth : name == "lstrip" ? Side::kLeft : Side::kRight;
    if (drop == nullptr || drop->is_none()) return text(std::string(strip(s, side, std::nullopt)));
    const std::string &chars = string_argument(args, 0, "chars");
    charge(s.size() * (chars.size() / 128));
    return text(std::string(strip(s, side, chars)));
  }
  if (name == "startswith") return any_affix(args, [&](const std::string &affix) { return s.starts_with(affix); });
  if (name == "endswith") return any_affix(args, [&](const std::string &affix) { return s.ends_with(affix); });
  if (name == "split" || name == "rsplit") {
    const Value *separator = args.find(0, "sep");
    const bool spaces = separator == nullptr || separator->is_none();
    if (!spaces && string_argument(args, 0, "sep").empty()) fail("split needs a separator that is not empty");
    const std::string by = spaces ? std::string() : string_argument(args, 0, "sep");
    // Every part costs a step, so a text may not have more parts than there are steps left.
    const uint64_t most = std::min(count_argument(args, 1, "maxsplit"), limits_.max_steps);
    return strings(split(s, by, most, name == "rsplit"));
  }
  if (name == "splitlines") {
    auto lines = split(s, "\n", limits_.max_steps, false);
    if (lines.back().empty()) lines.pop_back();
    for (std::string_view &line : lines)
      if (line.ends_with('\r')) line.remove_suffix(1);
    return strings(lines);
  }
  if (name == "replace") {
    const std::string &from = string_argument(args, 0, "old");
    const std::string &to = string_argument(args, 1, "new");
    const uint64_t most = count_argument(args, 2, "count");
    const uint64_t matches = from.empty() ? 0 : std::min<uint64_t>(count_matches(s, from), most);
    charge_bytes(s.size() + matches * to.size());
    return Value(replace(s, from, to, most));
  }
  if (name == "join") return join(args.positional.empty() ? Value() : args.positional[0], Args{{Value(s)}, {}});
  if (name == "find" || name == "count") {
    const std::string &what = string_argument(args, 0, "sub");
    if (name == "count") return static_cast<int64_t>(what.empty() ? count_characters(s) + 1 : count_matches(s, what));
    const size_t at = s.find(what);
    return at == std::string::npos ? int64_t{-1}
                                   : static_cast<int64_t>(count_characters(std::string_view(s).substr(0, at)));
  }
  if (name == "upper") return Value(upper(s));
  if (name == "lower") return Value(lower(s));
  if (name == "title") return Value(title(s));
  if (name == "capitalize") return Value(capitalize(s));
  if (name == "isdigit") return !s.empty() && s.find_first_not_of("0123456789") == std::string::npos;
  fail(fmt::format("a string has no method '{}'", name));
}

Value Renderer::dict_method(const Dict &dict, std::string_view name, const Args &args) {
  if (name == "get") {
    const Value *found = dict.find(string_argument(args, 0, "key"));
    if (found != nullptr) return *found;
    const Value *fallback = args.find(1, "default");
    return fallback != nullptr ? *fallback : Value(None());
  }
  charge(dict.all().size());
  std::vector<Value> out;
  for (const auto &[key, value] : dict.all()) {
    if (name == "items")
      out.push_back(Value::list({Value(key), value}, Brackets::kRound));
    else if (name == "keys")
      out.emplace_back(key);
    else if (name == "values")
      out.push_back(value);
    else
      break;
  }
  if (name == "items" || name == "keys" || name == "values") return Value::list(std::move(out));
  if (const Value *member = dict.find(name)) return call_value(*member, name, args);
  fail(fmt::format("a dict has no method '{}'", name));
}

}  // namespace sluice::text::jinja

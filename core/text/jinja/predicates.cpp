// What follows `is`.
#include "core/text/jinja/renderer.hpp"
#include "core/text/jinja/strings.hpp"

#include <fmt/format.h>
#include <array>

namespace sluice::text::jinja {
namespace {

using Check = bool (*)(const Value &);
struct Named {
  std::string_view name;
  Check check;
};

bool is_integer(const Value &v) { return v.as<int64_t>() != nullptr; }
bool is_even(const Value &v) { return is_integer(v) && *v.as<int64_t>() % 2 == 0; }
bool is_odd(const Value &v) { return is_integer(v) && *v.as<int64_t>() % 2 != 0; }
bool is_sequence(const Value &v) {
  return v.string() != nullptr || v.items() != nullptr || v.entries() != nullptr || v.is_undefined();
}

/// islower and isupper: unchanged by the one function and, having a letter at all, changed by the other.
bool is_all(const std::string &text, std::string (*same)(std::string_view), std::string (*other)(std::string_view)) {
  return same(text) == text && other(text) != text;
}

constexpr std::array<Named, 19> kChecks = {{
    {"defined", [](const Value &v) { return !v.is_undefined(); }},
    {"undefined", [](const Value &v) { return v.is_undefined(); }},
    {"none", [](const Value &v) { return v.is_none(); }},
    {"boolean", [](const Value &v) { return v.as<bool>() != nullptr; }},
    {"true", [](const Value &v) { return v.as<bool>() != nullptr && *v.as<bool>(); }},
    {"false", [](const Value &v) { return v.as<bool>() != nullptr && !*v.as<bool>(); }},
    {"integer", is_integer},
    {"float", [](const Value &v) { return v.as<double>() != nullptr; }},
    {"number", [](const Value &v) { return v.is_number(); }},
    {"string", [](const Value &v) { return v.string() != nullptr; }},
    {"mapping", [](const Value &v) { return v.entries() != nullptr; }},
    {"iterable", is_sequence},
    {"sequence", is_sequence},
    {"callable", [](const Value &v) { return v.as<const Statement *>() != nullptr || v.as<Builtin>() != nullptr; }},
    {"even", is_even},
    {"odd", is_odd},
    {"lower", [](const Value &v) { return v.string() != nullptr && is_all(*v.string(), lower, upper); }},
    {"upper", [](const Value &v) { return v.string() != nullptr && is_all(*v.string(), upper, lower); }},
    {"escaped", [](const Value &) { return false; }},
}};

struct NamedOp {
  std::string_view name;
  Op op;
};
constexpr std::array<NamedOp, 17> kOps = {{
    {"equalto", Op::kEqual},
    {"eq", Op::kEqual},
    {"==", Op::kEqual},
    {"sameas", Op::kEqual},
    {"ne", Op::kNotEqual},
    {"!=", Op::kNotEqual},
    {"lt", Op::kLess},
    {"<", Op::kLess},
    {"lessthan", Op::kLess},
    {"le", Op::kLessEqual},
    {"<=", Op::kLessEqual},
    {"gt", Op::kGreater},
    {">", Op::kGreater},
    {"greaterthan", Op::kGreater},
    {"ge", Op::kGreaterEqual},
    {">=", Op::kGreaterEqual},
    {"in", Op::kIn},
}};

}  // namespace

bool Renderer::test(std::string_view name, const Value &value, const Args &args) {
  for (const Named &candidate : kChecks)
    if (candidate.name == name) return candidate.check(value);
  const Value *other = args.find(0, "other");
  for (const NamedOp &candidate : kOps) {
    if (candidate.name != name) continue;
    if (other == nullptr) fail(fmt::format("the test '{}' needs an argument", name));
    return compare(candidate.op, value, *other);
  }
  if (name == "divisibleby" && other != nullptr) return equal(arithmetic(Op::kModulo, value, *other), int64_t{0});
  fail(fmt::format("there is no test '{}'", name));
}

}  // namespace sluice::text::jinja

// Arithmetic and comparison, as Python does them.
#include "core/text/jinja/renderer.hpp"
#include "core/text/jinja/strings.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>

namespace sluice::text::jinja {
namespace {

std::string_view op_text(Op op) {
  static constexpr std::string_view kTexts[] = {"+",  "-",  "~", "*",  "/", "//", "%",  "**",
                                                "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kTexts[static_cast<size_t>(op)];
}

[[noreturn]] void wrong_operands(Op op, const Value &a, const Value &b) {
  const auto *u = a.is_undefined() ? a.as<Undefined>() : b.as<Undefined>();
  if (u != nullptr && u->name != nullptr) fail(fmt::format("'{}' is undefined", *u->name));
  fail(fmt::format("'{}' is not possible between a {} and a {}", op_text(op), a.type_name(), b.type_name()));
}

void check_overflow(bool overflows) {
  if (overflows) fail("an integer leaves 64 bits");
}

int64_t integer_power(int64_t base, int64_t exponent) {
  int64_t out = 1;
  bool overflows = false;
  for (; exponent > 0 && !overflows; exponent >>= 1) {
    if ((exponent & 1) != 0) overflows = __builtin_mul_overflow(out, base, &out);
    if (exponent > 1) overflows = __builtin_mul_overflow(base, base, &base) || overflows;
  }
  check_overflow(overflows);
  return out;
}

Value integer_arithmetic(Op op, int64_t a, int64_t b) {
  int64_t out = 0;
  switch (op) {
    case Op::kAdd:
      check_overflow(__builtin_add_overflow(a, b, &out));
      return out;
    case Op::kSubtract:
      check_overflow(__builtin_sub_overflow(a, b, &out));
      return out;
    case Op::kMultiply:
      check_overflow(__builtin_mul_overflow(a, b, &out));
      return out;
    case Op::kPower:
      if (b < 0) return std::pow(static_cast<double>(a), static_cast<double>(b));
      return integer_power(a, b);
    default:
      break;
  }
  if (b == 0) fail("division by zero");
  if (op == Op::kDivide) return static_cast<double>(a) / static_cast<double>(b);
  if (b == -1) {  // the one quotient that overflows
    check_overflow(__builtin_sub_overflow(int64_t{0}, a, &out));
    return op == Op::kModulo ? int64_t{0} : out;
  }
  const bool towards_zero_is_up = a % b != 0 && (a < 0) != (b < 0);  // Python rounds down
  if (op == Op::kFloorDivide) return a / b - (towards_zero_is_up ? 1 : 0);
  return a % b + (towards_zero_is_up ? b : 0);
}

Value float_arithmetic(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return a + b;
    case Op::kSubtract:
      return a - b;
    case Op::kMultiply:
      return a * b;
    case Op::kPower:
      return std::pow(a, b);
    default:
      break;
  }
  if (b == 0) fail("division by zero");
  if (op == Op::kDivide) return a / b;
  if (op == Op::kFloorDivide) return std::floor(a / b);
  return a - b * std::floor(a / b);
}

}  // namespace

Value Renderer::arithmetic(Op op, const Value &a, const Value &b) {
  if (op == Op::kConcat) return concatenate(a, b);
  const auto i = a.integer();
  const auto j = b.integer();
  if (i && j) return integer_arithmetic(op, *i, *j);
  if (a.is_number() && b.is_number()) return float_arithmetic(op, a.number(), b.number());
  if (op == Op::kAdd && a.string() != nullptr && b.string() != nullptr) return concatenate(a, b);
  if (op == Op::kAdd && a.items() != nullptr && b.items() != nullptr) {
    charge(a.items()->size() + b.items()->size());
    std::vector<Value> all = *a.items();
    all.insert(all.end(), b.items()->begin(), b.items()->end());
    return Value::list(std::move(all));
  }
  if (op == Op::kMultiply && a.string() != nullptr && j) return repeated(*a.string(), *j);
  if (op == Op::kMultiply && i && b.string() != nullptr) return repeated(*b.string(), *i);
  wrong_operands(op, a, b);
}

Value Renderer::repeated(const std::string &unit, int64_t times) {
  const uint64_t n = times > 0 ? static_cast<uint64_t>(times) : 0;
  charge(std::min<uint64_t>(n, limits_.max_steps));
  charge_bytes(n * unit.size());  // no overflow: n is below max_steps by now
  std::string out;
  for (uint64_t k = 0; k < n; ++k) out += unit;
  return Value(std::move(out));
}

Value Renderer::concatenate(const Value &a, const Value &b) {
  std::string out;
  append_text(a, out);
  append_text(b, out);
  return text(std::move(out));
}

bool Renderer::compare(Op op, const Value &a, const Value &b) {
  if (a.string() != nullptr) charge(a.string()->size() / 128);
  if (a.items() != nullptr) charge(a.items()->size());
  switch (op) {
    case Op::kEqual:
      return equal(a, b);
    case Op::kNotEqual:
      return !equal(a, b);
    case Op::kIn:
      return contains(b, a);
    case Op::kNotIn:
      return !contains(b, a);
    default:
      break;
  }
  if (a.is_undefined() || b.is_undefined()) wrong_operands(op, a, b);
  switch (op) {
    case Op::kLess:
      return less(a, b);
    case Op::kLessEqual:
      return !less(b, a);
    case Op::kGreater:
      return less(b, a);
    default:
      return !less(a, b);
  }
}

bool Renderer::contains(const Value &container, const Value &item) {
  if (const auto *s = container.string()) {
    if (item.string() == nullptr) fail(fmt::format("'in' a string needs a string, not a {}", item.type_name()));
    charge(s->size() / 128);
    return s->find(*item.string()) != std::string::npos;
  }
  if (const auto *items = container.items()) {
    charge(items->size());
    return std::any_of(items->begin(), items->end(), [&](const Value &each) { return equal(each, item); });
  }
  if (const auto *entries = container.entries())
    return item.string() != nullptr && entries->find(*item.string()) != nullptr;
  if (container.is_undefined()) return false;
  fail(fmt::format("'in' is not possible with a {}", container.type_name()));
}

}  // namespace sluice::text::jinja

#include "core/text/jinja/deeper.hpp"
#include "core/text/jinja/renderer.hpp"
#include "core/text/jinja/strings.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace sluice::text::jinja {
namespace {

using Kind = Expr::Kind;

std::string_view op_text(Op op) {
  static constexpr std::string_view kTexts[] = {"+", "-", "~", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kTexts[static_cast<size_t>(op)];
}

[[noreturn]] void wrong_operands(Op op, const Value &a, const Value &b) {
  const auto *u = a.is_undefined() ? a.as<Undefined>() : b.as<Undefined>();
  if (u != nullptr && u->name != nullptr) fail(fmt::format("'{}' is undefined", *u->name));
  fail(fmt::format("'{}' is not possible between a {} and a {}", op_text(op), a.type_name(), b.type_name()));
}

/// bool counts as int, as in Python.
const int64_t *as_integer(const Value &value, int64_t &store) {
  if (const auto *b = value.as<bool>()) {
    store = *b ? 1 : 0;
    return &store;
  }
  return value.as<int64_t>();
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
    case Op::kAdd: check_overflow(__builtin_add_overflow(a, b, &out)); return out;
    case Op::kSubtract: check_overflow(__builtin_sub_overflow(a, b, &out)); return out;
    case Op::kMultiply: check_overflow(__builtin_mul_overflow(a, b, &out)); return out;
    case Op::kPower:
      if (b < 0) return std::pow(static_cast<double>(a), static_cast<double>(b));
      return integer_power(a, b);
    default: break;
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
    case Op::kAdd: return a + b;
    case Op::kSubtract: return a - b;
    case Op::kMultiply: return a * b;
    case Op::kPower: return std::pow(a, b);
    default: break;
  }
  if (b == 0) fail("division by zero");
  if (op == Op::kDivide) return a / b;
  if (op == Op::kFloorDivide) return std::floor(a / b);
  return a - b * std::floor(a / b);
}

int64_t slice_part(const Value &part, int64_t fallback) {
  if (part.is_none() || part.is_undefined()) return fallback;
  int64_t store = 0;
  const int64_t *integer = as_integer(part, store);
  if (integer == nullptr) fail(fmt::format("a slice needs integers, not a {}", part.type_name()));
  return std::clamp<int64_t>(*integer, -(int64_t{1} << 40), int64_t{1} << 40);
}

/// A slice's bound as Python clamps it: negative ones count from the end.
int64_t clamped(const Value &bound, int64_t fallback, int64_t length, int64_t low, int64_t high) {
  if (bound.is_none() || bound.is_undefined()) return fallback;
  const int64_t at = slice_part(bound, fallback);
  return std::clamp(at < 0 ? at + length : at, low, high);
}

}  // namespace

Value Renderer::evaluate(const Expr &e) {
  const Deeper deeper(*this);
  charge(1);
  line_ = e.line;
  switch (e.kind) {
    case Kind::kLiteral: return e.literal;
    case Kind::kName: return lookup(e.name);
    case Kind::kList:
    case Kind::kTuple: {
      std::vector<Value> items;
      for (const ExprPtr &part : e.parts) items.push_back(evaluate(*part));
      return Value::list(std::move(items), e.kind == Kind::kTuple ? Brackets::kRound : Brackets::kSquare);
    }
    case Kind::kDict: {
      Dict dict;
      for (size_t i = 0; i < e.parts.size(); i += 2) {
        const Value key = evaluate(*e.parts[i]);
        if (key.string() == nullptr) fail(fmt::format("the key of a dict must be a string, not a {}", key.type_name()));
        dict.set(*key.string(), evaluate(*e.parts[i + 1]));
      }
      return Value::dict(std::move(dict));
    }
    case Kind::kNegate: {
      const Value operand = evaluate(*e.parts[0]);
      return arithmetic(Op::kSubtract, int64_t{0}, operand);
    }
    case Kind::kArithmetic: {
      Value left = evaluate(*e.parts[0]);
      for (size_t i = 0; i < e.ops.size(); ++i) left = arithmetic(e.ops[i], left, evaluate(*e.parts[i + 1]));
      return left;
    }
    case Kind::kNot:
    case Kind::kAnd:
    case Kind::kOr:
    case Kind::kCompare:
    case Kind::kTernary: return evaluate_logic(e);
    case Kind::kAttribute: return attribute(evaluate(*e.parts[0]), e.name);
    case Kind::kIndex: {
      const Value object = evaluate(*e.parts[0]);
      return index(object, evaluate(*e.parts[1]));
    }
    case Kind::kSlice: return slice(e);
    case Kind::kCall: return call(e);
    case Kind::kFilter: {
      const Value operand = evaluate(*e.parts[0]);
      return filter(e.name, operand, arguments(e.arguments));
    }
    case Kind::kTest: {
      const Value operand = evaluate(*e.parts[0]);
      return test(e.name, operand, arguments(e.arguments)) != e.negated;
    }
  }
  return Value();
}

Value Renderer::evaluate_logic(const Expr &e) {
  switch (e.kind) {
    case Kind::kNot: return !evaluate(*e.parts[0]).truthy();
    case Kind::kCompare: {
      Value left = evaluate(*e.parts[0]);
      for (size_t i = 0; i < e.ops.size(); ++i) {
        Value right = evaluate(*e.parts[i + 1]);
        if (!compare(e.ops[i], left, right)) return false;
        left = std::move(right);
      }
      return true;
    }
    case Kind::kTernary:
      if (evaluate(*e.parts[1]).truthy()) return evaluate(*e.parts[0]);
      return e.parts[2] != nullptr ? evaluate(*e.parts[2]) : Value();
    default: break;
  }
  const bool stop_at = e.kind == Kind::kOr;
  Value last;
  for (const ExprPtr &part : e.parts) {
    last = evaluate(*part);
    if (last.truthy() == stop_at) break;
  }
  return last;
}

Value Renderer::arithmetic(Op op, const Value &a, const Value &b) {
  if (op == Op::kConcat) return concatenate(a, b);
  int64_t store_a = 0, store_b = 0;
  const int64_t *i = as_integer(a, store_a);
  const int64_t *j = as_integer(b, store_b);
  if (i != nullptr && j != nullptr) return integer_arithmetic(op, *i, *j);
  if (a.is_number() && b.is_number()) return float_arithmetic(op, a.number(), b.number());
  if (op == Op::kAdd && a.string() != nullptr && b.string() != nullptr) return concatenate(a, b);
  if (op == Op::kAdd && a.items() != nullptr && b.items() != nullptr) {
    charge(a.items()->size() + b.items()->size());
    std::vector<Value> all = *a.items();
    all.insert(all.end(), b.items()->begin(), b.items()->end());
    return Value::list(std::move(all));
  }
  if (op == Op::kMultiply && a.string() != nullptr && j != nullptr) return repeated(*a.string(), *j);
  if (op == Op::kMultiply && i != nullptr && b.string() != nullptr) return repeated(*b.string(), *i);
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
    case Op::kEqual: return equal(a, b);
    case Op::kNotEqual: return !equal(a, b);
    case Op::kIn: return contains(b, a);
    case Op::kNotIn: return !contains(b, a);
    default: break;
  }
  if (a.is_undefined() || b.is_undefined()) wrong_operands(op, a, b);
  switch (op) {
    case Op::kLess: return less(a, b);
    case Op::kLessEqual: return !less(b, a);
    case Op::kGreater: return less(b, a);
    default: return !less(a, b);
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
  if (const auto *entries = container.entries()) return item.string() != nullptr && entries->find(*item.string()) != nullptr;
  if (container.is_undefined()) return false;
  fail(fmt::format("'in' is not possible with a {}", container.type_name()));
}

Value Renderer::attribute(const Value &object, const std::string &name) {
  const Dict *entries = object.name_space() != nullptr ? &object.name_space()->values : object.entries();
  if (entries != nullptr) {
    const Value *found = entries->find(name);
    return found != nullptr ? *found : Value::undefined(name);
  }
  if (const Loop *loop = object.loop()) {
    const auto length = static_cast<int64_t>(loop->items->items.size());
    const auto at = static_cast<int64_t>(loop->index);
    if (name == "index") return at + 1;
    if (name == "index0") return at;
    if (name == "revindex") return length - at;
    if (name == "revindex0") return length - at - 1;
    if (name == "first") return at == 0;
    if (name == "last") return at + 1 == length;
    if (name == "length") return length;
    if (name == "depth") return int64_t{loop->nesting};
    if (name == "depth0") return int64_t{loop->nesting} - 1;
    if (name == "previtem" && at > 0) return loop->items->items[loop->index - 1];
    if (name == "nextitem" && at + 1 < length) return loop->items->items[loop->index + 1];
    return Value::undefined("loop." + name);
  }
  if (const auto *u = object.as<Undefined>(); u != nullptr)
    fail(u->name != nullptr ? fmt::format("'{}' is undefined, so it has no '{}'", *u->name, name) : fmt::format("an undefined value has no '{}'", name));
  return Value::undefined(name);
}

Value Renderer::index(const Value &object, const Value &key) {
  if (key.string() != nullptr) return attribute(object, *key.string());
  int64_t store = 0;
  const int64_t *at = as_integer(key, store);
  if (at != nullptr) {
    const auto *s = object.string();
    const auto *items = object.items();
    if (s != nullptr) charge(s->size() / 128);
    const auto length = static_cast<int64_t>(items != nullptr ? items->size() : s != nullptr ? count_characters(*s) : 0);
    if (*at >= -length && *at < length) {
      const auto place = static_cast<size_t>(*at < 0 ? *at + length : *at);
      if (items != nullptr) return (*items)[place];
      charge(s->size() / 16);
      return Value(characters(*s)[place]);
    }
  }
  if (object.is_undefined()) return attribute(object, "[]");
  return Value::undefined("an element");
}

Value Renderer::slice(const Expr &e) {
  const Value object = evaluate(*e.parts[0]);
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i)
    if (e.parts[i + 1] != nullptr) bounds[i] = evaluate(*e.parts[i + 1]);
  if (object.is_undefined()) return attribute(object, "[:]");
  if (object.items() == nullptr && object.string() == nullptr) return Value::undefined("a slice");
  const std::vector<Value> items = iterate(object);
  const auto length = static_cast<int64_t>(items.size());
  const int64_t step = slice_part(bounds[2], 1);
  if (step == 0) fail("the step of a slice is 0");
  const bool forward = step > 0;
  const int64_t low = forward ? 0 : -1, high = forward ? length : length - 1;
  int64_t at = clamped(bounds[0], forward ? low : high, length, low, high);
  const int64_t end = clamped(bounds[1], forward ? high : low, length, low, high);
  std::vector<Value> out;
  for (; forward ? at < end : at > end; at += step) out.push_back(items[static_cast<size_t>(at)]);
  if (object.items() != nullptr) return Value::list(std::move(out), object.brackets());
  std::string joined;
  for (const Value &character : out) joined += *character.string();
  return text(std::move(joined));
}

Args Renderer::arguments(const std::vector<Argument> &from) {
  Args out;
  for (const Argument &argument : from) {
    if (argument.name.empty())
      out.positional.push_back(evaluate(*argument.value));
    else
      out.named.emplace_back(argument.name, evaluate(*argument.value));
  }
  return out;
}

}  // namespace sluice::text::jinja

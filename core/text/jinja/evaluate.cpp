#include "core/text/jinja/deeper.hpp"
#include "core/text/jinja/renderer.hpp"

#include <fmt/format.h>

namespace sluice::text::jinja {
namespace {

using Kind = Expr::Kind;

}  // namespace

Value Renderer::evaluate(const Expr &e) {
  const Deeper deeper(*this);
  charge(1);
  line_ = e.line;
  switch (e.kind) {
    case Kind::kLiteral:
      return e.literal;
    case Kind::kName:
      return lookup(e.name);
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
    case Kind::kTernary:
      return evaluate_logic(e);
    case Kind::kAttribute:
      return attribute(evaluate(*e.parts[0]), e.name);
    case Kind::kIndex: {
      const Value object = evaluate(*e.parts[0]);
      return index(object, evaluate(*e.parts[1]));
    }
    case Kind::kSlice:
      return slice(e);
    case Kind::kCall:
      return call(e);
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
    case Kind::kNot:
      return !evaluate(*e.parts[0]).truthy();
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
    default:
      break;
  }
  const bool stop_at = e.kind == Kind::kOr;
  Value last;
  for (const ExprPtr &part : e.parts) {
    last = evaluate(*part);
    if (last.truthy() == stop_at) break;
  }
  return last;
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

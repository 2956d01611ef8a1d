#include "core/text/jinja/parser.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <optional>
#include <span>

namespace sluice::text::jinja {
namespace {

using Type = Token::Type;
using Kind = Expr::Kind;

struct LevelOp {
  std::string_view text;
  Op op;
};

/// Binary operators by how tightly they bind, loosest first. "~" binds tighter than "+", as in Jinja.
constexpr LevelOp kAddition[] = {{"+", Op::kAdd}, {"-", Op::kSubtract}};
constexpr LevelOp kConcatenation[] = {{"~", Op::kConcat}};
constexpr LevelOp kMultiplication[] = {
    {"*", Op::kMultiply}, {"/", Op::kDivide}, {"//", Op::kFloorDivide}, {"%", Op::kModulo}};
constexpr LevelOp kPower[] = {{"**", Op::kPower}};
constexpr std::span<const LevelOp> kLevels[] = {kAddition, kConcatenation, kMultiplication, kPower};

constexpr LevelOp kComparisons[] = {{"==", Op::kEqual},     {"!=", Op::kNotEqual}, {"<", Op::kLess},
                                    {"<=", Op::kLessEqual}, {">", Op::kGreater},   {">=", Op::kGreaterEqual}};

std::optional<Op> find_op(std::span<const LevelOp> ops, const Token &token) {
  if (token.type != Type::kOperator) return std::nullopt;
  for (const LevelOp &candidate : ops)
    if (candidate.text == token.text) return candidate.op;
  return std::nullopt;
}

}  // namespace

ExprPtr Parser::make(Kind kind) const {
  auto out = std::make_unique<Expr>();
  out->kind = kind;
  out->line = peek().line;
  return out;
}

void Parser::deepen(Expr &parent, const Expr *part) const {
  if (part != nullptr) parent.depth = std::max(parent.depth, part->depth + 1);
  if (parent.depth > kMaxExprDepth) wrong(fmt::format("an expression is more than {} deep", kMaxExprDepth));
}

ExprPtr Parser::with(ExprPtr parent, ExprPtr part) const {
  deepen(*parent, part.get());
  parent->parts.push_back(std::move(part));
  return parent;
}

/// "a, b" without brackets is a tuple, where a statement allows it.
ExprPtr Parser::tuple_or_expression() {
  ExprPtr first = expression();
  if (!at_operator(",")) return first;
  ExprPtr list = with(make(Kind::kTuple), std::move(first));
  while (skip_operator(",")) {
    if (peek().type == Type::kBlockEnd || peek().type == Type::kOutputEnd) break;
    list = with(std::move(list), expression());
  }
  return list;
}

ExprPtr Parser::expression() {
  const Nest nest(*this);
  ExprPtr value = or_expression();
  if (!skip_name("if")) return value;
  ExprPtr out = with(make(Kind::kTernary), std::move(value));
  out = with(std::move(out), or_expression());
  return with(std::move(out), skip_name("else") ? expression() : nullptr);
}

ExprPtr Parser::or_expression() {
  ExprPtr first = and_expression();
  if (!at_name("or")) return first;
  ExprPtr out = with(make(Kind::kOr), std::move(first));
  while (skip_name("or")) out = with(std::move(out), and_expression());
  return out;
}

ExprPtr Parser::and_expression() {
  ExprPtr first = not_expression();
  if (!at_name("and")) return first;
  ExprPtr out = with(make(Kind::kAnd), std::move(first));
  while (skip_name("and")) out = with(std::move(out), not_expression());
  return out;
}

ExprPtr Parser::not_expression() {
  if (!skip_name("not")) return comparison();
  const Nest nest(*this);
  ExprPtr out = make(Kind::kNot);
  return with(std::move(out), not_expression());
}

ExprPtr Parser::comparison() {
  ExprPtr first = chain(0);
  ExprPtr out;
  while (true) {
    std::optional<Op> op = find_op(kComparisons, peek());
    if (op) {
      take();
    } else if (skip_name("in")) {
      op = Op::kIn;
    } else if (at_name("not") && peek(1).type == Type::kName && peek(1).text == "in") {
      take();
      take();
      op = Op::kNotIn;
    } else {
      break;
    }
    if (!out) out = with(make(Kind::kCompare), std::move(first));
    out->ops.push_back(*op);
    out = with(std::move(out), chain(0));
  }
  return out ? std::move(out) : std::move(first);
}

/// One level of binary operators.
ExprPtr Parser::chain(int level) {
  if (level == static_cast<int>(std::size(kLevels))) return unary(true);
  ExprPtr first = chain(level + 1);
  ExprPtr out;
  for (auto op = find_op(kLevels[level], peek()); op; op = find_op(kLevels[level], peek())) {
    take();
    if (!out) out = with(make(Kind::kArithmetic), std::move(first));
    out->ops.push_back(*op);
    out = with(std::move(out), chain(level + 1));
  }
  return out ? std::move(out) : std::move(first);
}

ExprPtr Parser::unary(bool with_filters) {
  ExprPtr out;
  if (at_operator("-") || at_operator("+")) {
    const Nest nest(*this);
    const bool negate = take().text == "-";
    ExprPtr operand = unary(false);
    out = negate ? with(make(Kind::kNegate), std::move(operand)) : std::move(operand);
  } else {
    out = primary();
  }
  out = postfix(std::move(out));
  return with_filters ? filters(std::move(out)) : std::move(out);
}

/// Filters and tests, which bind alike.
ExprPtr Parser::filters(ExprPtr operand) {
  while (true) {
    if (skip_operator("|")) {
      ExprPtr out = make(Kind::kFilter);
      out->name = take_name("the name of a filter");
      out = with(std::move(out), std::move(operand));
      if (at_operator("(")) out->arguments = call_arguments();
      for (const Argument &argument : out->arguments) deepen(*out, argument.value.get());
      operand = std::move(out);
    } else if (skip_name("is")) {
      operand = test(std::move(operand));
    } else if (at_operator("(")) {
      operand = postfix(std::move(operand));
    } else {
      return operand;
    }
  }
}

ExprPtr Parser::test(ExprPtr operand) {
  ExprPtr out = make(Kind::kTest);
  out->negated = skip_name("not");
  out->name = take_name("the name of a test");
  out = with(std::move(out), std::move(operand));
  const Token &next = peek();
  const bool word = next.type == Type::kName && next.text != "else" && next.text != "or" && next.text != "and" &&
                    next.text != "is" && next.text != "if" && next.text != "in" && next.text != "not";
  if (at_operator("(")) {
    out->arguments = call_arguments();
  } else if (word || next.type == Type::kString || next.type == Type::kInteger || next.type == Type::kFloat ||
             at_operator("[") || at_operator("{")) {
    Argument argument;
    argument.value = postfix(primary());
    out->arguments.push_back(std::move(argument));
  }
  for (const Argument &argument : out->arguments) deepen(*out, argument.value.get());
  return out;
}

}  // namespace sluice::text::jinja

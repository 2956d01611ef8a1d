#include "core/text/jinja/parser.hpp"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>
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
constexpr LevelOp kMultiplication[] = {{"*", Op::kMultiply}, {"/", Op::kDivide}, {"//", Op::kFloorDivide}, {"%", Op::kModulo}};
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

ExprPtr Parser::primary() {
  const Token &token = peek();
  ExprPtr out = make(Kind::kLiteral);
  switch (token.type) {
    case Type::kName:
      if (token.text == "true" || token.text == "True") {
        out->literal = true;
      } else if (token.text == "false" || token.text == "False") {
        out->literal = false;
      } else if (token.text == "none" || token.text == "None") {
        out->literal = None();
      } else {
        out->kind = Kind::kName;
        out->name = token.text;
      }
      take();
      return out;
    case Type::kString: {
      std::string text;
      while (peek().type == Type::kString) text += take().text;  // neighbours are one string
      out->literal = Value(std::move(text));
      return out;
    }
    case Type::kInteger:
    case Type::kFloat: return number_literal();
    case Type::kOperator:
      if (skip_operator("(")) {
        if (skip_operator(")")) return make(Kind::kTuple);
        ExprPtr inner = expression();
        if (at_operator(",")) {
          inner = with(make(Kind::kTuple), std::move(inner));
          while (skip_operator(",") && !at_operator(")")) inner = with(std::move(inner), expression());
        }
        expect_operator(")");
        return inner;
      }
      if (at_operator("[")) return list_literal();
      if (at_operator("{")) return dict_literal();
      break;
    default: break;
  }
  wrong("a value expected");
}

ExprPtr Parser::number_literal() {
  ExprPtr out = make(Kind::kLiteral);
  const Token token = take();
  const char *begin = token.text.data();
  const char *end = begin + token.text.size();
  int64_t integer = 0;
  double number = 0;
  const auto result = token.type == Type::kInteger ? std::from_chars(begin, end, integer) : std::from_chars(begin, end, number);
  if (result.ec != std::errc() || result.ptr != end) wrong(fmt::format("'{}' is no number that fits", token.text.substr(0, 32)));
  out->literal = token.type == Type::kInteger ? Value(integer) : Value(number);
  return out;
}

ExprPtr Parser::list_literal() {
  expect_operator("[");
  ExprPtr out = make(Kind::kList);
  while (!skip_operator("]")) {
    out = with(std::move(out), expression());
    if (!at_operator("]")) expect_operator(",");
  }
  return out;
}

ExprPtr Parser::dict_literal() {
  expect_operator("{");
  ExprPtr out = make(Kind::kDict);
  while (!skip_operator("}")) {
    out = with(std::move(out), expression());
    expect_operator(":");
    out = with(std::move(out), expression());
    if (!at_operator("}")) expect_operator(",");
  }
  return out;
}

ExprPtr Parser::postfix(ExprPtr operand) {
  while (true) {
    if (skip_operator(".")) {
      ExprPtr out = make(peek().type == Type::kInteger ? Kind::kIndex : Kind::kAttribute);
      if (out->kind == Kind::kIndex) {
        out = with(std::move(out), std::move(operand));
        operand = with(std::move(out), number_literal());
        continue;
      }
      out->name = take_name("an attribute");
      operand = with(std::move(out), std::move(operand));
    } else if (skip_operator("[")) {
      operand = subscript(std::move(operand));
    } else if (at_operator("(")) {
      ExprPtr out = with(make(Kind::kCall), std::move(operand));
      out->arguments = call_arguments();
      for (const Argument &argument : out->arguments) deepen(*out, argument.value.get());
      operand = std::move(out);
    } else {
      return operand;
    }
  }
}

ExprPtr Parser::subscript(ExprPtr operand) {
  ExprPtr bounds[3];
  int colons = 0;
  while (!at_operator("]")) {
    if (skip_operator(":")) {
      if (++colons > 2) wrong("a slice has at most three parts");
    } else if (bounds[colons] != nullptr) {
      wrong("']' expected");
    } else {
      bounds[colons] = expression();
    }
  }
  expect_operator("]");
  if (colons == 0 && bounds[0] == nullptr) wrong("an index expected");
  ExprPtr out = with(make(colons == 0 ? Kind::kIndex : Kind::kSlice), std::move(operand));
  for (int i = 0; i < (colons == 0 ? 1 : 3); ++i) out = with(std::move(out), std::move(bounds[i]));
  return out;
}

std::vector<Argument> Parser::call_arguments() {
  std::vector<Argument> out;
  expect_operator("(");
  while (!skip_operator(")")) {
    Argument argument;
    if (peek().type == Type::kName && peek(1).type == Type::kOperator && peek(1).text == "=") {
      argument.name = take().text;
      take();
    } else if (!out.empty() && !out.back().name.empty()) {
      wrong("an argument without a name after one with a name");
    }
    argument.value = expression();
    out.push_back(std::move(argument));
    if (!at_operator(")")) expect_operator(",");
  }
  return out;
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

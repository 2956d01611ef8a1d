// Literals, and what follows an operand without a space: attributes, elements, slices, calls.
#include "core/text/jinja/parser.hpp"

#include <fmt/format.h>
#include <charconv>

namespace sluice::text::jinja {

using Type = Token::Type;
using Kind = Expr::Kind;

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
    case Type::kFloat:
      return number_literal();
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
    default:
      break;
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
  const auto result =
      token.type == Type::kInteger ? std::from_chars(begin, end, integer) : std::from_chars(begin, end, number);
  if (result.ec != std::errc() || result.ptr != end)
    wrong(fmt::format("'{}' is no number that fits", token.text.substr(0, 32)));
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

}  // namespace sluice::text::jinja

#include "core/text/jinja/parser.hpp"

#include <fmt/format.h>
#include <algorithm>

namespace sluice::text::jinja {

using Type = Token::Type;

Parser::Nest::Nest(Parser &parser) : parser_(parser) {
  if (++parser_.nesting_ > kMaxNesting) {
    --parser_.nesting_;
    parser_.wrong(fmt::format("nested more than {} deep", kMaxNesting));
  }
}

const Token &Parser::peek(size_t ahead) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }

Token Parser::take() {
  Token token = peek();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::at_operator(std::string_view text) const { return peek().type == Type::kOperator && peek().text == text; }
bool Parser::at_name(std::string_view text) const { return peek().type == Type::kName && peek().text == text; }

bool Parser::skip_operator(std::string_view text) {
  if (!at_operator(text)) return false;
  take();
  return true;
}

bool Parser::skip_name(std::string_view text) {
  if (!at_name(text)) return false;
  take();
  return true;
}

void Parser::expect_operator(std::string_view text) {
  if (!skip_operator(text)) wrong(fmt::format("'{}' expected", text));
}

void Parser::expect_name(std::string_view text) {
  if (!skip_name(text)) wrong(fmt::format("'{}' expected", text));
}

std::string Parser::take_name(std::string_view what) {
  if (peek().type != Type::kName) wrong(fmt::format("{} expected", what));
  return take().text;
}

void Parser::wrong(std::string_view what) const {
  const Token &token = peek();
  std::string found = token.type == Type::kEnd ? std::string(" at the end of the template")
                      : token.text.empty()     ? std::string()
                                               : fmt::format(" before '{}'", token.text.substr(0, 32));
  fail(fmt::format("line {}: {}{}", token.line, what, found));
}

Body Parser::parse() {
  Body body = body_until({});
  if (peek().type != Type::kEnd) wrong("a block ends that was not begun");
  return body;
}

/// Stops in front of the name that ends the body, behind its "{%"; or at the end of the template.
Body Parser::body_until(std::initializer_list<std::string_view> ends) {
  const Nest nest(*this);
  Body out;
  while (peek().type != Type::kEnd) {
    const Token token = take();
    if (token.type == Type::kText) {
      Statement text;
      text.line = token.line;
      text.text = token.text;
      out.push_back(std::move(text));
    } else if (token.type == Type::kOutputBegin) {
      Statement output;
      output.kind = Statement::Kind::kOutput;
      output.line = token.line;
      output.exprs.push_back(tuple_or_expression());
      if (take().type != Type::kOutputEnd) wrong("'}}' expected");
      out.push_back(std::move(output));
    } else {
      if (peek().type != Type::kName) wrong("the name of a block expected");
      if (std::find(ends.begin(), ends.end(), peek().text) != ends.end()) return out;
      block(out);
    }
  }
  if (ends.size() > 0) wrong(fmt::format("'{}' is missing", *(ends.end() - 1)));
  return out;
}

void Parser::block(Body &out) {
  const Token name = take();
  Statement s;
  if (name.text == "if") {
    s = if_statement();
  } else if (name.text == "for") {
    s = for_statement();
  } else if (name.text == "set") {
    s = set_statement();
  } else if (name.text == "macro") {
    s = macro_statement();
  } else if (name.text == "generation") {
    s = generation_statement();
  } else if (name.text == "break" || name.text == "continue") {
    if (loops_ == 0) wrong(fmt::format("'{}' outside a loop", name.text));
    s.kind = name.text == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue;
    close_block();
  } else {
    fail(fmt::format("line {}: the block '{}' is not supported", name.line, name.text.substr(0, 32)));
  }
  s.line = name.line;
  out.push_back(std::move(s));
}

void Parser::close_block() {
  if (peek().type != Type::kBlockEnd) wrong("'%}' expected");
  take();
}

void Parser::end_block(std::string_view name) {
  expect_name(name);
  close_block();
}

Statement Parser::if_statement() {
  Statement s;
  s.kind = Statement::Kind::kIf;
  s.exprs.push_back(expression());
  close_block();
  while (true) {
    s.bodies.push_back(body_until({"elif", "else", "endif"}));
    if (s.exprs.back() == nullptr || at_name("endif")) break;
    if (skip_name("elif")) {
      s.exprs.push_back(expression());
    } else {
      expect_name("else");
      s.exprs.push_back(nullptr);
    }
    close_block();
  }
  end_block("endif");
  return s;
}

std::vector<std::string> Parser::target_names() {
  const bool bracket = skip_operator("(");
  std::vector<std::string> names;
  do {
    names.push_back(take_name("a variable"));
  } while (skip_operator(","));
  if (bracket) expect_operator(")");
  return names;
}

Statement Parser::for_statement() {
  Statement s;
  s.kind = Statement::Kind::kFor;
  s.names = target_names();
  expect_name("in");
  s.exprs.push_back(or_expression());  // not expression(): "if" begins the loop's filter
  s.exprs.push_back(skip_name("if") ? expression() : nullptr);
  if (at_name("recursive")) wrong("recursive loops are not supported");
  close_block();
  ++loops_;
  s.bodies.push_back(body_until({"else", "endfor"}));
  --loops_;
  if (skip_name("else")) {
    close_block();
    s.bodies.push_back(body_until({"endfor"}));
  }
  end_block("endfor");
  return s;
}

Statement Parser::set_statement() {
  Statement s;
  s.kind = Statement::Kind::kSet;
  s.names = target_names();
  if (s.names.size() == 1 && skip_operator(".")) s.attribute = take_name("an attribute");
  if (skip_operator("=")) {
    s.exprs.push_back(tuple_or_expression());
    close_block();
    return s;
  }
  if (s.names.size() != 1 || !s.attribute.empty()) wrong("'=' expected");
  s.kind = Statement::Kind::kSetBlock;
  ExprPtr captured = make(Expr::Kind::kName);
  captured->name = "caller_text";
  s.exprs.push_back(at_operator("|") ? filters(std::move(captured)) : nullptr);
  close_block();
  s.bodies.push_back(body_until({"endset"}));
  end_block("endset");
  return s;
}

Statement Parser::macro_statement() {
  Statement s;
  s.kind = Statement::Kind::kMacro;
  s.text = take_name("the macro's name");
  expect_operator("(");
  while (!skip_operator(")")) {
    s.names.push_back(take_name("a parameter"));
    s.exprs.push_back(skip_operator("=") ? expression() : nullptr);
    if (!at_operator(")")) expect_operator(",");
  }
  close_block();
  const uint32_t loops = std::exchange(loops_, 0);
  s.bodies.push_back(body_until({"endmacro"}));
  loops_ = loops;
  end_block("endmacro");
  return s;
}

/// Marks what an assistant said, for training; nothing to us.
Statement Parser::generation_statement() {
  Statement s;
  s.kind = Statement::Kind::kGroup;
  close_block();
  s.bodies.push_back(body_until({"endgeneration"}));
  end_block("endgeneration");
  return s;
}

}  // namespace sluice::text::jinja

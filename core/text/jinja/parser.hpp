#pragma once
#include "core/text/jinja/ast.hpp"
#include "core/text/jinja/lexer.hpp"

#include <initializer_list>
#include <string_view>

namespace sluice::text::jinja {

/// Recursive descent over the tokens of a template. Throws Failure. [any]
/// source  the grammar of Jinja 3.1's parser.py, without inheritance, includes, imports and call blocks
class Parser {
 public:
  static constexpr uint32_t kMaxNesting = 64;     ///< of blocks and brackets together
  static constexpr uint32_t kMaxExprDepth = 200;  ///< of a tree: also postfix and filter chains add to it

  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Body parse();

 private:
  /// Counts how deep the parser is; the stack is the reason.
  class Nest {
   public:
    explicit Nest(Parser &parser);
    ~Nest() { --parser_.nesting_; }
    Nest(const Nest &) = delete;
    Nest &operator=(const Nest &) = delete;

   private:
    Parser &parser_;
  };

  // Tokens.
  const Token &peek(size_t ahead = 0) const;
  Token take();
  bool at_operator(std::string_view text) const;
  bool at_name(std::string_view text) const;
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view text);
  std::string take_name(std::string_view what);
  [[noreturn]] void wrong(std::string_view what) const;

  // Statements (parser.cpp).
  Body body_until(std::initializer_list<std::string_view> ends);
  void block(Body &out);
  Statement if_statement();
  Statement for_statement();
  Statement set_statement();
  Statement macro_statement();
  Statement generation_statement();
  void end_block(std::string_view name);
  void close_block();
  std::vector<std::string> target_names();

  // Expressions (expression_parser.cpp), loosest first.
  ExprPtr tuple_or_expression();
  ExprPtr expression();
  ExprPtr or_expression();
  ExprPtr and_expression();
  ExprPtr not_expression();
  ExprPtr comparison();
  ExprPtr chain(int level);
  ExprPtr unary(bool with_filters);
  ExprPtr filters(ExprPtr operand);
  ExprPtr test(ExprPtr operand);
  ExprPtr make(Expr::Kind kind) const;
  ExprPtr with(ExprPtr parent, ExprPtr part) const;
  void deepen(Expr &parent, const Expr *part) const;

  // Operands (operand_parser.cpp).
  ExprPtr primary();
  ExprPtr postfix(ExprPtr operand);
  ExprPtr subscript(ExprPtr operand);
  ExprPtr list_literal();
  ExprPtr dict_literal();
  ExprPtr number_literal();
  std::vector<Argument> call_arguments();

  std::vector<Token> tokens_;
  size_t at_ = 0;
  uint32_t nesting_ = 0;
  uint32_t loops_ = 0;
};

}  // namespace sluice::text::jinja

#pragma once
#include "core/text/jinja/value.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace sluice::text::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Argument {
  std::string name;  ///< empty: by position
  ExprPtr value;
};

enum class Op {
  kAdd,
  kSubtract,
  kConcat,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

/// One expression. Chains of one precedence are flat, so that the tree is as deep as the source is nested.
struct Expr {
  enum class Kind {
    kLiteral,     ///< literal
    kName,        ///< name
    kList,        ///< parts
    kTuple,       ///< parts
    kDict,        ///< parts: key, value, key, value
    kNot,         ///< parts[0]
    kNegate,      ///< parts[0]
    kArithmetic,  ///< parts[0] ops[0] parts[1] ops[1] ..., left to right
    kCompare,     ///< the same, as Python chains comparisons
    kAnd,         ///< parts
    kOr,          ///< parts
    kTernary,     ///< parts: value, condition, otherwise (may be null)
    kAttribute,   ///< parts[0] . name
    kIndex,       ///< parts[0] [ parts[1] ]
    kSlice,       ///< parts[0] [ parts[1] : parts[2] : parts[3] ], each of the three may be null
    kCall,        ///< parts[0] ( arguments )
    kFilter,      ///< parts[0] | name ( arguments )
    kTest,        ///< parts[0] is [not] name ( arguments )
  };
  Kind kind = Kind::kLiteral;
  uint32_t line = 1;
  uint32_t depth = 1;
  bool negated = false;  ///< kTest
  std::string name;
  Value literal;
  std::vector<ExprPtr> parts;
  std::vector<Op> ops;
  std::vector<Argument> arguments;
};

using Body = std::vector<Statement>;

struct Statement {
  enum class Kind {
    kText,      ///< text
    kOutput,    ///< exprs[0]
    kIf,        ///< exprs[i] -> bodies[i]; a null condition is the else
    kFor,       ///< names in exprs[0], if exprs[1] (may be null): bodies[0], else bodies[1]
    kSet,       ///< names = exprs[0]; or name.attribute = exprs[0]
    kSetBlock,  ///< name = what bodies[0] writes, through the filters of exprs[0] (may be null; its innermost operand
                ///< is the name "caller_text")
    kMacro,     ///< text(names, with defaults exprs[i], may be null): bodies[0]
    kGroup,     ///< bodies[0], as it is
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  uint32_t line = 1;
  std::string text;
  std::string attribute;
  std::vector<std::string> names;
  std::vector<ExprPtr> exprs;
  std::vector<Body> bodies;
};

}  // namespace sluice::text::jinja

#pragma once
#include "core/text/jinja/ast.hpp"

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::text::jinja {

/// What one rendering may cost. A step is one evaluated node, one list element or 128 bytes of a new string.
struct Limits {
  uint64_t max_steps = 1'000'000;
  size_t max_output_bytes = 16u << 20;  ///< of the output and of every string on the way
  uint32_t max_depth = 400;             ///< of the interpreter's own recursion
};

/// Arguments of a call, evaluated.
struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;

  /// By name, or else by position; null: not given.
  const Value *find(size_t position, std::string_view name) const;
};

/// Renders one template once. Throws Failure. Of one thread.
class Renderer {
 public:
  /// body  outlives the renderer
  Renderer(const Body &body, Limits limits, std::chrono::sys_seconds now);

  void define(std::string_view name, Value value);  ///< name outlives the renderer
  std::string run();
  uint32_t line() const { return line_; }  ///< where it is, or was when it failed
  uint64_t steps() const { return steps_; }

 private:
  enum class Flow { kOn, kBreak, kContinue };
  using Scope = std::vector<std::pair<std::string_view, Value>>;
  class Deeper;

  // What it costs.
  void charge(uint64_t steps);
  void charge_bytes(uint64_t bytes);  ///< before a string of that many is made
  Value text(std::string value);      ///< charges for it
  void emit(std::string_view text);

  // Statements (renderer.cpp).
  Flow run_body(const Body &body);
  Flow run_statement(const Statement &s);
  Flow run_if(const Statement &s);
  Flow run_for(const Statement &s);
  void run_set(const Statement &s);
  std::string capture(const Body &body);
  void assign(std::string_view name, Value value);
  void unpack(const std::vector<std::string> &names, const Value &value);
  Value lookup(std::string_view name);
  std::vector<Value> iterate(const Value &value);

  // Expressions (evaluate.cpp).
  Value evaluate(const Expr &e);
  Value evaluate_logic(const Expr &e);
  Args arguments(const std::vector<Argument> &from);

  // Operators (operators.cpp).
  Value arithmetic(Op op, const Value &a, const Value &b);
  Value repeated(const std::string &unit, int64_t times);
  Value concatenate(const Value &a, const Value &b);
  bool compare(Op op, const Value &a, const Value &b);
  bool contains(const Value &container, const Value &item);

  // Parts of values (access.cpp).
  Value attribute(const Value &object, const std::string &name);
  Value index(const Value &object, const Value &key);
  Value slice(const Expr &e);

  // Functions and methods (calls.cpp).
  Value call(const Expr &e);
  Value call_value(const Value &callee, std::string_view name, const Args &args);
  Value call_macro(const Statement &macro, const Args &args);
  Value call_builtin(Builtin function, const Args &args);
  Value range(const Args &args);
  Value strftime_now(const Args &args);
  Value method(const Value &object, const std::string &name, const Args &args);
  Value string_method(const std::string &object, std::string_view name, const Args &args);
  Value dict_method(const Dict &object, std::string_view name, const Args &args);
  Value strings(const std::vector<std::string_view> &parts);

  // Filters and tests (filters.cpp, list_filters.cpp, predicates.cpp). Empty: no filter or test of that name.
  Value filter(std::string_view name, const Value &value, const Args &args);
  bool text_filter(std::string_view name, const Value &value, const Args &args, Value &out);
  bool list_filter(std::string_view name, const Value &value, const Args &args, Value &out);
  Value select(const Value &value, const Args &args, bool by_attribute, bool keep);
  Value map(const Value &value, const Args &args);
  Value sorted(std::vector<Value> items, const Args &args);
  Value join(const Value &value, const Args &args);
  bool test(std::string_view name, const Value &value, const Args &args);

  const Body &body_;
  Limits limits_;
  std::chrono::sys_seconds now_;
  std::vector<Scope> scopes_;  // [0] is the template's own
  size_t macro_base_ = 0;      // a macro sees the scopes from here on, and scopes_[0]
  uint32_t nesting_of_loops_ = 0;
  std::vector<std::unique_ptr<Namespace>> namespaces_;
  std::string out_;
  uint64_t steps_ = 0;
  uint32_t depth_ = 0;
  uint32_t line_ = 1;
};

}  // namespace sluice::text::jinja

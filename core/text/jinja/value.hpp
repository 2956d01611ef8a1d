#pragma once
#include "core/base/error.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace sluice::text::jinja {

/// Thrown inside the interpreter only; ChatTemplate turns it into an Error.
struct Failure {
  Code code;
  std::string message;
  bool raised = false;  ///< by the template's own raise_exception: the message is meant for the client
};

[[noreturn]] void fail(std::string message);

class Value;
struct Statement;
struct List;
class Dict;
struct Namespace;
struct Loop;

struct Undefined {
  std::shared_ptr<const std::string> name;  ///< what was looked for; may be null
};
struct None {};

/// How Python would write a list down; nothing else tells a list from a tuple here.
enum class Brackets { kSquare, kRound };

/// The functions every template may call.
enum class Builtin { kRange, kNamespace, kDict, kRaiseException, kStrftimeNow };

/// A value of the template language: pure data but for namespaces, the one thing a template may change.
/// Always: nested at most kMaxDepth deep, so walking and destroying one needs little stack.
class Value {
 public:
  static constexpr uint32_t kMaxDepth = 64;

  Value() = default;
  Value(None v) : data_(v) {}
  Value(bool v) : data_(v) {}
  Value(int64_t v) : data_(v) {}
  Value(double v) : data_(v) {}
  Value(std::string v) : data_(std::make_shared<const std::string>(std::move(v))) {}
  Value(std::string_view v) : Value(std::string(v)) {}
  Value(const char *v) : Value(std::string(v)) {}
  Value(Namespace *v) : data_(v) {}
  Value(std::shared_ptr<const Loop> v) : data_(std::move(v)) {}
  Value(const Statement *macro) : data_(macro) {}
  Value(Builtin v) : data_(v) {}
  static Value undefined(std::string name);
  static Value list(std::vector<Value> items, Brackets brackets = Brackets::kSquare);  ///< fails when too deep
  static Value dict(Dict entries);                                                     ///< fails when too deep

  template <class T>
  const T *as() const {
    return std::get_if<T>(&data_);
  }
  bool is_undefined() const { return as<Undefined>() != nullptr; }
  bool is_none() const { return as<None>() != nullptr; }
  bool is_number() const { return as<int64_t>() != nullptr || as<double>() != nullptr || as<bool>() != nullptr; }
  const std::string *string() const;
  const std::vector<Value> *items() const;  ///< null: no list
  Brackets brackets() const;                ///< of a list
  const Dict *entries() const;              ///< null: no dict
  Namespace *name_space() const;
  const Loop *loop() const;

  bool truthy() const;
  uint32_t depth() const;
  std::string_view type_name() const;      ///< as Python calls it, for messages
  double number() const;                   ///< of an is_number() value
  std::optional<int64_t> integer() const;  ///< a bool counts, as in Python

 private:
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
                            std::shared_ptr<const List>, std::shared_ptr<const Dict>, Namespace *,
                            std::shared_ptr<const Loop>, const Statement *, Builtin>;
  Data data_;
};

struct List {
  std::vector<Value> items;
  uint32_t depth = 1;
  Brackets brackets = Brackets::kSquare;
};

/// String keys in the order of insertion.
class Dict {
 public:
  using Entry = std::pair<std::string, Value>;
  void set(std::string key, Value value);
  const Value *find(std::string_view key) const;
  const std::vector<Entry> &all() const { return all_; }
  uint32_t depth() const { return depth_; }

 private:
  std::vector<Entry> all_;
  std::unordered_map<std::string, size_t> index_;
  uint32_t depth_ = 1;
};

/// Owned by the renderer and never by a value, so that a namespace may hold itself without leaking.
struct Namespace {
  Dict values;
};

/// What `loop` is inside a for statement.
struct Loop {
  std::shared_ptr<const List> items;
  size_t index = 0;
  uint32_t nesting = 1;
};

/// Python's str(): what {{ value }} writes. Elements of lists and dicts as repr() has them.
void append_text(const Value &value, std::string &out);
void append_repr(const Value &value, std::string &out);

/// Python's ==. 1 == 1.0 == true.
bool equal(const Value &a, const Value &b);
/// Python's <. Fails for types that have no order.
bool less(const Value &a, const Value &b);

}  // namespace sluice::text::jinja

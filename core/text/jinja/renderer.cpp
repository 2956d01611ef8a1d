#include "core/text/jinja/renderer.hpp"

#include "core/text/jinja/deeper.hpp"
#include "core/text/jinja/strings.hpp"

#include <fmt/format.h>

namespace sluice::text::jinja {

const Value *Args::find(size_t position, std::string_view name) const {
  for (const auto &[key, value] : named)
    if (key == name) return &value;
  return position < positional.size() ? &positional[position] : nullptr;
}

Renderer::Renderer(const Body &body, Limits limits, std::chrono::sys_seconds now)
    : body_(body), limits_(limits), now_(now), scopes_(1) {
  define("range", Builtin::kRange);
  define("namespace", Builtin::kNamespace);
  define("dict", Builtin::kDict);
  define("raise_exception", Builtin::kRaiseException);
  define("strftime_now", Builtin::kStrftimeNow);
}

void Renderer::define(std::string_view name, Value value) { assign(name, std::move(value)); }

std::string Renderer::run() {
  run_body(body_);
  return std::move(out_);
}

void Renderer::charge(uint64_t steps) {
  steps_ += steps;
  if (steps_ > limits_.max_steps)
    throw Failure{Code::kResourceExhausted, fmt::format("more than {} steps are needed", limits_.max_steps)};
}

void Renderer::charge_bytes(uint64_t bytes) {
  if (bytes > limits_.max_output_bytes)
    throw Failure{Code::kResourceExhausted, fmt::format("a text grows beyond {} bytes", limits_.max_output_bytes)};
  charge(bytes / 128);
}

Value Renderer::text(std::string value) {
  charge_bytes(value.size());
  return Value(std::move(value));
}

void Renderer::emit(std::string_view text) {
  charge_bytes(text.size());
  if (text.size() > limits_.max_output_bytes - out_.size())
    throw Failure{Code::kResourceExhausted, fmt::format("the output grows beyond {} bytes", limits_.max_output_bytes)};
  out_ += text;
}

Renderer::Flow Renderer::run_body(const Body &body) {
  const Deeper deeper(*this);
  for (const Statement &s : body) {
    charge(1);
    line_ = s.line;
    if (const Flow flow = run_statement(s); flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Renderer::Flow Renderer::run_statement(const Statement &s) {
  switch (s.kind) {
    case Statement::Kind::kText:
      emit(s.text);
      return Flow::kOn;
    case Statement::Kind::kOutput: {
      std::string shown;
      append_text(evaluate(*s.exprs[0]), shown);
      emit(shown);
      return Flow::kOn;
    }
    case Statement::Kind::kIf:
      return run_if(s);
    case Statement::Kind::kFor:
      return run_for(s);
    case Statement::Kind::kSet:
      run_set(s);
      return Flow::kOn;
    case Statement::Kind::kSetBlock: {
      Value captured = text(capture(s.bodies[0]));
      if (s.exprs[0] != nullptr) {
        scopes_.push_back({{"caller_text", captured}});
        captured = evaluate(*s.exprs[0]);
        scopes_.pop_back();
      }
      assign(s.names[0], std::move(captured));
      return Flow::kOn;
    }
    case Statement::Kind::kMacro:
      assign(s.text, Value(&s));
      return Flow::kOn;
    case Statement::Kind::kGroup:
      return run_body(s.bodies[0]);
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

Renderer::Flow Renderer::run_if(const Statement &s) {
  for (size_t i = 0; i < s.bodies.size(); ++i)
    if (s.exprs[i] == nullptr || evaluate(*s.exprs[i]).truthy()) return run_body(s.bodies[i]);
  return Flow::kOn;
}

Renderer::Flow Renderer::run_for(const Statement &s) {
  std::vector<Value> items = iterate(evaluate(*s.exprs[0]));
  scopes_.emplace_back();
  if (s.exprs[1] != nullptr) {
    std::vector<Value> kept;
    for (Value &item : items) {
      scopes_.back().clear();
      unpack(s.names, item);
      if (evaluate(*s.exprs[1]).truthy()) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    scopes_.pop_back();
    return s.bodies.size() > 1 ? run_body(s.bodies[1]) : Flow::kOn;
  }
  auto list = std::make_shared<List>();
  for (const Value &item : items) list->depth = std::max(list->depth, item.depth() + 1);
  if (list->depth >= Value::kMaxDepth) fail("the loop's items are nested too deep");
  list->items = std::move(items);
  ++nesting_of_loops_;
  for (size_t i = 0; i < list->items.size(); ++i) {
    charge(1);
    scopes_.back().clear();
    unpack(s.names, list->items[i]);
    assign("loop", Value(std::make_shared<const Loop>(Loop{list, i, nesting_of_loops_})));
    if (run_body(s.bodies[0]) == Flow::kBreak) break;
  }
  --nesting_of_loops_;
  scopes_.pop_back();
  return Flow::kOn;
}

void Renderer::run_set(const Statement &s) {
  Value value = evaluate(*s.exprs[0]);
  if (s.attribute.empty()) return unpack(s.names, value);
  Namespace *const target = lookup(s.names[0]).name_space();
  if (target == nullptr)
    fail(fmt::format("'{}' is no namespace, so '{}.{}' cannot be set", s.names[0], s.names[0], s.attribute));
  target->values.set(s.attribute, std::move(value));
}

std::string Renderer::capture(const Body &body) {
  std::string outer = std::exchange(out_, {});
  run_body(body);
  return std::exchange(out_, std::move(outer));
}

void Renderer::assign(std::string_view name, Value value) {
  Scope &scope = scopes_.back();
  charge(scope.size() / 16);
  for (auto &[known, slot] : scope) {
    if (known != name) continue;
    slot = std::move(value);
    return;
  }
  scope.emplace_back(name, std::move(value));
}

void Renderer::unpack(const std::vector<std::string> &names, const Value &value) {
  if (names.size() == 1) return assign(names[0], value);
  const std::vector<Value> items = iterate(value);
  if (items.size() != names.size())
    fail(fmt::format("{} values cannot be given to {} names", items.size(), names.size()));
  for (size_t i = 0; i < names.size(); ++i) assign(names[i], items[i]);
}

Value Renderer::lookup(std::string_view name) {
  const auto find = [&](const Scope &scope) -> const Value * {
    charge(scope.size() / 16);
    for (const auto &[known, value] : scope)
      if (known == name) return &value;
    return nullptr;
  };
  for (size_t i = scopes_.size(); i > macro_base_; --i)
    if (const Value *value = find(scopes_[i - 1])) return *value;
  if (macro_base_ > 0)
    if (const Value *value = find(scopes_[0])) return *value;
  return Value::undefined(std::string(name));
}

std::vector<Value> Renderer::iterate(const Value &value) {
  std::vector<Value> out;
  if (const auto *items = value.items()) {
    charge(items->size());
    return *items;
  }
  if (const auto *entries = value.entries()) {
    charge(entries->all().size());
    for (const auto &[key, item] : entries->all()) out.emplace_back(key);
    return out;
  }
  if (const auto *s = value.string()) {
    charge(s->size());
    for (const std::string_view character : characters(*s)) out.emplace_back(character);
    return out;
  }
  if (value.is_undefined()) return out;
  fail(fmt::format("a {} cannot be iterated over", value.type_name()));
}

}  // namespace sluice::text::jinja

#include "core/text/jinja/value.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>

namespace sluice::text::jinja {
namespace {

/// The shortest text that reads back as the number, with a point or an exponent in it.
std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::string out = fmt::format("{}", value);
  if (out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}

uint32_t checked_depth(uint32_t depth) {
  if (depth > Value::kMaxDepth) fail(fmt::format("a value is nested more than {} deep", Value::kMaxDepth));
  return depth;
}

}  // namespace

void fail(std::string message) { throw Failure{Code::kInvalidArgument, std::move(message)}; }

Value Value::undefined(std::string name) {
  Value out;
  out.data_ = Undefined{std::make_shared<const std::string>(std::move(name))};
  return out;
}

Value Value::list(std::vector<Value> items, Brackets brackets) {
  auto list = std::make_shared<List>();
  list->brackets = brackets;
  for (const Value &item : items) list->depth = std::max(list->depth, item.depth() + 1);
  checked_depth(list->depth);
  list->items = std::move(items);
  Value out;
  out.data_ = std::shared_ptr<const List>(std::move(list));
  return out;
}

Value Value::dict(Dict entries) {
  checked_depth(entries.depth());
  Value out;
  out.data_ = std::make_shared<const Dict>(std::move(entries));
  return out;
}

const std::string *Value::string() const {
  const auto *p = as<std::shared_ptr<const std::string>>();
  return p != nullptr ? p->get() : nullptr;
}

const std::vector<Value> *Value::items() const {
  const auto *p = as<std::shared_ptr<const List>>();
  return p != nullptr ? &(*p)->items : nullptr;
}

Brackets Value::brackets() const {
  const auto *p = as<std::shared_ptr<const List>>();
  return p != nullptr ? (*p)->brackets : Brackets::kSquare;
}

const Dict *Value::entries() const {
  const auto *p = as<std::shared_ptr<const Dict>>();
  return p != nullptr ? p->get() : nullptr;
}

Namespace *Value::name_space() const {
  const auto *p = as<Namespace *>();
  return p != nullptr ? *p : nullptr;
}

const Loop *Value::loop() const {
  const auto *p = as<std::shared_ptr<const Loop>>();
  return p != nullptr ? p->get() : nullptr;
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (const auto *s = string()) return !s->empty();
  if (const auto *l = items()) return !l->empty();
  if (const auto *d = entries()) return !d->all().empty();
  return true;
}

uint32_t Value::depth() const {
  if (const auto *p = as<std::shared_ptr<const List>>()) return (*p)->depth;
  if (const auto *d = entries()) return d->depth();
  if (const auto *l = loop()) return l->items->depth + 1;
  return 0;
}

std::string_view Value::type_name() const {
  if (is_undefined()) return "undefined";
  if (is_none()) return "none";
  if (as<bool>() != nullptr) return "bool";
  if (as<int64_t>() != nullptr) return "int";
  if (as<double>() != nullptr) return "float";
  if (string() != nullptr) return "string";
  if (items() != nullptr) return "list";
  if (entries() != nullptr) return "dict";
  if (name_space() != nullptr) return "namespace";
  if (loop() != nullptr) return "loop";
  return "function";
}

double Value::number() const {
  if (const auto *b = as<bool>()) return *b ? 1 : 0;
  if (const auto *i = as<int64_t>()) return static_cast<double>(*i);
  const auto *d = as<double>();
  return d != nullptr ? *d : 0;
}

std::optional<int64_t> Value::integer() const {
  if (const auto *b = as<bool>()) return *b ? 1 : 0;
  if (const auto *i = as<int64_t>()) return *i;
  return std::nullopt;
}

void Dict::set(std::string key, Value value) {
  depth_ = std::max(depth_, value.depth() + 1);
  const auto [place, is_new] = index_.try_emplace(key, all_.size());
  if (is_new)
    all_.emplace_back(std::move(key), std::move(value));
  else
    all_[place->second].second = std::move(value);
}

const Value *Dict::find(std::string_view key) const {
  const auto found = index_.find(std::string(key));
  return found == index_.end() ? nullptr : &all_[found->second].second;
}

void append_text(const Value &value, std::string &out) {
  if (const auto *s = value.string())
    out += *s;
  else if (!value.is_undefined())
    append_repr(value, out);
}

void append_repr(const Value &value, std::string &out) {
  if (const auto *s = value.string()) {
    const char quote = s->find('\'') != std::string::npos && s->find('"') == std::string::npos ? '"' : '\'';
    out += quote;
    for (const char c : *s) {
      if (c == '\n') {
        out += "\\n";
      } else if (c == '\t') {
        out += "\\t";
      } else if (c == '\r') {
        out += "\\r";
      } else {
        if (c == quote || c == '\\') out += '\\';
        out += c;
      }
    }
    out += quote;
  } else if (const auto *l = value.items()) {
    const bool round = value.brackets() == Brackets::kRound;
    out += round ? '(' : '[';
    for (size_t i = 0; i < l->size(); ++i) {
      if (i > 0) out += ", ";
      append_repr((*l)[i], out);
    }
    out += round ? (l->size() == 1 ? ",)" : ")") : "]";
  } else if (const auto *d = value.entries()) {
    out += '{';
    for (size_t i = 0; i < d->all().size(); ++i) {
      if (i > 0) out += ", ";
      append_repr(Value(d->all()[i].first), out);
      out += ": ";
      append_repr(d->all()[i].second, out);
    }
    out += '}';
  } else if (const auto *b = value.as<bool>()) {
    out += *b ? "True" : "False";
  } else if (const auto *i = value.as<int64_t>()) {
    out += fmt::format("{}", *i);
  } else if (const auto *f = value.as<double>()) {
    out += float_text(*f);
  } else if (value.is_none()) {
    out += "None";
  } else if (value.is_undefined()) {
    out += "Undefined";
  } else {
    out += fmt::format("<{}>", value.type_name());
  }
}

bool equal(const Value &a, const Value &b) {
  if (a.is_number() && b.is_number()) {
    const auto *i = a.as<int64_t>();
    const auto *j = b.as<int64_t>();
    return i != nullptr && j != nullptr ? *i == *j : a.number() == b.number();
  }
  if (a.string() != nullptr && b.string() != nullptr) return *a.string() == *b.string();
  if (a.items() != nullptr && b.items() != nullptr)
    return std::equal(a.items()->begin(), a.items()->end(), b.items()->begin(), b.items()->end(), equal);
  if (a.entries() != nullptr && b.entries() != nullptr) {
    const auto &all = a.entries()->all();
    return all.size() == b.entries()->all().size() &&
           std::all_of(all.begin(), all.end(), [&](const Dict::Entry &entry) {
             const Value *other = b.entries()->find(entry.first);
             return other != nullptr && equal(entry.second, *other);
           });
  }
  if (a.name_space() != nullptr) return a.name_space() == b.name_space();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool less(const Value &a, const Value &b) {
  if (a.is_number() && b.is_number()) {
    const auto *i = a.as<int64_t>();
    const auto *j = b.as<int64_t>();
    return i != nullptr && j != nullptr ? *i < *j : a.number() < b.number();
  }
  if (a.string() != nullptr && b.string() != nullptr) return *a.string() < *b.string();
  fail(fmt::format("a {} and a {} cannot be ordered", a.type_name(), b.type_name()));
}

}  // namespace sluice::text::jinja

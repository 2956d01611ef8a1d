// Attributes, elements and slices.
#include "core/text/jinja/renderer.hpp"
#include "core/text/jinja/strings.hpp"

#include <fmt/format.h>
#include <algorithm>

namespace sluice::text::jinja {
namespace {

int64_t slice_part(const Value &part, int64_t fallback) {
  if (part.is_none() || part.is_undefined()) return fallback;
  const auto integer = part.integer();
  if (!integer) fail(fmt::format("a slice needs integers, not a {}", part.type_name()));
  return std::clamp<int64_t>(*integer, -(int64_t{1} << 40), int64_t{1} << 40);
}

/// A slice's bound as Python clamps it: negative ones count from the end.
int64_t clamped(const Value &bound, int64_t fallback, int64_t length, int64_t low, int64_t high) {
  if (bound.is_none() || bound.is_undefined()) return fallback;
  const int64_t at = slice_part(bound, fallback);
  return std::clamp(at < 0 ? at + length : at, low, high);
}

}  // namespace

Value Renderer::attribute(const Value &object, const std::string &name) {
  const Dict *entries = object.name_space() != nullptr ? &object.name_space()->values : object.entries();
  if (entries != nullptr) {
    const Value *found = entries->find(name);
    return found != nullptr ? *found : Value::undefined(name);
  }
  if (const Loop *loop = object.loop()) {
    const auto length = static_cast<int64_t>(loop->items->items.size());
    const auto at = static_cast<int64_t>(loop->index);
    if (name == "index") return at + 1;
    if (name == "index0") return at;
    if (name == "revindex") return length - at;
    if (name == "revindex0") return length - at - 1;
    if (name == "first") return at == 0;
    if (name == "last") return at + 1 == length;
    if (name == "length") return length;
    if (name == "depth") return int64_t{loop->nesting};
    if (name == "depth0") return int64_t{loop->nesting} - 1;
    if (name == "previtem" && at > 0) return loop->items->items[loop->index - 1];
    if (name == "nextitem" && at + 1 < length) return loop->items->items[loop->index + 1];
    return Value::undefined("loop." + name);
  }
  if (const auto *u = object.as<Undefined>(); u != nullptr)
    fail(u->name != nullptr ? fmt::format("'{}' is undefined, so it has no '{}'", *u->name, name)
                            : fmt::format("an undefined value has no '{}'", name));
  return Value::undefined(name);
}

Value Renderer::index(const Value &object, const Value &key) {
  if (key.string() != nullptr) return attribute(object, *key.string());
  if (const auto at = key.integer()) {
    const auto *s = object.string();
    const auto *items = object.items();
    if (s != nullptr) charge(s->size() / 64);
    const auto length = static_cast<int64_t>(items != nullptr ? items->size()
                                             : s != nullptr   ? count_characters(*s)
                                                              : 0);
    if (*at >= -length && *at < length) {
      const auto place = static_cast<size_t>(*at < 0 ? *at + length : *at);
      if (items != nullptr) return (*items)[place];
      return Value(characters_between(*s, place, place + 1));
    }
  }
  if (object.is_undefined()) return attribute(object, "[]");
  return Value::undefined("an element");
}

Value Renderer::slice(const Expr &e) {
  const Value object = evaluate(*e.parts[0]);
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i)
    if (e.parts[i + 1] != nullptr) bounds[i] = evaluate(*e.parts[i + 1]);
  if (object.is_undefined()) return attribute(object, "[:]");
  if (object.items() == nullptr && object.string() == nullptr) return Value::undefined("a slice");
  const std::string *s = object.string();
  const auto length = static_cast<int64_t>(s != nullptr ? count_characters(*s) : object.items()->size());
  const int64_t step = slice_part(bounds[2], 1);
  if (step == 0) fail("the step of a slice is 0");
  const bool forward = step > 0;
  const int64_t low = forward ? 0 : -1, high = forward ? length : length - 1;
  int64_t at = clamped(bounds[0], forward ? low : high, length, low, high);
  const int64_t end = clamped(bounds[1], forward ? high : low, length, low, high);
  if (s != nullptr && step == 1) {  // the usual one, which needs no list of characters
    charge_bytes(s->size());
    return text(std::string(characters_between(*s, static_cast<size_t>(at), static_cast<size_t>(std::max(at, end)))));
  }
  const std::vector<Value> items = iterate(object);
  std::vector<Value> out;
  for (; forward ? at < end : at > end; at += step) out.push_back(items[static_cast<size_t>(at)]);
  if (s == nullptr) return Value::list(std::move(out), object.brackets());
  std::string joined;
  for (const Value &character : out) joined += *character.string();
  return text(std::move(joined));
}

}  // namespace sluice::text::jinja

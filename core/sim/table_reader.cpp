#include "core/sim/table_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/config/words.hpp"

namespace sluice::sim {
namespace {

/// The value as it stands in the file, short enough for a message.
std::string text_of(const toml::node &node) {
  std::ostringstream out;
  node.visit([&](const auto &value) { out << value; });
  std::string text = config::printable(out.str());
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return text;
}

std::string range(double min, double max) { return fmt::format("{}..{}", min, max); }

}  // namespace

const toml::node *TableReader::find(const char *key) {
  asked_.insert(key);
  return table_.get(key);
}

void TableReader::wrong(const char *key, const toml::node &value, const std::string &must_be) {
  problems_.push_back({{config::Origin::Kind::kFile, file_, value.source().begin.line},
                       fmt::format("{} is {}; it must be {}", name(key), text_of(value), must_be)});
}

void TableReader::missing(const char *key, const std::string &must_be) {
  problems_.push_back({{config::Origin::Kind::kFile, file_, table_.source().begin.line},
                       fmt::format("{} is not set; it must be {}", name(key), must_be)});
}

bool TableReader::number(const char *key, const toml::node &node, double min, double max, double &out) {
  const auto value = node.value<double>();
  if (node.is_number() && value && std::isfinite(*value) && *value >= min && *value <= max) {
    out = *value;
    return true;
  }
  wrong(key, node, "a number " + range(min, max));
  return false;
}

bool TableReader::integer(const char *key, const toml::node &node, uint64_t min, uint64_t max, uint64_t &out) {
  const auto *value = node.as_integer();
  if (value != nullptr && value->get() >= 0 && static_cast<uint64_t>(value->get()) >= min &&
      static_cast<uint64_t>(value->get()) <= max) {
    out = static_cast<uint64_t>(value->get());
    return true;
  }
  wrong(key, node, fmt::format("an integer {}..{}", min, max));
  return false;
}

void TableReader::read(const char *key, double &value, double min, double max) {
  if (const auto *node = find(key)) number(key, *node, min, max, value);
}

void TableReader::read(const char *key, uint64_t &value, uint64_t min, uint64_t max) {
  if (const auto *node = find(key)) integer(key, *node, min, max, value);
}

void TableReader::read(const char *key, uint32_t &value, uint64_t min, uint64_t max) {
  uint64_t wide = value;
  read(key, wide, min, std::min<uint64_t>(max, UINT32_MAX));
  value = static_cast<uint32_t>(wide);
}

void TableReader::read(const char *key, bool &value) {
  const auto *node = find(key);
  if (node == nullptr) return;
  if (const auto *boolean = node->as_boolean())
    value = boolean->get();
  else
    wrong(key, *node, "true or false");
}

void TableReader::read(const char *key, std::string &value) {
  const auto *node = find(key);
  if (node == nullptr) return;
  if (const auto *text = node->as_string())
    value = text->get();
  else
    wrong(key, *node, "a string");
}

size_t TableReader::choice(const char *key, const std::vector<std::string> &choices, size_t otherwise) {
  const auto *node = find(key);
  if (node == nullptr) return otherwise;
  if (const auto *text = node->as_string()) {
    const auto at = std::find(choices.begin(), choices.end(), text->get());
    if (at != choices.end()) return static_cast<size_t>(at - choices.begin());
  }
  wrong(key, *node, "one of " + config::join(choices));
  return otherwise;
}

void TableReader::read(const char *key, std::vector<double> &values, double min, double max) {
  const auto *node = find(key);
  if (node == nullptr) return;
  const auto *array = node->as_array();
  if (array == nullptr) return wrong(key, *node, "an array of numbers");
  std::vector<double> list;
  for (const auto &element : *array) {
    double value = 0;
    if (!number(key, element, min, max, value)) return;
    list.push_back(value);
  }
  values = std::move(list);
}

void TableReader::read(const char *key, std::vector<uint64_t> &values, uint64_t min, uint64_t max) {
  const auto *node = find(key);
  if (node == nullptr) return;
  const auto *array = node->as_array();
  if (array == nullptr) return wrong(key, *node, "an array of integers");
  std::vector<uint64_t> list;
  for (const auto &element : *array) {
    uint64_t value = 0;
    if (!integer(key, element, min, max, value)) return;
    list.push_back(value);
  }
  values = std::move(list);
}

void TableReader::read(const char *key, std::vector<std::string> &values) {
  const auto *node = find(key);
  if (node == nullptr) return;
  const auto *array = node->as_array();
  if (array == nullptr) return wrong(key, *node, "an array of strings");
  std::vector<std::string> list;
  for (const auto &element : *array) {
    if (!element.is_string()) return wrong(key, element, "a string");
    list.push_back(element.as_string()->get());
  }
  values = std::move(list);
}

const toml::table &TableReader::table(const char *key) {
  static const toml::table none;
  const auto *node = find(key);
  if (node == nullptr) return none;
  if (const auto *below = node->as_table()) return *below;
  wrong(key, *node, "a table");
  return none;
}

std::vector<const toml::table *> TableReader::tables(const char *key) {
  const auto *node = find(key);
  if (node == nullptr) return {};
  std::vector<const toml::table *> list;
  const auto *array = node->as_array();
  if (array == nullptr) {
    wrong(key, *node, "an array of tables");
    return {};
  }
  for (const auto &element : *array) {
    if (const auto *below = element.as_table())
      list.push_back(below);
    else
      wrong(key, element, "a table");
  }
  return list;
}

void TableReader::done() {
  for (const auto &[key, node] : table_) {
    const std::string word(key.str());
    if (asked_.count(word) != 0) continue;
    const std::vector<std::string> known(asked_.begin(), asked_.end());
    const std::string near = config::nearest(word, known);
    problems_.push_back({{config::Origin::Kind::kFile, file_, key.source().begin.line},
                         fmt::format("{} is not a key of a setup; {}", name(config::key_part(word)),
                                     near.empty() ? "the keys here are " + config::join(known)
                                                  : "did you mean " + near + "?")});
  }
}

}  // namespace sluice::sim

#include "core/config/variables.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "core/config/words.hpp"

namespace sluice::config {
namespace {

constexpr std::string_view kPrefix = "SLUICE_", kModels = "models.";

std::string shouted(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c >= 'a' && c <= 'z')
      out += static_cast<char>(c - 'a' + 'A');
    else
      out += (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ? c : '_';
  }
  return out;
}

/// The part after "models." without the quotes of a name that needs them.
std::string model_name(const std::string &section) {
  std::string name = section.substr(kModels.size());
  if (name.size() > 1 && name.front() == '"' && name.back() == '"') name = name.substr(1, name.size() - 2);
  return name;
}

std::string suggestion(const std::string &key, const Field &field) {
  return fmt::format("did you mean {} ({})?", key, field.doc);
}

}  // namespace

const Field *Section::field(const std::string &key) const {
  for (const Field &f : fields)
    if (f.key == key) return &f;
  return nullptr;
}

bool Section::has_group(const std::string &key) const {
  return std::any_of(fields.begin(), fields.end(), [&](const Field &f) { return f.key.starts_with(key + "."); });
}

std::string variable_name(const Section &section, const Field &field) {
  std::string name(kPrefix);
  name += section.name.starts_with(kModels) ? "MODELS__" + shouted(model_name(section.name)) : shouted(section.name);
  const size_t dot = field.key.find('.');
  name += "__" + shouted(field.key.substr(0, dot));
  if (dot != std::string::npos) name += "__" + shouted(field.key.substr(dot + 1));
  return name;
}

Variables::Variables(const std::vector<Section> &sections) {
  for (const Section &section : sections)
    for (const Field &field : section.fields) by_name_[variable_name(section, field)].push_back({&section, &field, {}});
}

Variables::Meant Variables::find(const std::string &name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return {nullptr, nullptr, "unknown variable; " + advice(name)};
  if (found->second.size() == 1) return found->second.front();
  return {nullptr, nullptr,
          fmt::format("means both [{}] and [{}]; rename a model", found->second[0].section->name,
                      found->second[1].section->name)};
}

std::string Variables::advice(const std::string &name) const {
  std::vector<std::string> names;
  for (const auto &[known, meant] : by_name_) names.push_back(known);
  if (const std::string near = nearest(name, names); !near.empty())
    return suggestion(near, *by_name_.at(near).front().field);
  if (name.starts_with("SLUICE_MODELS__"))
    return "it names no key of a model that the file has, and a variable cannot add a model";
  return "`sluice config reference` lists those there are";
}

std::map<std::string, std::string> sluice_environment(const char *const *environment) {
  std::map<std::string, std::string> found;
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const std::string_view entry = *environment;
    const size_t equals = entry.find('=');
    const std::string_view name = entry.substr(0, equals);
    if (equals == std::string_view::npos || !name.starts_with(kPrefix) || name.find("__") == std::string_view::npos)
      continue;
    found.emplace(name, entry.substr(equals + 1));
  }
  return found;
}

KeyParts split_key(const std::string &key) {
  if (key.starts_with(kModels)) {
    Model any;
    for (const Field &field : fields_of(any)) {
      const std::string tail = "." + field.key;
      if (!key.ends_with(tail) || key.size() <= kModels.size() + tail.size()) continue;
      const std::string name = model_name(key.substr(0, key.size() - tail.size()));
      return {std::string(kModels) + key_part(name), name, field.key};
    }
  }
  const size_t dot = std::min(key.find('.'), key.size());
  return {key.substr(0, dot), {}, dot == key.size() ? "" : key.substr(dot + 1)};
}

std::string unknown_key(const std::string &key, const Section *section, const std::vector<Section> &sections) {
  const std::string said = "unknown key " + printable(key.substr(0, 200));
  if (section == nullptr) {
    const std::string near = nearest(key.substr(0, key.find('.')), {"server", "plugins", "models", "backends"});
    if (!near.empty())
      return fmt::format("{}; did you mean [{}{}]?", said, near, near == "models" || near == "backends" ? ".NAME" : "");
  } else {
    std::vector<std::string> keys;
    for (const Field &field : section->fields) keys.push_back(field.key);
    const std::string near = nearest(key.substr(section->name.size() + 1), keys);
    if (!near.empty()) return said + "; " + suggestion(section->name + "." + near, *section->field(near));
  }
  const std::string leaf = key.substr(key.rfind('.') + 1);
  for (const Section &other : sections)
    if (const Field *field = other.field(leaf)) return said + "; " + suggestion(other.name + "." + leaf, *field);
  if (section == nullptr) return said + "; there are [server], [plugins], [models.NAME] and [backends.NAME]";
  std::vector<std::string> keys;
  for (const Field &field : section->fields) keys.push_back(field.key);
  return fmt::format("{}; [{}] takes {}", said, section->name, join(keys));
}

}  // namespace sluice::config

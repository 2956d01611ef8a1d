#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "core/config/check.hpp"
#include "core/config/document.hpp"
#include "core/config/fields.hpp"
#include "core/config/value.hpp"
#include "core/config/variables.hpp"
#include "core/config/words.hpp"

namespace sluice::config {
namespace {

constexpr size_t kMaxProblems = 100;  // a hostile file cannot make a report without end
constexpr size_t kMaxModels = 1024;

class Loader {
 public:
  explicit Loader(const LoadInput &input) : input_(input) {}

  Loaded run() {
    read_file();
    create_models();
    bind_sections();
    apply_file();
    if (input_.read_environment) apply_environment();
    for (const Override &flag : input_.flags) apply_flag(flag);
    use_named_backends();
    clear_parts_of_engines();
    record_lines();
    check_together(out_.config, origins_, problems_);
    collect_problems();
    return std::move(out_);
  }

 private:
  void report(Origin origin, std::string message) { problems_.push_back({std::move(origin), std::move(message)}); }

  Origin in_file(const toml::source_region &where) const {
    return {Origin::Kind::kFile, input_.path, where.begin.line};
  }

  void read_file() {
    if (input_.path.empty()) return;
    auto read = read_document(input_.path);
    if (auto *problem = std::get_if<Problem>(&read)) return report(problem->origin, problem->message);
    document_ = std::move(std::get<toml::table>(read));
    std::error_code failed;
    folder_ = std::filesystem::absolute(input_.path, failed).parent_path().string();
  }

  void create_models() {
    std::vector<Model> &models = out_.config.models;
    if (const toml::table *table = document_["models"].as_table()) {
      std::vector<std::pair<toml::source_position, Model>> found;
      for (const auto &[key, node] : *table) {
        Model model;
        model.name = key.str();
        model.origin = in_file(key.source());
        if (!is_name(model.name))
          report(model.origin, fmt::format("a model is called {}; a name is {}", excerpt(model.name), kNameRule));
        else if (node.is_table())  // else apply_file() complains
          found.emplace_back(key.source().begin, std::move(model));
      }
      // toml++ sorts by name; the order of the file decides which model is the default.
      std::stable_sort(found.begin(), found.end(), [](const auto &a, const auto &b) { return a.first < b.first; });
      if (found.size() > kMaxModels) {
        report(found[kMaxModels].second.origin,
               fmt::format("there are {} models; at most {}", found.size(), kMaxModels));
        found.resize(kMaxModels);
      }
      for (auto &[position, model] : found) models.push_back(std::move(model));
    }
    for (const Override &flag : input_.flags) {
      const std::string name = split_key(flag.key).model;
      const auto is_it = [&](const Model &m) { return m.name == name; };
      if (!is_name(name) || std::any_of(models.begin(), models.end(), is_it)) continue;
      Model model;
      model.name = name;
      model.origin = {Origin::Kind::kFlag, flag.flag, 0};
      models.push_back(std::move(model));
    }
  }

  void bind_sections() {
    sections_.push_back({"server", fields_of(out_.config.server)});
    sections_.push_back({"plugins", fields_of(out_.config.plugins)});
    for (Model &model : out_.config.models) sections_.push_back({section_of(model), fields_of(model)});
  }

  Section *section_called(const std::string &name) {
    for (Section &section : sections_)
      if (section.name == name) return &section;
    return nullptr;
  }

  void set(const Section &section, const Field &field, const Origin &origin, toml::node &value) {
    const std::string key = section.name + "." + field.key;
    if (auto wrong = assign(field, key, value, origin, folder_))
      report(origin, std::move(*wrong));
    else
      origins_[key] = origin;
  }

  void set_text(const Section &section, const Field &field, const Origin &origin, const std::string &text) {
    const std::string key = section.name + "." + field.key;
    if (auto wrong = assign_text(field, key, text, origin))
      report(origin, std::move(*wrong));
    else
      origins_[key] = origin;
  }

  void apply_file() {
    for (auto &&[key, node] : document_) {
      const std::string name(key.str());
      toml::table *table = node.as_table();
      if (name != "server" && name != "plugins" && name != "models" && name != "backends")
        report(in_file(key.source()), unknown_key(name, nullptr, sections_));
      else if (table == nullptr)
        report(in_file(key.source()), fmt::format("{} is {}; it must be a table", name, kind_of(node)));
      else if (name == "models")
        apply_models(*table);
      else if (name == "backends")
        read_backends(*table);
      else
        apply_table(*section_called(name), *table, "");
    }
  }

  void apply_models(toml::table &models) {
    for (auto &&[key, node] : models) {
      toml::table *table = node.as_table();
      Section *section = section_called("models." + key_part(key.str()));
      if (table == nullptr)
        report(in_file(key.source()),
               fmt::format("models.{} is {}; it must be a table: [models.{}] with path = \"...\"", key_part(key.str()),
                           kind_of(node), key_part(key.str())));
      else if (section != nullptr)
        apply_table(*section, *table, "");
    }
  }

  /// Sets the fields of a table; `prefix` is "kv." inside of `kv`.
  void apply_table(const Section &section, toml::table &table, const std::string &prefix) {
    for (auto &&[key, node] : table) {
      const std::string name = prefix + std::string(key.str());
      const Origin origin = in_file(key.source());
      const Field *field = section.field(name);
      if (field != nullptr)
        set(section, *field, origin, node);
      else if (!section.has_group(name))
        report(origin, unknown_key(section.name + "." + prefix + key_part(key.str()), &section, sections_));
      else if (toml::table *group = node.as_table())
        apply_table(section, *group, name + ".");
      else
        report(origin, fmt::format("{}.{} is {}; it must be a table", section.name, name, kind_of(node)));
    }
  }

  void read_backends(toml::table &backends) {
    PluginUse use;
    const Field field{.key = "",
                      .slot = &use,
                      .doc = "a backend that models name with backend = \"X\"",
                      .may_be_isolated = true};
    for (auto &&[key, node] : backends) {
      const Origin origin = in_file(key.source());
      const std::string name(key.str()), full = "backends." + key_part(name);
      toml::table *table = node.as_table();
      if (!is_name(name)) {
        report(origin, fmt::format("a backend is called {}; a name is {}", excerpt(name), kNameRule));
      } else if (table == nullptr) {
        report(origin, fmt::format("{} is {}; it must be a table {{ use = \"name\", ... }}", full, kind_of(node)));
      } else {
        if (!table->contains("use")) table->insert("use", name);
        if (auto wrong = assign(field, full, *table, origin, folder_))
          report(origin, std::move(*wrong));
        else
          backends_[name] = use;
      }
    }
  }

  void apply_environment() {
    const Variables variables(sections_);
    for (const auto &[name, text] : sluice_environment(environ)) {
      const Origin origin{Origin::Kind::kEnvironment, name, 0};
      const Variables::Meant meant = variables.find(name);
      if (meant.field != nullptr)
        set_text(*meant.section, *meant.field, origin, text);
      else
        report(origin, meant.wrong);
    }
  }

  void apply_flag(const Override &flag) {
    const Origin origin{Origin::Kind::kFlag, flag.flag, 0};
    const KeyParts parts = split_key(flag.key);
    const Section *section = section_called(parts.section);
    const Field *field = section == nullptr ? nullptr : section->field(parts.leaf);
    if (field != nullptr)
      set_text(*section, *field, origin, flag.value);
    else if (!parts.model.empty() && !is_name(parts.model))
      report(origin, fmt::format("a model is called {}; a name is {}", excerpt(parts.model), kNameRule));
    else
      report(origin, unknown_key(flag.key, section, sections_));
  }

  /// Replaces backend = "X" by what [backends.X] says.
  void use_named_backends() {
    for (Model &model : out_.config.models) {
      const auto named = backends_.find(model.backend.name);
      if (model.engine || named == backends_.end()) continue;
      if (model.backend.options.empty()) {
        model.backend.name = named->second.name;
        model.backend.options = named->second.options;
        model.backend.own_process |= named->second.own_process;
      } else if (named->second.name != model.backend.name) {
        report(model.backend.origin,
               fmt::format("{}.backend has options of its own and uses {}, which is [backends.{}]; write backend = {} "
                           "without options, or use = {}",
                           section_of(model), excerpt(model.backend.name), key_part(model.backend.name),
                           toml_text(model.backend.name), toml_text(named->second.name)));
      }
    }
  }

  void clear_parts_of_engines() {
    for (Model &model : out_.config.models)
      if (model.engine) model.backend = model.scheduler = model.decoder = {}, model.samplers.clear();
  }

  void record_lines() {
    for (const Section &section : sections_)
      for (const Field &field : section.fields) {
        if (is_idle_part(section, field)) continue;
        const std::string key = section.name + "." + field.key, value = rendered(field);
        const auto origin = origins_.find(key);
        if (!value.empty())
          out_.lines.push_back(
              {section.name, key, value, origin == origins_.end() ? Origin{} : origin->second, field.is_secret});
      }
  }

  /// Beside an engine the parts that it replaces must not be printed, as they may not be written either.
  bool is_idle_part(const Section &section, const Field &field) const {
    for (const Model &model : out_.config.models)
      if (model.engine && section.name == section_of(model)) return field.engine_does_it;
    return false;
  }

  void collect_problems() {
    const auto order = [](const Problem &a, const Problem &b) {
      return std::pair(a.origin.kind != Origin::Kind::kFile, a.origin.line) <
             std::pair(b.origin.kind != Origin::Kind::kFile, b.origin.line);
    };
    std::stable_sort(problems_.begin(), problems_.end(), order);
    if (problems_.size() > kMaxProblems) {
      const size_t more = problems_.size() - kMaxProblems;
      problems_.resize(kMaxProblems);
      problems_.push_back({{Origin::Kind::kFile, input_.path, 0}, fmt::format("and {} more problems", more)});
    }
    out_.problems = std::move(problems_);
  }

  const LoadInput &input_;
  Loaded out_;
  toml::table document_;
  std::string folder_;
  std::vector<Section> sections_;  ///< pointing into out_.config, whose models are complete before
  std::map<std::string, PluginUse> backends_;
  Origins origins_;
  std::vector<Problem> problems_;
};

}  // namespace

Loaded load(const LoadInput &input) { return Loader(input).run(); }

}  // namespace sluice::config

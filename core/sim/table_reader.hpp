#pragma once
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "core/config/config.hpp"

namespace sluice::sim {

/// Reads one TOML table key by key; what is wrong is appended to `problems` with key, value, what it must be and line,
/// and the variable keeps what it had. done() reports the keys that nobody asked for.
class TableReader {
 public:
  TableReader(const toml::table &table, std::string where, const std::string &file,
              std::vector<config::Problem> &problems)
      : table_(table), where_(std::move(where)), file_(file), problems_(problems) {}

  void read(const char *key, double &value, double min, double max);
  void read(const char *key, uint32_t &value, uint64_t min, uint64_t max);
  void read(const char *key, uint64_t &value, uint64_t min, uint64_t max);
  void read(const char *key, bool &value);
  void read(const char *key, std::string &value);
  /// returns  index of the value among the choices, `otherwise` when it is not there or wrong
  size_t choice(const char *key, const std::vector<std::string> &choices, size_t otherwise);
  void read(const char *key, std::vector<double> &values, double min, double max);
  void read(const char *key, std::vector<uint64_t> &values, uint64_t min, uint64_t max);
  void read(const char *key, std::vector<std::string> &values);

  bool has(const char *key) const { return table_.contains(key); }
  /// A table below this one, empty when it is not there.
  const toml::table &table(const char *key);
  /// An array of tables, empty when it is not there.
  std::vector<const toml::table *> tables(const char *key);
  void missing(const char *key, const std::string &must_be);
  void done();

  std::string name(const std::string &key) const { return where_.empty() ? key : where_ + "." + key; }

 private:
  const toml::node *find(const char *key);
  void wrong(const char *key, const toml::node &value, const std::string &must_be);
  bool number(const char *key, const toml::node &node, double min, double max, double &out);
  bool integer(const char *key, const toml::node &node, uint64_t min, uint64_t max, uint64_t &out);

  const toml::table &table_;
  const std::string where_;
  const std::string &file_;
  std::vector<config::Problem> &problems_;
  std::set<std::string> asked_;
};

}  // namespace sluice::sim

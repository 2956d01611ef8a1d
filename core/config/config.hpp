#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <toml++/toml.h>

namespace sluice::config {

/// Where a value came from, for messages and for `config print --origin`.
struct Origin {
  enum class Kind { kDefault, kFile, kEnvironment, kFlag } kind = Kind::kDefault;
  std::string name;   ///< file path, variable or flag; empty for a default
  uint32_t line = 0;  ///< of the file
};

/// One thing wrong with a configuration. All of them are collected before any is reported.
struct Problem {
  Origin origin;
  std::string message;  ///< names the key, the value and the remedy
};

/// "file:line: message", "SLUICE_SERVER__PORT: message" or "--port: message"; control characters are escaped.
std::string to_string(const Problem &problem);

/// A plugin's options as they stood in the file. Shared by copies, because a copied toml::table forgets its positions.
class OptionTable {
 public:
  OptionTable() = default;
  OptionTable(toml::table &&table) : table_(std::make_shared<const toml::table>(std::move(table))) {}

  operator const toml::table &() const { return **this; }
  const toml::table &operator*() const {
    static const toml::table none;
    return table_ ? *table_ : none;
  }
  const toml::table *operator->() const { return &**this; }
  bool empty() const { return (**this).empty(); }

 private:
  std::shared_ptr<const toml::table> table_;
};

/// A plugin by name, with its own options. Those are validated later against the plugin's schema.
struct PluginUse {
  std::string name;     ///< what `use =` says, or the plain string; empty = not used
  OptionTable options;  ///< without `use` and `isolation`; nodes keep their source positions
  Origin origin;
  bool own_process = false;  ///< isolation = "process"; backends and engines only
};

/// [server] and what belongs to it. Every field is declared once in fields.cpp with its key, range and doc.
struct Server {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;  ///< 0 = any free one, printed at the start
  uint32_t threads = 1;  ///< I/O threads
  std::vector<std::string> api_keys;
  std::string api_key_file;
  bool allow_unauthenticated = false;  ///< lets a public address be served without a key
  std::vector<std::string> allowed_hosts, allowed_origins;
  uint32_t max_connections = 4096;
  uint64_t max_body_bytes = 4 << 20;
  std::chrono::milliseconds header_timeout{10'000}, body_timeout{30'000}, idle_timeout{75'000}, sse_keepalive{5'000},
      stall_timeout{15'000}, drain_timeout{30'000};
  uint32_t max_queued = 1024;  ///< requests that wait or run, per model
  uint32_t max_n = 8, max_prompts = 16, max_stops = 16;
  std::string log_level = "info";   ///< trace debug info warn error
  std::string log_format = "auto";  ///< auto text json
  bool vllm_metric_names = false;
};

/// [models.NAME].kv
struct Kv {
  uint64_t memory_bytes = 0;   ///< 0 = from what is available
  uint64_t host_memory_bytes = 1ull << 30;  ///< swap space at most
  uint32_t watermark_percent = 2;  ///< of the blocks
  uint32_t block_size = 0;     ///< tokens; 0 = the backend's choice
  uint32_t blocks = 0;         ///< 0 = from memory_bytes
  std::string dtype = "auto";  ///< auto f32 f16
  bool prefix_cache = true;    ///< equal prompt beginnings of one API key are computed once
};

/// [models.NAME]
struct Model {
  std::string name;
  std::string path;  ///< absolute; relative paths in a file are relative to that file
  std::string draft_heads;  ///< absolute; empty = none
  std::vector<std::string> aliases;
  PluginUse backend{"cpu", {}, {}, false}, scheduler{"fcfs", {}, {}, false}, decoder{"plain", {}, {}, false};
  std::vector<PluginUse> samplers{{"chain", {}, {}, false}};
  std::optional<PluginUse> engine;  ///< a request-level engine instead of the four above, whose names are then empty
  Kv kv;
  uint32_t context = 0;         ///< tokens; 0 = the model's own
  uint32_t max_seqs = 16;       ///< sequences in one step
  uint32_t token_budget = 512;  ///< tokens in one step
  Origin origin;
};

struct Plugins {
  std::vector<std::string> dirs;  ///< searched before $SLUICE_PLUGIN_PATH and the installed folder
  bool insecure = false;          ///< accepts files that others may write
  std::chrono::milliseconds call_deadline{30'000};  ///< for a call on an engine thread, and for a step
  std::chrono::milliseconds reopen_delay{1'000};    ///< before a damaged model is opened anew; doubles up to a minute
  uint32_t max_reopens = 5;                         ///< in a row; then the model stays down
};

struct Config {
  Server server;
  Plugins plugins;
  std::vector<Model> models;  ///< in the order of the file; the first answers requests that name none
};

/// One flag of the command line that sets a key: {"server.port", "9000", "--port"}.
struct Override {
  std::string key, value, flag;
};

struct LoadInput {
  std::string path;              ///< empty = no file
  std::vector<Override> flags;   ///< strongest
  bool read_environment = true;  ///< SLUICE_SERVER__PORT and the like
};

struct Loaded {
  Config config;
  std::vector<Problem> problems;  ///< empty = usable
  /// An effective value, for print(). `key` is `section` + "." + the key in it; `value` is TOML, masked when secret.
  struct Line {
    std::string section, key, value;
    Origin origin;
    bool secret = false;
  };
  std::vector<Line> lines;
};

/// [init] Reads file, environment and flags, in rising strength, and collects every problem, files first, by line.
/// A flag may set keys of a model that the file does not have, which creates it; a variable may not.
Loaded load(const LoadInput &input);

/// The effective configuration as TOML that load() accepts. Secrets are masked and commented out, so that the mask is
/// never taken for a key. With where each value came from when asked.
std::string print(const Loaded &loaded, bool with_origin);

/// Every key with its default, range, variable and doc, as TOML with one model called NAME.
std::string reference();

/// The candidate nearest to `word` by edit distance, empty when none is near. Also used for plugin options.
std::string nearest(const std::string &word, const std::vector<std::string> &candidates);

}  // namespace sluice::config

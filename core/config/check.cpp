#include "core/config/check.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "core/config/document.hpp"
#include "core/config/value.hpp"
#include "core/config/words.hpp"

namespace sluice::config {
namespace {

constexpr size_t kMinKeyBytes = 8, kMaxKeyBytes = 512;
constexpr uint64_t kMaxKeyFileBytes = 1 << 20;

Origin origin_of(const Origins &origins, const std::string &key, const Origin &otherwise = {}) {
  const auto found = origins.find(key);
  return found == origins.end() ? otherwise : found->second;
}

/// What is wrong with an API key, without showing it; empty when nothing is.
std::string key_fault(const std::string &key) {
  if (key.size() < kMinKeyBytes || key.size() > kMaxKeyBytes)
    return fmt::format("has {} characters; it must have {}..{}", key.size(), kMinKeyBytes, kMaxKeyBytes);
  // A header value carries printable ASCII, and a bearer token ends at a blank.
  if (!std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7f; }))
    return "holds a blank or a character that is not printable ASCII";
  return {};
}

class Check {
 public:
  Check(Config &config, const Origins &origins, std::vector<Problem> &problems)
      : config_(config), origins_(origins), problems_(problems) {}

  void run() {
    api_keys();
    exposure();
    names();
    for (Model &model : config_.models) {
      parts(model);
      limits(model);
    }
  }

 private:
  void report(Origin origin, std::string message) { problems_.push_back({std::move(origin), std::move(message)}); }

  void api_keys() {
    Server &server = config_.server;
    for (size_t i = 0; i < server.api_keys.size(); ++i)
      if (const std::string fault = key_fault(server.api_keys[i]); !fault.empty())
        report(origin_of(origins_, "server.api_keys"), fmt::format("server.api_keys: key {} {}", i + 1, fault));
    if (!server.api_key_file.empty()) read_key_file();
  }

  void read_key_file() {
    Server &server = config_.server;
    const Origin origin = origin_of(origins_, "server.api_key_file");
    const std::string thing = "server.api_key_file " + toml_text(server.api_key_file);
    const FileText file = read_small_file(server.api_key_file, kMaxKeyFileBytes);
    if (!file.wrong.empty()) return report(origin, fmt::format("{} {}", thing, file.wrong));
    // A group may read it, as when root writes the file of a service; nobody else may see or change it.
    if ((file.mode & 0026) != 0)
      report(origin, fmt::format("{} has mode {:04o}, so that others can read or change it; run: chmod 600 {}", thing,
                                 file.mode, printable(server.api_key_file)));
    size_t found = 0, line = 0;
    std::istringstream in(file.text);
    for (std::string text; std::getline(in, text);) {
      ++line;
      const size_t first = text.find_first_not_of(" \t\r");
      if (first == std::string::npos || text[first] == '#') continue;
      std::string key = text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
      ++found;
      if (const std::string fault = key_fault(key); !fault.empty())
        report({Origin::Kind::kFile, server.api_key_file, static_cast<uint32_t>(line)}, "the API key " + fault);
      else
        server.api_keys.push_back(std::move(key));
    }
    if (found == 0) report(origin, thing + " holds no key; write one a line");
  }

  void exposure() {
    const Server &server = config_.server;
    const Origin origin = origin_of(origins_, "server.host");
    if (server.host.empty()) return report(origin, "server.host is empty; it must be an address such as \"127.0.0.1\"");
    // A key file that gave no key is a problem of its own.
    const bool has_keys = !server.api_keys.empty() || !server.api_key_file.empty();
    if (is_loopback(server.host) || server.allow_unauthenticated || has_keys) return;
    report(origin,
           fmt::format("server.host {} can be reached by others and there is no API key; set server.api_key_file, "
                       "listen on \"127.0.0.1\", or set server.allow_unauthenticated = true",
                       excerpt(server.host)));
  }

  void names() {
    std::map<std::string, std::string> owner;  // name or alias -> model
    for (const Model &model : config_.models) owner.emplace(model.name, model.name);
    for (const Model &model : config_.models) {
      const std::string key = section_of(model) + ".aliases";
      const Origin origin = origin_of(origins_, key, model.origin);
      for (const std::string &alias : model.aliases) {
        if (!is_name(alias)) report(origin, fmt::format("{} holds {}; a name is {}", key, excerpt(alias), kNameRule));
        const auto [taken, fresh] = owner.emplace(alias, model.name);
        if (!fresh)
          report(origin, fmt::format("{} holds {}, which model {} answers to already", key, excerpt(alias),
                                     excerpt(taken->second)));
      }
    }
  }

  void parts(Model &model) {
    const std::string section = section_of(model);
    if (model.engine) {
      const std::string begin = section + ".";
      for (const Field &field : fields_of(model)) {
        const auto said = origins_.find(begin + field.key);
        if (field.engine_does_it && said != origins_.end())
          report(said->second, fmt::format("{}{} has no effect beside {}engine {}, which does all of it; remove one",
                                           begin, field.key, begin, excerpt(model.engine->name)));
      }
    } else if (model.path.empty() && origins_.count(section + ".backend") == 0) {
      // A backend that was chosen may need no file; whether it does is known when it is loaded.
      report(model.origin, fmt::format("[{}] has no path; it must name a model file", section));
    }
  }

  void limits(const Model &model) {
    const std::string section = section_of(model);
    if (model.token_budget < model.max_seqs)
      report(origin_of(origins_, section + ".token_budget", origin_of(origins_, section + ".max_seqs", model.origin)),
             fmt::format("{}.token_budget is {} and max_seqs {}; the budget must have a token for each sequence",
                         section, model.token_budget, model.max_seqs));
  }

  Config &config_;
  const Origins &origins_;
  std::vector<Problem> &problems_;
};

}  // namespace

std::string section_of(const Model &model) { return "models." + key_part(model.name); }

bool is_loopback(const std::string &host) {
  in_addr v4{};
  in6_addr v6{};
  if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  std::string bare = host;
  if (bare.size() > 2 && bare.front() == '[' && bare.back() == ']') bare = bare.substr(1, bare.size() - 2);
  if (::inet_pton(AF_INET6, bare.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
  return host == "localhost";
}

void check_together(Config &config, const Origins &origins, std::vector<Problem> &problems) {
  Check(config, origins, problems).run();
}

}  // namespace sluice::config

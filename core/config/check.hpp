#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/config/config.hpp"

namespace sluice::config {

/// Full dotted key -> who said it. What is absent is a default.
using Origins = std::map<std::string, Origin>;

/// "models.NAME", the name quoted where TOML needs it.
std::string section_of(const Model &model);

/// What only shows when values are seen together. Adds the keys of api_key_file to api_keys.
void check_together(Config &config, const Origins &origins, std::vector<Problem> &problems);

/// True for what only this machine can reach: localhost, 127.0.0.0/8, ::1.
bool is_loopback(const std::string &host);

}  // namespace sluice::config

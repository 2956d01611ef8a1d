#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace sluice::config {

/// A TOML basic string with its quotes: what is not printable is escaped, so a hostile value cannot steer a terminal.
std::string toml_text(std::string_view text);

/// toml_text(), cut to a length that fits in a message.
std::string excerpt(std::string_view text);

/// Control characters as \xNN, everything else as it is.
std::string printable(std::string_view text);

/// A name as it stands in a dotted key: bare where TOML allows it, else quoted.
std::string key_part(std::string_view name);

bool is_utf8(std::string_view text);

/// "a, b, c"
std::string join(const std::vector<std::string> &parts);

}  // namespace sluice::config

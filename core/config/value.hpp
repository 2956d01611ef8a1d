#pragma once
#include <optional>
#include <string>

#include "core/config/fields.hpp"

namespace sluice::config {

/// What a field takes, for messages and reference(): "an integer 1..64".
std::string expectation(const Field &field);

/// Its present value as TOML; empty for an optional that is not set. Secrets come out masked.
std::string rendered(const Field &field);

/// Sets a field from a TOML value, whose tables may be moved from.
/// key     the full dotted key, for messages
/// folder  what relative paths are relative to
/// returns what is wrong: key, value and what it must be. The field is then unchanged.
std::optional<std::string> assign(const Field &field, const std::string &key, toml::node &value, const Origin &origin,
                                  const std::string &folder);

/// The same from the text of a variable or a flag: no quotes, lists separated by commas.
std::optional<std::string> assign_text(const Field &field, const std::string &key, const std::string &text,
                                       const Origin &origin);

/// [A-Za-z0-9._-]{1,128}: names of models, aliases and plugins.
bool is_name(const std::string &text);
inline constexpr const char *kNameRule = "1 to 128 letters, digits, '.', '_' and '-'";

/// The kind of a TOML value with its article, as messages say it: "an integer".
std::string kind_of(const toml::node &value);

}  // namespace sluice::config

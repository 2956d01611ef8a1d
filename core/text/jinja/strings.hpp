#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// Python's string methods, on UTF-8. Positions and lengths count characters; letters change case within ASCII only.
namespace sluice::text::jinja {

enum class Side { kLeft, kRight, kBoth };

/// Drops white space, or the characters of `drop`, from the ends.
std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> drop);

/// At most `most` cuts; from the right end when from_right. An empty separator: at runs of white space.
std::vector<std::string_view> split(std::string_view text, std::string_view separator, uint64_t most, bool from_right);

size_t count_characters(std::string_view text);

/// Those from `begin` up to `end`, which count characters; end is at least begin.
std::string_view characters_between(std::string_view text, size_t begin, size_t end);

/// Each character as a view.
std::vector<std::string_view> characters(std::string_view text);

/// How often `what`, which is not empty, appears without overlap.
size_t count_matches(std::string_view text, std::string_view what);

/// Replaces the first `most` matches. An empty `from` matches nothing.
std::string replace(std::string_view text, std::string_view from, std::string_view to, uint64_t most);

std::string lower(std::string_view text);
std::string upper(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);

}  // namespace sluice::text::jinja
